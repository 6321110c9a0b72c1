"""What the summary of a run with failed database tests says about its metadata."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pytest_asyncdb._run.collection import BACKEND

if TYPE_CHECKING:
    from pytest_asyncdb._run.run import Run

_MOST = 10


def portability(run: Run, reports: Iterable[object]) -> list[str]:
    """Lines about what the run's backends hold differently; none unless a test failed on one of
    several, and the ini file names the metadata."""
    failed = any(
        getattr(report, "failed", False) and BACKEND in dict(getattr(report, "user_properties", ()))
        for report in reports
    )
    if not failed or len(run.settings.specs) < 2:
        return []
    from pytest_asyncdb.reports.portability import describe, of_run
    from pytest_asyncdb.reports.sections import wrap

    found = of_run(run)
    lines = []
    for trouble in found[:_MOST]:
        text, says, instead = describe(trouble, most=2)
        lines += [*wrap(text, "  "), *wrap(says, "    "), *wrap(f"portable: {instead}", "    ")]
    if len(found) > _MOST:
        lines.append(f"  and {len(found) - _MOST} more: pytest --asyncdb-doctor")
    return ["asyncdb: of the metadata, not the same on every backend:", *lines] if lines else []
