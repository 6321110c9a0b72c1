"""What the plugin adds to pytest's report of a test: sections of a failed test, and attributes.

xdist's workers send a report with its attributes to the controller: ``asyncdb`` (the outcome,
for the matrix), ``asyncdb_kept``, ``asyncdb_only``, ``asyncdb_other_engines``, ``asyncdb_late``,
``asyncdb_unseen`` and ``asyncdb_times``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pytest_asyncdb._record.statement_text import step_lines
from pytest_asyncdb._record.text import counted, duration
from pytest_asyncdb._run.collection import BACKEND, spec_of
from pytest_asyncdb._run.stash import RUN, forget_test, state_of

if TYPE_CHECKING:
    import pytest

    from pytest_asyncdb._record.statement_log import StatementLog, Step
    from pytest_asyncdb._run.run import Run
    from pytest_asyncdb._run.stash import TestState

#: Number of statements that are shown: the last ones.
_SHOWN = 20
#: Number of lock timeouts that are shown.
_WAITS = 3
_ENDS = ("COMMIT", "ROLLBACK")


def complete(report: pytest.TestReport, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Add to *report* what is known of the test."""
    run, test, spec = item.config.stash[RUN], state_of(item), spec_of(item)
    error = call.excinfo.value if call.excinfo is not None and report.failed else None
    refused, run.redirector.others.refused = run.redirector.others.refused, []
    if refused and report.passed:  # the code under test has swallowed the error
        error, report.outcome, report.longrepr = refused[0], "failed", str(refused[0])
    if spec is not None and (call.when == "teardown" or report.failed):
        report.user_properties.append((BACKEND, str(spec)))  # for JUnit's file and the summary
    if error is not None:
        # A failed assertion is not about a server that is gone.
        asks = call.when != "setup" and not isinstance(error, AssertionError)
        lost = run.liveness.lost(spec) if asks else None
        test.lost = test.lost or lost is not None
        if lost is not None and str(lost) not in str(error):
            report.sections.append(("asyncdb", str(lost)))
        report.sections += _sections(error, test, None if lost else run, call.when)
    if spec is not None and run.settings.compares:
        from pytest_asyncdb.reports import outcome

        log = test.log[0] if test.log is not None else None
        report.__dict__["asyncdb"] = outcome.outcome_of(item.nodeid, spec, error, log)
    if report.failed and test.view is not None and run.settings.keep:
        test.view.keeping = True
    if test.kept is not None:
        report.__dict__["asyncdb_kept"] = [*test.kept]
    if others := run.redirector.others.seen:
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
        times = run.timer.take()
        if times is not None and run.settings.stats:
            report.__dict__["asyncdb_times"] = times
        forget_test(item)


def _sections(
    error: BaseException, test: TestState, run: Run | None, when: str
) -> Iterator[tuple[str, str]]:
    """Titles and texts of the sections for a failed test.

    Args:
        run: None if the test's server is gone, which explains the error.
    """
    from pytest_asyncdb.reports import changed_rows, hints

    if test.log is not None:
        log, where = test.log
        if log.number:
            yield "asyncdb: SQL", statements(log, where)
        for text in log.waits[-_WAITS:]:
            yield "asyncdb: locks", text
    if run is not None and (hint := hints.find(error)) is not None:
        yield "asyncdb: hint", hints.render(hint)
    if run is not None and when != "teardown" and test.view is not None:
        yield from changed_rows.of_failure(test.view, run)


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
