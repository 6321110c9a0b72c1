"""The sections that a failed test's report gets: its statements, lock timeouts, a hint.

The last statements are shown in full, indented by transactions; before these, equal statements
are grouped.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from pytest_asyncdb._record.redaction import masked
from pytest_asyncdb._record.statement_log import StatementLog, Step
from pytest_asyncdb._record.statement_text import step_lines
from pytest_asyncdb._record.text import counted, cut, duration, wrap
from pytest_asyncdb.reports import hints

#: Number of statements shown in full, and of groups of equal statements before these.
_SHOWN, _GROUPS = 20, 10
#: Characters of a statement that is not shown in full.
_SHORT = 200
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
        first = _first_in_full(steps)
        earlier, steps = steps[:first], steps[first:]
        shown = sum(step.number > 0 for step in steps)
        lines.append(f"Before the last {shown}, equal ones together:")
        lines += _grouped(earlier)
        lines.append(f"The last {shown}:")
    connections = _connections(steps)
    for step in steps:
        lines += step_lines(step, connections, log.hidden)
    return "\n".join(lines)


def _first_in_full(steps: Sequence[Step]) -> int:
    """The index of the first step that is shown in full; a BEGIN stays with its statements."""
    first = [index for index, step in enumerate(steps) if step.number][-_SHOWN:][0]
    return first - 1 if first and steps[first - 1].entry == "BEGIN" else first


def _grouped(steps: Sequence[Step]) -> Iterator[str]:
    """Consecutive equal statements as one line, with the end of their transaction if it follows."""
    groups: list[tuple[int, str, int]] = []  # the first one's number, the text, how many
    for step, after in itertools.zip_longest(steps, steps[1:]):
        if isinstance(step.entry, str):
            continue
        text = cut(masked(step.entry.sql)[0], _SHORT)
        if step.entry.error is not None:
            text += f" -- {step.entry.error}"
        if after and after.entry in _ENDS and after.checkout == step.checkout:
            text += f"; {after.entry}"
        if groups and groups[-1][1] == text:
            groups[-1] = (*groups[-1][:2], groups[-1][2] + 1)
        else:
            groups.append((step.number, text, 1))
    shown = groups[-_GROUPS:]
    if shown and (others := shown[0][0] - 1):
        yield f"      {others} others"
    for number, text, count in shown:
        yield from wrap(f"{count} × " * (count > 1) + text, f"{number:>4}  ")


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
