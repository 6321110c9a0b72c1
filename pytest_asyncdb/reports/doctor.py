"""The doctor: which parts a run would use, what is missing, what is wrong.

It starts no server and connects to none. Like a run, it imports the application's modules.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import platform
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from pytest_asyncdb import errors
from pytest_asyncdb._record.text import counted, wrap
from pytest_asyncdb.abc import BackendSpec
from pytest_asyncdb.reports import portability
from pytest_asyncdb.reports.header import version_of

if TYPE_CHECKING:
    import pytest

    from pytest_asyncdb._run.run import Run

_PACKAGES = ("pytest-asyncdb", "pytest", "SQLAlchemy", "pytest-asyncio", "anyio", "pytest-xdist")
_INDENT = " " * 9
_MODES = {
    "auto": "every async test runs",
    "strict": "only tests marked with pytest.mark.asyncio run, or anyio's",
}
_OTHER_LOOP = (
    "async fixtures run on another loop than tests; engines of your own that they open are bound "
    "to it"
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """One result of the examination.

    Args:
        level: ``wrong`` makes the exit code 1; a ``note`` is worth reading.
        detail: Further lines.
        remedy: What to do.
    """

    level: Literal["ok", "note", "wrong"]
    text: str
    detail: tuple[str, ...] = ()
    remedy: str = ""


def examine(config: pytest.Config, run: Run) -> dict[str, list[Finding]]:
    """All findings by part."""
    parts = {
        "python": _python(),
        "loops": _loops(config),
        "drivers": _drivers(run),
        "servers": _servers(run),
        "application": _application(run),
        "portability": _portability(run),
    }
    return {name: list(findings) for name, findings in parts.items()}


def render(found: dict[str, list[Finding]]) -> str:
    """The findings as text of 80 columns."""
    lines: list[str] = []
    for part, findings in found.items():
        lines += ["", part] if findings else []
        for finding in findings:
            lines += wrap(finding.text, f"  {finding.level:<5}  ")
            for detail in finding.detail:
                lines += wrap(detail, _INDENT)
            if finding.remedy:
                lines += wrap(f"to fix this: {finding.remedy}", _INDENT)
    number = wrong(found)
    verb = "is" if number == 1 else "are"
    end = f"{counted(number, 'thing')} {verb} wrong" if number else "nothing is wrong"
    return "\n".join(["asyncdb doctor", *lines, "", end])


def wrong(found: dict[str, list[Finding]]) -> int:
    """The number of findings that make the exit code 1."""
    return sum(f.level == "wrong" for findings in found.values() for f in findings)


def _python() -> Iterator[Finding]:
    names = [f"{name} {found}" for name in _PACKAGES if (found := version_of(name)) is not None]
    yield Finding("ok", f"Python {platform.python_version()}, {', '.join(names)}")


def _loops(config: pytest.Config) -> Iterator[Finding]:
    plugins = config.pluginmanager
    if not plugins.has_plugin("asyncio"):
        if plugins.has_plugin("anyio"):
            yield Finding("ok", "pytest-asyncio is not active; anyio runs the tests marked for it")
        else:
            text = "neither pytest-asyncio nor anyio is active: no async test runs"
            yield Finding("wrong", text, remedy="leave out -p no:asyncio")
        return
    mode = config.getoption("asyncio_mode") or config.getini("asyncio_mode")
    mode = str(getattr(mode, "value", mode))
    yield Finding("ok", f"asyncio_mode = {mode}: {_MODES.get(mode, 'unknown')}")
    tests = str(config.getini("asyncio_default_test_loop_scope") or "function")
    text = f"one loop per {'test' if tests == 'function' else tests}"
    yield Finding("ok", f"asyncio_default_test_loop_scope = {tests}: {text}")
    fixtures = str(config.getini("asyncio_default_fixture_loop_scope") or tests)
    if fixtures != tests:
        text = f"asyncio_default_fixture_loop_scope = {fixtures}: {_OTHER_LOOP}"
        yield Finding("note", text, remedy="give both the same scope")


def _drivers(run: Run) -> Iterator[Finding]:
    for name in run.registry.backends:
        used = [spec for spec in run.settings.specs if spec.backend == name]
        for driver in run.registry.backend(name).drivers:
            if importlib.util.find_spec(driver.module):
                found = version_of(driver.module) or "without a version"
                yield Finding("ok", f"{name}+{driver.name}: {found}")
            elif not used:
                yield Finding("note", f"{name}+{driver.name}: not installed")
        for spec in used:
            try:
                run.driver(spec)
            except errors.AsyncdbError as error:
                yield _error(error)


def _servers(run: Run) -> Iterator[Finding]:
    chosen = {spec.backend for spec in run.settings.specs}
    others = [BackendSpec(n, written=n) for n in run.registry.backends if n not in chosen]
    for spec in (*run.settings.specs, *others):
        backend, tried = run.backend(spec), []
        for name in run.choice.candidates(spec):
            try:
                found = run.registry.provider(name).find(spec, backend, run.settings.url(spec))
                tried.append(f"{name}: {found.reason}")
            except errors.ProviderUnavailable as reason:
                tried.append(f"{name}: {reason}")
        try:
            provider, found = run.choice.find(spec)
        except errors.AsyncdbError as error:
            unused = Finding("note", f"{spec}: no server is available", tuple(tried))
            yield _error(error) if spec.backend in chosen else unused
        else:
            server = f"{backend.label} {found.version}" if found.version else backend.label
            detail = tuple(tried) if len(tried) > 1 else ()
            yield Finding("ok", f"{spec}: {server} from {provider.name}", detail)


def _application(run: Run) -> Iterator[Finding]:
    settings = run.settings
    path = settings.migrations.value
    if settings.metadata.value:
        yield _try(lambda: _tables(run), f"asyncdb_metadata = {settings.metadata.value}")
    elif path is None:
        text = "the ini file names no tables; a conftest may override asyncdb_metadata"
        yield Finding("note", text, remedy="write asyncdb_metadata = app.models:Base")
    if path is not None:
        from pytest_asyncdb._databases.migrations import AlembicMigration

        migration = AlembicMigration(path, settings.migrations.source)
        yield _try(migration.check, f"asyncdb_migrations = {path.name}")
    for entry in run.named_engines:
        if not entry.foreign:
            yield _try(entry.engines, f"asyncdb_app_engines: {entry.word}")


def _tables(run: Run) -> str:
    from pytest_asyncdb._databases.plan import load_metadata

    return counted(sum(len(m.tables) for m in load_metadata(run.settings.metadata)), "table")


def _portability(run: Run) -> Iterator[Finding]:
    from pytest_asyncdb._databases.plan import load_metadata

    try:
        metadata = load_metadata(run.settings.metadata)
    except Exception:  # the application's own; see _application()
        return
    dialects = {spec.backend: run.backend(spec).dialect for spec in run.settings.specs}
    for problem in portability.problems(metadata, dialects):
        yield Finding("wrong", problem.where, (problem.means,), problem.instead)


def _try(work: Callable[[], Any], text: str) -> Finding:
    """Import something of the application, which may raise anything."""
    try:
        result = work()
    except errors.AsyncdbError as error:
        return _error(error)
    except Exception as error:
        return Finding("wrong", text, (f"{type(error).__name__}: {error}",))
    return Finding("ok", f"{text}: {result if isinstance(result, str) else 'can be imported'}")


def _error(error: errors.AsyncdbError) -> Finding:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return Finding("wrong", lines[0], tuple(lines[1:]))
