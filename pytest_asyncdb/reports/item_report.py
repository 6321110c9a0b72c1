"""What the plugin adds to pytest's report of a test.

xdist's workers send a report with its attributes to the controller: ``asyncdb`` (the outcome,
for the matrix), ``asyncdb_kept``, ``asyncdb_strays`` and ``asyncdb_times``.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from pytest_asyncdb._run.collection import BACKEND, spec_of
from pytest_asyncdb._run.stash import MATRIX, RUN, forget_test, state_of

if TYPE_CHECKING:
    import pytest


def complete(
    report: pytest.TestReport,
    item: pytest.Item,
    call: pytest.CallInfo[None],
    compared: dict[str, Any] | None,
) -> None:
    """Add to *report* what is known of the test.

    Args:
        compared: The two sides of the test's last failed comparison.
    """
    run, test, spec = item.config.stash[RUN], state_of(item), spec_of(item)
    error = call.excinfo.value if call.excinfo is not None and report.failed else None
    if spec is not None and (call.when == "teardown" or report.failed):
        report.user_properties.append(_property(str(spec)))  # for JUnit's file and the summary
    if error is not None:
        _explain(report, item, error, call.when)
    if spec is not None and item.config.stash[MATRIX]:
        from pytest_asyncdb.reports import outcome

        log = test.log[0] if test.log is not None else None
        state = outcome.outcome_of(item.nodeid, spec, error, compared, log)
        report.__dict__["asyncdb"] = state
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


@functools.cache
def _property(word: str) -> tuple[str, str]:
    """The backend as a property of a report: one object, because pytest keeps all reports."""
    return BACKEND, word


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
