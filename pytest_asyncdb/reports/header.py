"""What the plugin prints: the header, and notes at the end. Reads, never acts.

Passwords never get here: a server's is not part of any line.
"""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

from pytest_asyncdb import errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pytest

    from pytest_asyncdb._run.redirect import Stray
    from pytest_asyncdb._run.run import Run
    from pytest_asyncdb.abc import BackendSpec


def header(run: Run) -> list[str]:
    """One line for each backend: version, driver, provider and why, tuning, strategy."""
    return [_line(run, spec) for spec in run.settings.specs]


def _line(run: Run, spec: BackendSpec) -> str:
    backend = run.backend(spec)
    try:
        driver = run.driver(spec)
        provider, found = run.choice.find(spec)
    except errors.AsyncdbError as error:
        return f"asyncdb: {spec}: {error.headline}"
    version = f" {found.version}" if found.version else ""
    kept = {True: "kept for later runs", False: "not kept: a server of this provider cannot be"}
    stays = kept[provider.keeps] if run.settings.reuse and found.tuning else ""
    why = "; ".join(filter(None, [found.reason, found.tuning, stays]))
    driver_version = importlib.metadata.version(driver.module)
    return (
        f"asyncdb: {spec}: {backend.label}{version}, {driver.name} {driver_version}, "
        f"{provider.name} ({why}), {run.settings.isolation.value}"
    )


def notes(run: Run, reports: Iterable[object]) -> list[str]:
    """Lines for the end of the run.

    Args:
        reports: pytest's, of all tests; what :func:`note_strays` noted comes with them, from
            xdist's workers too.
    """
    lines = []
    reports = list(reports)
    if run.unparametrised:
        lines.append(
            f"asyncdb: {len(run.unparametrised)} unittest tests ran on "
            f"{run.settings.specs[0]} only: pytest cannot parametrise unittest classes"
        )
    lines += _kept(reports)
    strays: dict[tuple[str, str | None], set[str]] = {}
    for report in reports:
        for url, name in getattr(report, "asyncdb_strays", ()):
            strays.setdefault((url, name), set()).add(report.nodeid)  # type: ignore[attr-defined]
    for (url, name), tests in strays.items():
        count = f"{len(tests)} test{'s' * (len(tests) > 1)}"
        lines += [
            f"asyncdb: in {count} an engine connected that is not redirected: {url}",
            *(f"  {line}" for line in _remedies(url, name, run)),
        ]
    return lines


def times(run: Run) -> list[str]:
    """Lines for the end of the run: how long our own work took, if that was asked for, or if
    something of it was out of the ordinary."""
    started = run.owned is not None and any(map(run.owned.started, run.settings.specs))
    if not (run.settings.stats or started or run.noted.workers):
        return []  # what shows them is not imported for nothing
    from pytest_asyncdb.reports import timing_table

    found = timing_table.collect(run)
    return [
        *(timing_table.table(found) if run.settings.stats else ()),
        *timing_table.unusual(found),
    ]


def _kept(reports: Iterable[object]) -> list[str]:
    """What was kept of failed tests, and how to open it."""
    lines = []
    found = [(r.nodeid, *r.asyncdb_kept) for r in reports if hasattr(r, "asyncdb_kept")]  # type: ignore[attr-defined]
    for test, kept, text in found:
        lines += [f"asyncdb: {'kept' if kept else 'not kept'}: {test}", f"  {text}"]
    if any(kept for _, kept, _ in found):
        lines.append("asyncdb: what is kept is removed by: python -m pytest_asyncdb reap")
    return lines


def note_lost(report: pytest.TestReport, error: BaseException, spec: object, run: Run) -> bool:
    """Note in a failed test's *report* that its server is gone, if it is, and say whether it is.

    Args:
        error: What the test failed with; a failed assertion has nothing to do with it.
        spec: The test's backend.
    """
    if isinstance(error, AssertionError) or (lost := run.watchdog.lost(spec)) is None:
        return False
    if str(lost) not in str(error):
        report.sections.append(("asyncdb", str(lost)))
    return True


def note_strays(report: pytest.TestReport, strays: Sequence[Stray], run: Run) -> None:
    """Note in a test's *report* that engines connected which nobody named.

    A report is sent from xdist's workers with its attributes.
    """
    report.__dict__["asyncdb_strays"] = [[stray.url, stray.name] for stray in strays]
    if not report.failed:
        return
    for stray in strays:
        lines = [
            "An engine connected during this test that is not redirected to its database.",
            f"URL: {stray.url}",
            "What it wrote is not undone, and it does not see what the test wrote.",
            *_remedies(stray.url, stray.name, run),
        ]
        report.sections.append(("asyncdb", "\n".join(lines)))


def _remedies(url: str, name: str | None, run: Run) -> list[str]:
    def line(word: str) -> str:
        written = run.settings.app_engines.value.replace(",", " ").split()
        return f"asyncdb_app_engines = {', '.join([*written, word])}"

    return [
        f"to redirect it, write in the ini file: {line(name or 'module:attribute')}",
        f"to leave it alone: {line(f'-{name or url}')}",
    ]
