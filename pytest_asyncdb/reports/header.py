"""The header of a run, and the notes at its end."""

from __future__ import annotations

import contextlib
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from pytest_asyncdb import errors
from pytest_asyncdb._record.text import counted
from pytest_asyncdb._run.run import Run
from pytest_asyncdb.values import BackendSpec

if TYPE_CHECKING:
    from pytest_asyncdb._run.other_engines import OtherEngine

#: Number of engines that the summary shows.
_SHOWN = 10


def header(run: Run, details: bool) -> list[str]:
    """Return one line for each backend: version, driver, provider, strategy.

    Args:
        details: Also show why the server comes from there, how it is tuned, and versions.
    """
    return [f"asyncdb: {line}" for line in servers(run, details).values()]


def servers(run: Run, details: bool = False) -> dict[str, str]:
    """Return a line for each backend, by the backend as written."""
    lines, strategy = {}, run.settings.isolation.value
    for spec in run.settings.all_specs:
        try:
            line = f"{backend_line(run, spec)}, {strategy}" if details else short_line(run, spec)
        except errors.AsyncdbError as error:
            line = f"{spec}: {error.headline}"
        lines[str(spec)] = line
    return lines


def versions(run: Run) -> dict[str, str]:
    """Return the versions of Python, the libraries and the drivers of the run."""
    found = {"Python": platform.python_version()}
    drivers = []
    for spec in run.settings.all_specs:
        with contextlib.suppress(errors.DriverMissing):
            drivers.append(run.driver(spec).module)
    for name in ("pytest", "pytest-asyncdb", "SQLAlchemy", *drivers):
        if (number := version_of(name)) is not None:
            found[name] = number
    return found


def short_line(run: Run, spec: BackendSpec) -> str:
    """Return server, driver, provider, the user's image and strategy in a line.

    When the server has started, the version is the one that the server reports.

    Raises:
        AsyncdbError: A server or driver is not available.
    """
    provider, found = run.choice.find(spec)
    started = run.owned.started(spec) if run.owned is not None else None
    known = (getattr(started, "version", None), found.version, spec.version)
    server = " ".join(filter(None, [run.backend(spec).label, next(filter(None, known), None)]))
    place, image = provider.name, run.settings.image(spec)
    if image is not None and image.value in found.reason:
        place += f" of {image.value}"
    return " · ".join((server, run.driver(spec).name, place, run.settings.isolation.value))


def backend_line(run: Run, spec: BackendSpec) -> str:
    """Return server version, driver, provider with the reason, and tuning in a line.

    Raises:
        AsyncdbError: A server or driver is not available.
    """
    backend, driver = run.backend(spec), run.driver(spec)
    provider, found = run.choice.find(spec)
    server = f"{backend.label} {found.version}" if found.version else backend.label
    kept = "kept for later runs" if provider.keeps else "not kept: this provider cannot"
    kept = kept if run.settings.reuse and found.tuning else ""
    why = "; ".join(filter(None, [found.reason, found.tuning, kept]))
    driver_text = " ".join(filter(None, [driver.name, version_of(driver.module)]))
    return f"{spec}: {server}, {driver_text}, {provider.name} ({why})"


def version_of(module: str) -> str | None:
    """Return the version of the distribution of the same name; None: there is none, for example for
    a driver inside of an application."""
    try:
        return version(module)
    except PackageNotFoundError:
        return None


def notes(run: Run, reports: Sequence[object]) -> Iterator[str]:
    """Yield lines for the end of the run.

    Args:
        reports: pytest's reports with attributes that ``item_report.py`` has added to them, also in
            xdist's workers.
    """
    only = Counter(r.asyncdb_only for r in reports if hasattr(r, "asyncdb_only"))
    for word, number in only.items():
        yield (
            f"asyncdb: {counted(number, 'test')} ran on {word} only: "
            "pytest cannot parametrise unittest classes and doctests"
        )
    unseen = Counter(word for r in reports for word in getattr(r, "asyncdb_unseen", ()))
    for word, number in unseen.items():
        yield (
            f"asyncdb: the database was replaced after {counted(number, 'test')}, "
            f"as its changes cannot be seen: {word}"
        )
    yield from _kept(reports)
    yield from _other_engines(reports, run)
    yield from _late(reports)
    if run.settings.stats or any(hasattr(report, "asyncdb_times") for report in reports):
        from pytest_asyncdb.reports import timing_table

        yield from timing_table.table(run, reports) if run.settings.stats else ()
        yield from timing_table.advice(reports)


def _other_engines(reports: Iterable[object], run: Run) -> Iterator[str]:
    """Yield the engines that connected to another database, once each, and what to do about
    each."""
    rows = [row for one in reports for row in getattr(one, "asyncdb_other_engines", ())]
    if not rows:
        return
    from pytest_asyncdb._run.other_engines import COLLECTION, OtherEngine

    found: dict[tuple[str, str | None], list[OtherEngine]] = {}
    for row in rows:
        other = OtherEngine(*row)
        found.setdefault((other.url, other.name), []).append(other)
    for url, name in [*found][:_SHOWN]:
        others = found[url, name]
        tests = {other.test for other in others} - {COLLECTION}
        where = counted(len(tests), "test") if tests else COLLECTION
        yield f"asyncdb: in {where} an engine connected that is not redirected: {url}"
        first = next((other for other in others if other.fixture), others[0])
        yield f"  first in {first.test}" + (f", at {first.place}" if first.place else "")
        yield from (f"  {line}" for line in run.redirector.others.remedies(first))
    if len(found) > _SHOWN:
        yield f"asyncdb: and {len(found) - _SHOWN} more engines that are not redirected"


def _late(reports: Iterable[object]) -> Iterator[str]:
    """Yield the tasks that were refused a database because their tests had ended, once each."""
    rows = [tuple(row) for report in reports for row in getattr(report, "asyncdb_late", ())]
    for test, task, place in dict.fromkeys(rows):
        yield f"asyncdb: a task of {test} used a database after its test; it was refused"
        yield f"  task: {task}" + (f", at {place}" if place else "")
        yield "  await or cancel every task of a test before it ends"


def _kept(reports: Iterable[object]) -> Iterator[str]:
    """Yield the databases of failed tests that were kept, and how to open them."""
    found = [(r.nodeid, *r.asyncdb_kept) for r in reports if hasattr(r, "asyncdb_kept")]  # type: ignore[attr-defined]
    for test, kept, text in found:
        yield f"asyncdb: {'kept' if kept else 'not kept'}: {test}"
        yield f"  {text}"
    if any(kept for _, kept, _ in found):
        yield "asyncdb: what is kept is removed by: python -m pytest_asyncdb reap"


def other_engine_sections(others: Sequence[OtherEngine], run: Run) -> Iterator[tuple[str, str]]:
    """Yield the sections of a failed test for engines that connected and are not redirected."""
    for other in others:
        lines = [
            "An engine connected during this test that is not redirected to its database.",
            f"URL: {other.url}",
            *([f"at {other.place}"] if other.place else []),
            "What it wrote is not undone, and it does not see what the test wrote.",
            *run.redirector.others.remedies(other),
        ]
        yield "asyncdb", "\n".join(lines)
