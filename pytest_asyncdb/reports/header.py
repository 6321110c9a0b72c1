"""The header of a run, and the notes at its end."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from pytest_asyncdb import errors
from pytest_asyncdb._record.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_asyncdb._run.redirect import Stray
    from pytest_asyncdb._run.run import Run
    from pytest_asyncdb.abc import BackendSpec


def header(run: Run) -> list[str]:
    """One line for each backend: version, driver, provider and why, tuning, strategy."""
    lines = []
    for spec in run.settings.specs:
        try:
            lines.append(f"asyncdb: {backend_line(run, spec)}, {run.settings.isolation.value}")
        except errors.AsyncdbError as error:
            lines.append(f"asyncdb: {spec}: {error.headline}")
    return lines


def backend_line(run: Run, spec: BackendSpec) -> str:
    """Server version, driver, provider and why, tuning; AsyncdbError: one is not available."""
    backend, driver = run.backend(spec), run.driver(spec)
    provider, found = run.choice.find(spec)
    server = f"{backend.label} {found.version}" if found.version else backend.label
    kept = "kept for later runs" if provider.keeps else "not kept: this provider cannot"
    kept = kept if run.settings.reuse and found.tuning else ""
    why = "; ".join(filter(None, [found.reason, found.tuning, kept]))
    driver_text = " ".join(filter(None, [driver.name, version_of(driver.module)]))
    return f"{spec}: {server}, {driver_text}, {provider.name} ({why})"


def version_of(module: str) -> str | None:
    """The version of the distribution of the same name; None: there is none, as for a driver
    inside an application."""
    try:
        return version(module)
    except PackageNotFoundError:
        return None


def notes(run: Run, reports: Iterable[object]) -> list[str]:
    """Lines for the end of the run.

    Args:
        reports: pytest's reports of all tests, with the attributes that ``item_report.py``
            has added to them, also in xdist's workers.
    """
    lines = []
    reports = list(reports)
    only = Counter(r.asyncdb_only for r in reports if hasattr(r, "asyncdb_only"))
    lines += [
        f"asyncdb: {counted(number, 'test')} ran on {word} only: "
        "pytest cannot parametrise unittest classes and doctests"
        for word, number in only.items()
    ]
    lines += _kept(reports)
    lines += _strays(reports, run)
    if run.settings.stats:
        from pytest_asyncdb.reports import timing_table

        lines += timing_table.table(run, reports)
    return lines


def _strays(reports: Iterable[object], run: Run) -> Iterator[str]:
    """The engines that connected without being redirected, and what to do about each."""
    strays: dict[tuple[str, str | None], set[str]] = {}
    for report in reports:
        for url, name in getattr(report, "asyncdb_strays", ()):
            strays.setdefault((url, name), set()).add(report.nodeid)  # type: ignore[attr-defined]
    for (url, name), tests in strays.items():
        where = f"asyncdb: in {counted(len(tests), 'test')}"
        yield f"{where} an engine connected that is not redirected: {url}"
        yield from (f"  {line}" for line in _remedies(url, name, run))


def _kept(reports: Iterable[object]) -> Iterator[str]:
    """The databases that were kept of failed tests, and how to open them."""
    found = [(r.nodeid, *r.asyncdb_kept) for r in reports if hasattr(r, "asyncdb_kept")]  # type: ignore[attr-defined]
    for test, kept, text in found:
        yield f"asyncdb: {'kept' if kept else 'not kept'}: {test}"
        yield f"  {text}"
    if any(kept for _, kept, _ in found):
        yield "asyncdb: what is kept is removed by: python -m pytest_asyncdb reap"


def stray_sections(strays: Sequence[Stray], run: Run) -> Iterator[tuple[str, str]]:
    """The sections of a failed test for engines that connected and are not redirected."""
    for stray in strays:
        lines = [
            "An engine connected during this test that is not redirected to its database.",
            f"URL: {stray.url}",
            "What it wrote is not undone, and it does not see what the test wrote.",
            *_remedies(*stray, run),
        ]
        yield "asyncdb", "\n".join(lines)


def _remedies(url: str, name: str | None, run: Run) -> list[str]:
    written = ", ".join(run.settings.app_engines.value.replace(",", " ").split())
    option = "asyncdb_app_engines = " + f"{written}, " * bool(written)
    return [
        f"to redirect it, write in the ini file: {option}{name or 'module:attribute'}",
        f"to leave it alone: {option}-{name or url}",
    ]
