"""What the summary of a run with failed database tests says about its metadata."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_asyncdb._run import Run

_MOST = 10


def portability(run: Run, reports: Iterable[object]) -> list[str]:
    """Lines about what the run's backends hold differently; none unless a test failed on one of
    several, and the ini file names the metadata."""
    ids = [spec.id for spec in run.settings.specs]
    failed = any(
        getattr(report, "failed", False) and _is_on(str(getattr(report, "nodeid", "")), ids)
        for report in reports
    )
    if not failed or len(ids) < 2 or not run.settings.metadata.value:
        return []
    from pytest_asyncdb._plan import load_metadata
    from pytest_asyncdb.reports._portability import describe, troubles

    try:
        metadata = load_metadata(run.settings.metadata)
    except Exception:
        return []  # the tests that needed it said why
    dialects = {spec.backend: run.backend(spec).dialect for spec in run.settings.specs}
    found = troubles(metadata, dialects)
    lines = []
    for trouble in found[:_MOST]:
        text, says, instead = describe(trouble, most=2)
        lines += [f"  {text}", f"    {says}", f"    portable: {instead}"]
    if len(found) > _MOST:
        lines.append(f"  and {len(found) - _MOST} more: pytest --asyncdb-doctor")
    return ["asyncdb: of the metadata, not the same on every backend:", *lines] if lines else []


def _is_on(nodeid: str, ids: Iterable[str]) -> bool:
    """Does a test's id carry a backend's?"""
    _, _, parameters = nodeid.partition("[")
    parameters = f"-{parameters.removesuffix(']')}-"
    return any(f"-{word}-" in parameters for word in ids)
