"""What the plugin adds to pytest's report of a test.

xdist's workers send a report with its attributes to the controller: ``asyncdb`` (the outcome,
for the matrix), ``asyncdb_kept``, ``asyncdb_strays`` and ``asyncdb_times``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_asyncdb._run.collection import BACKEND, spec_of
from pytest_asyncdb._run.stash import MATRIX, RUN, forget_test, state_of

if TYPE_CHECKING:
    import pytest


def complete(report: pytest.TestReport, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Add to *report* what is known of the test."""
    run, test, spec = item.config.stash[RUN], state_of(item), spec_of(item)
    error = call.excinfo.value if call.excinfo is not None and report.failed else None
    if spec is not None and (call.when == "teardown" or report.failed):
        report.user_properties.append((BACKEND, str(spec)))  # for JUnit's file and the summary
    if error is not None:
        _explain(report, item, error, call.when)
    if spec is not None and item.config.stash[MATRIX]:
        from pytest_asyncdb.reports import outcome

        log = test.log[0] if test.log is not None else None
        report.__dict__["asyncdb"] = outcome.outcome_of(item.nodeid, spec, error, log)
    if report.failed and test.view is not None and run.settings.keep:
        test.view.keeping = True
    if test.kept is not None:
        report.__dict__["asyncdb_kept"] = [*test.kept]
    if test.strays:
        from pytest_asyncdb.reports import header

        header.note_strays(report, test.strays, run)
    if call.when == "teardown":
        times = run.timer.take()
        if times is not None and run.owned is not None:
            run.timing_totals.add(times, item.nodeid)
        elif times is not None:
            report.__dict__["asyncdb_times"] = times
        forget_test(item)


def _explain(report: pytest.TestReport, item: pytest.Item, error: BaseException, when: str) -> None:
    """Add sections that may explain why the test failed."""
    from pytest_asyncdb.reports import changed_rows, header, sections

    run, test = item.config.stash[RUN], state_of(item)
    lost = when != "setup" and header.note_lost(report, error, spec_of(item), run)
    test.lost = test.lost or lost
    found = sections.of_failure(error, test.log)
    report.sections += [one for one in found if not (lost and one[0] == sections.HINT)]
    if when != "teardown" and test.view is not None and not lost:
        report.sections += changed_rows.of_failure(test.view, run)
