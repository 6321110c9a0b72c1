"""What the plugin adds to pytest's report of a test: sections of a failed test, and attributes.

xdist's workers send a report with its attributes to the controller: ``asyncdb`` (the outcome,
for the matrix), ``asyncdb_kept``, ``asyncdb_only``, ``asyncdb_other_engines``, ``asyncdb_late``,
``asyncdb_unseen`` and ``asyncdb_times``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pytest

from pytest_asyncdb._record.timings import SLOW
from pytest_asyncdb._run.collection import BACKEND, spec_of
from pytest_asyncdb._run.run import Run
from pytest_asyncdb._run.stash import RUN, TestState, state_of

if TYPE_CHECKING:
    from pytest_asyncdb import errors
    from pytest_asyncdb._record.statement_log import StatementLog, Step

#: Number of statements that are shown, the last ones, and largest number of lines for them.
_SHOWN, _LINES = 5, 7
#: Number of lines for the changed rows, and for both sections together.
_ROWS, _TOGETHER = 3, 12
#: Number of lock timeouts that are shown.
_WAITS = 3
#: Styles of ``--tb`` that have no room for sections.
BRIEF = ("line", "no")
_ENDS = ("COMMIT", "ROLLBACK")


def complete(report: pytest.TestReport, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Add to *report* what the plugin knows about the test."""
    run, test, spec = item.config.stash[RUN], state_of(item), spec_of(item)
    error = call.excinfo.value if call.excinfo is not None and report.failed else None
    refused: list[errors.AsyncdbError] = []
    if run.watches:
        refused, run.redirector.others.refused = run.redirector.others.refused, []
    if refused and report.passed:  # the code under test has swallowed the error
        error, report.outcome, report.longrepr = refused[0], "failed", str(refused[0])
    if spec is not None and (call.when == "teardown" or report.failed):
        report.user_properties.append((BACKEND, str(spec)))  # for JUnit's file and the summary
    table = None
    if error is not None:
        from pytest_asyncdb.reports import hints

        table = hints.late_table(error, run.late_tables())
        # A failed assertion does not come from a server that is gone.
        asks = call.when != "setup" and not isinstance(error, AssertionError)
        lost = run.liveness.lost(spec) if asks else None
        test.lost = test.lost or lost is not None
        if lost is not None and str(lost) not in str(error):
            report.sections.append(("asyncdb", str(lost)))
        if item.config.getoption("tbstyle", None) not in BRIEF or run.settings.report.value:
            report.sections += _sections(error, test, run, call.when, lost is not None, table)
    if spec is not None and run.settings.compares:
        from pytest_asyncdb.reports import outcome

        log = test.log[0] if test.log is not None else None
        report.__dict__["asyncdb"] = outcome.outcome_of(item.nodeid, spec, error, log, table)
    if report.failed and test.view is not None and run.settings.keep:
        test.view.keeping = True
    if test.kept is not None:
        report.__dict__["asyncdb_kept"] = [*test.kept]
    if run.watches and (others := run.redirector.others.seen):
        from pytest_asyncdb.reports import header

        if report.failed:
            report.sections += header.other_engine_sections(others, run)
        if call.when == "teardown":
            report.__dict__["asyncdb_other_engines"] = [[*other] for other in others]
            others.clear()
    if run.late:
        report.__dict__["asyncdb_late"] = [[*late] for late in run.late]
        run.late.clear()
    if call.when == "teardown":
        if test.view is not None and test.view.unseen:
            report.__dict__["asyncdb_unseen"] = [*test.view.unseen]
        if test.only is not None:
            report.__dict__["asyncdb_only"] = str(test.only)
        if (times := run.timer.take(0.0 if run.settings.stats else SLOW)) is not None:
            report.__dict__["asyncdb_times"] = times


def _sections(
    error: BaseException, test: TestState, run: Run, when: str, lost: bool, table: str | None
) -> Iterator[tuple[str, str]]:
    """Yield titles and texts of the sections for a failed test.

    Args:
        lost: True if the test's server is gone, which explains the error.
        table: The table that was added too late, which explains the error.
    """
    from pytest_asyncdb.reports import changed_rows, hints

    inserted: Mapping[str, int] = {}
    everything, room = run.settings.sql.value == "all", _TOGETHER
    if test.log is not None:
        log, where = test.log
        if log.number and run.settings.sql.value != "no":
            lines, inserted = statements(log, where, everything)
            room -= len(lines)
            yield "asyncdb: SQL", "\n".join(lines)
        for text in log.waits[-_WAITS:]:
            yield "asyncdb: locks", text
    if not lost and (hint := hints.find(error, table)) is not None:
        yield "asyncdb: hint", hints.render(hint)
    if not lost and when != "teardown" and test.view is not None:
        limits = (None, {}) if everything else (max(room, _ROWS), inserted)
        yield from changed_rows.of_failure(test.view, run, *limits)


def statements(
    log: StatementLog, where: str, everything: bool
) -> tuple[list[str], Mapping[str, int]]:
    """Return the lines of the section with the statements, and the number of shown INSERTs by
    table.

    Args:
        where: Backend and strategy.
        everything: Show all statements, without cutting them.
    """
    # Imported for failures only, because these modules compile many regular expressions.
    from pytest_asyncdb._record.sql_text import inserted_into
    from pytest_asyncdb._record.statement_log import Statement
    from pytest_asyncdb._record.statement_text import step_lines
    from pytest_asyncdb._record.text import counted, duration

    steps = log.steps()
    numbered = [index for index, step in enumerate(steps) if step.number]
    if not everything and len(numbered) > _SHOWN:
        steps = steps[numbered[-_SHOWN] :]
    connections = _connections(steps)
    lines: list[str] = []
    shown, inserted = 0, Counter[str]()
    for step in reversed(steps):
        new = step_lines(step, connections, log.hidden, not everything)
        if not everything and len(lines) + len(new) > _LINES:
            break
        lines[:0] = new
        if isinstance(step.entry, Statement):
            shown += 1
            table = None if step.entry.many else inserted_into(step.entry.sql)
            inserted.update([table] if table else [])
    head = [f"{where}: {counted(log.number, 'statement')}, {duration(log.seconds)}"]
    if shown < log.number:
        head.append(f"      {log.number - shown} before these")
    return head + lines, inserted


def _connections(steps: Sequence[Step]) -> dict[int | None, str]:
    """Return names of connections by number; empty unless several had open transactions at once."""
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
