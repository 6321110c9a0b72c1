"""The sections that a failed test's report gets: its statements, lock timeouts, a hint.

The last statements are shown, indented by transactions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_asyncdb._record.statement_log import StatementLog, Step
from pytest_asyncdb._record.statement_text import step_lines
from pytest_asyncdb._record.text import counted, duration
from pytest_asyncdb.reports import hints

#: Number of statements that are shown: the last ones.
_SHOWN = 20
#: Number of lock timeouts that are shown.
_WAITS = 3
#: The title of the section with a hint.
HINT = "asyncdb: hint"
_ENDS = ("COMMIT", "ROLLBACK")


def of_failure(
    error: BaseException, ran: tuple[StatementLog, str] | None
) -> Iterator[tuple[str, str]]:
    """Titles and texts of the sections for a failed test.

    Args:
        ran: The test's statements, and its backend and strategy; None: the test has no database,
            or failed before it was opened.
    """
    if ran is not None:
        log, where = ran
        if log.number:
            yield "asyncdb: SQL", statements(log, where)
        for text in log.waits[-_WAITS:]:
            yield "asyncdb: locks", text
    if (hint := hints.find(error)) is not None:
        yield HINT, hints.render(hint)


def statements(log: StatementLog, where: str) -> str:
    """The text of the section with the statements.

    Args:
        where: Backend and strategy.
    """
    lines = [f"{where}: {counted(log.number, 'statement')}, {duration(log.seconds)}"]
    steps = log.steps()
    if log.number > _SHOWN:
        first = [index for index, step in enumerate(steps) if step.number][-_SHOWN:][0]
        if first and steps[first - 1].entry == "BEGIN":  # it stays with its statements
            first -= 1
        steps = steps[first:]
        lines.append(f"      {log.number - _SHOWN} before these")
    connections = _connections(steps)
    for step in steps:
        lines += step_lines(step, connections, log.hidden)
    return "\n".join(lines)


def _connections(steps: Sequence[Step]) -> dict[int | None, str]:
    """Names of connections by number; empty unless several had open transactions at once."""
    names: dict[int | None, str] = {}
    in_transaction: set[int] = set()
    several = False
    for step in steps:
        if step.checkout is None:
            continue
        names.setdefault(step.checkout, f"connection {len(names) + 1}")
        in_transaction.add(step.checkout)
        if step.entry in _ENDS:
            in_transaction.remove(step.checkout)
        several = several or len(in_transaction) > 1
    return names if several else {}
