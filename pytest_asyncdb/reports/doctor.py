"""The doctor: which parts a run would use, what is missing, what is wrong.

It starts no server and connects to none. Like a run, it imports the application's modules.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from pytest_asyncdb import errors
from pytest_asyncdb._record.text import counted, wrap
from pytest_asyncdb._run.run import Run
from pytest_asyncdb.reports import portability
from pytest_asyncdb.reports.header import backend_line, version_of
from pytest_asyncdb.values import BackendSpec

_PACKAGES = ("pytest-asyncdb", "pytest", "SQLAlchemy", "pytest-asyncio", "anyio", "pytest-xdist")


class Finding(NamedTuple):
    """One result of the examination.

    Args:
        level: ``ok``, ``note``, or ``wrong``, which makes the exit code 1.
        text: One or more lines.
    """

    level: str
    text: str


def examine(config: pytest.Config, run: Run) -> dict[str, list[Finding]]:
    """Return all findings by part."""
    names = [f"{name} {found}" for name in _PACKAGES if (found := version_of(name)) is not None]
    return {
        "python": [Finding("ok", f"Python {platform.python_version()}, {', '.join(names)}")],
        "loops": [*_loops(config)],
        "servers": [*_servers(run)],
        "application": [*_application(run)],
    }


def render(found: dict[str, list[Finding]]) -> str:
    """Return the findings as text of 80 columns."""
    lines = ["asyncdb doctor"]
    for part, findings in found.items():
        lines += ["", part]
        for level, text in findings:
            first, *more = filter(None, map(str.strip, text.splitlines()))
            lines += wrap(first, f"  {level:<5}  ")
            for line in more:
                lines += wrap(line, " " * 9)
    number = wrong(found)
    verb = "is" if number == 1 else "are"
    end = f"{counted(number, 'thing')} {verb} wrong" if number else "nothing is wrong"
    return "\n".join([*lines, "", end])


def wrong(found: dict[str, list[Finding]]) -> int:
    """Return the number of findings that make the exit code 1."""
    return sum(f.level == "wrong" for findings in found.values() for f in findings)


def _loops(config: pytest.Config) -> Iterator[Finding]:
    plugins = config.pluginmanager
    if not plugins.has_plugin("asyncio"):
        if plugins.has_plugin("anyio"):
            yield Finding("ok", "pytest-asyncio is not active; anyio runs the tests marked for it")
        else:
            yield Finding("wrong", "neither pytest-asyncio nor anyio is active: no async test runs")
        return
    mode = config.getoption("asyncio_mode") or config.getini("asyncio_mode")
    mode = str(getattr(mode, "value", mode))
    which = "every async test runs" if mode == "auto" else "only marked tests run"
    yield Finding("ok", f"asyncio_mode = {mode}: {which}")
    tests = str(config.getini("asyncio_default_test_loop_scope") or "function")
    fixtures = str(config.getini("asyncio_default_fixture_loop_scope") or "")
    text = f"one event loop for each {tests}; for async fixtures, one for each {fixtures}"
    if fixtures in ("", "fixture-scope"):
        text = f"one event loop for each {tests}; for an async fixture, the loop of its own scope"
    if not fixtures:
        text += (
            "\nlater versions of pytest-asyncio take the loop of the function"
            "\nto fix this: asyncio_default_fixture_loop_scope = function in the ini file"
        )
    elif fixtures != tests:
        text += (
            "\nengines of your own that such a fixture opens are bound to its loop"
            "\nto fix this: set asyncio_default_fixture_loop_scope and "
            "asyncio_default_test_loop_scope to the same scope"
        )
    yield Finding("ok" if fixtures == tests else "note", text)


def _servers(run: Run) -> Iterator[Finding]:
    """Yield driver and server of each backend. Backends that the run does not use are notes."""
    used = run.settings.all_specs
    names = set(run.registry.backends) - {spec.backend for spec in used}
    for spec in (*used, *(BackendSpec(n, None, None, n, "not in this run") for n in sorted(names))):
        try:
            yield Finding("ok", backend_line(run, spec))
        except errors.AsyncdbError as error:
            yield Finding("wrong" if spec in used else "note", str(error))


def _application(run: Run) -> Iterator[Finding]:
    from pytest_asyncdb._databases.migrations import AlembicMigration
    from pytest_asyncdb._databases.plan import as_metadata, load_metadata

    settings = run.settings
    paths, named = settings.migrations.value.values(), settings.metadata.value
    if named:
        yield from _try(f"asyncdb_metadata = {named}", load_metadata, settings.metadata)
    elif not paths:
        text = "the ini file names no tables; a conftest may override asyncdb_metadata"
        yield Finding("note", f"{text}\nto add them: asyncdb_metadata = app.models:Base")
    for path in paths:
        migration = AlembicMigration(path, settings.migrations.source)
        yield from _try(f"asyncdb_migrations = {path.name}", migration.check)
    for entry in run.named_engines:
        if not entry.foreign:
            yield from _try(f"asyncdb_app_engines: {entry.word}", entry.engines)
    if named:
        dialects = {spec.backend: run.backend(spec).dialect for spec in settings.specs}
        try:
            found = portability.problems(as_metadata(named, settings.metadata.source), dialects)
        except Exception:
            return  # the error is among the findings above
        for problem in found:
            yield Finding("wrong", "\n".join(problem))


def _try(text: str, work: Callable[..., Any], *arguments: Any) -> Iterator[Finding]:
    """Import something of the application, which may raise anything."""
    try:
        work(*arguments)
    except errors.AsyncdbError as error:
        yield Finding("wrong", str(error))
    except Exception as error:
        yield Finding("wrong", f"{text}\n{type(error).__name__}: {error}")
    else:
        yield Finding("ok", f"{text}: can be imported")
