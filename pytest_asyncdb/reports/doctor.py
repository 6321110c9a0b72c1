"""The doctor: what is there, what is missing, what is wrong. It starts and connects nothing.

The application's modules are imported, as a run would. Each part of :data:`PARTS` gives
findings; their text and their JSON are made here too.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import platform
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pytest_asyncdb import errors
from pytest_asyncdb.abc import BackendSpec
from pytest_asyncdb.reports.conftest_rules import mistakes

if TYPE_CHECKING:
    import pytest

    from pytest_asyncdb._run.redirect import AppEngine
    from pytest_asyncdb._run.run import Run

Level = Literal["ok", "note", "wrong"]
_PLUGINS = ("pytest-asyncdb", "pytest", "SQLAlchemy", "pytest-asyncio", "anyio", "pytest-xdist")
_NOT_OURS = {"node_modules", "build", "dist", "venv", "__pycache__"}
_WIDTH = 80


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        level: ``wrong`` makes the exit code 1; a ``note`` is worth reading.
        detail: Further lines.
        remedy: What to do.
    """

    level: Level
    text: str
    detail: tuple[str, ...] = ()
    remedy: str = ""


def examine(config: pytest.Config, run: Run) -> dict[str, list[Finding]]:
    """All findings by part."""
    return {name: list(part(config, run)) for name, part in PARTS.items()}


def render(found: dict[str, list[Finding]]) -> str:
    """The findings as text of at most 80 columns, as far as its words are not longer."""
    lines: list[str] = []
    for part, findings in found.items():
        lines += ["", part] if findings else []
        for finding in findings:
            lines += _wrap(finding.text, f"  {finding.level:<5}  ")
            for detail in finding.detail:
                lines += _wrap(detail, " " * 9)
            if finding.remedy:
                lines += _wrap(f"to fix this: {finding.remedy}", " " * 9)
    number = sum(f.level == "wrong" for findings in found.values() for f in findings)
    end = (
        f"{number} thing{'s are' if number > 1 else ' is'} wrong" if number else "nothing is wrong"
    )
    return "\n".join(["asyncdb doctor", *lines, "", end])


def to_json(found: dict[str, list[Finding]]) -> str:
    """The findings as JSON; the schema is in docs/howto/doctor.md."""
    parts = {name: [dataclasses.asdict(f) for f in findings] for name, findings in found.items()}
    content = {"asyncdb_doctor": 1, "wrong": is_wrong(found), "parts": parts}
    return json.dumps(content, indent=1) + "\n"


def is_wrong(found: dict[str, list[Finding]]) -> bool:
    return any(f.level == "wrong" for findings in found.values() for f in findings)


def _wrap(text: str, before: str) -> list[str]:
    return [
        line
        for part in text.splitlines()
        for line in textwrap.wrap(
            part,
            _WIDTH,
            initial_indent=before if part is text.splitlines()[0] else " " * 9,
            subsequent_indent=" " * 9,
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _python(config: pytest.Config, run: Run) -> Iterator[Finding]:
    names = [f"{name} {found}" for name in _PLUGINS if (found := _version(name)) is not None]
    yield Finding("ok", f"Python {platform.python_version()}, {', '.join(names)}")


def _loops(config: pytest.Config, run: Run) -> Iterator[Finding]:
    anyio = config.pluginmanager.has_plugin("anyio")
    if not config.pluginmanager.has_plugin("asyncio"):
        if anyio:
            yield Finding("ok", "pytest-asyncio is not active; anyio runs what it is asked to run")
        else:
            yield Finding(
                "wrong",
                "neither pytest-asyncio nor anyio is active: no async test runs",
                remedy="leave out -p no:asyncio",
            )
        return
    mode = config.getoption("asyncio_mode") or config.getini("asyncio_mode")
    mode = str(getattr(mode, "value", mode))
    follows = {
        "auto": "every async test runs",
        "strict": "only tests marked with pytest.mark.asyncio run, or anyio's",
    }
    yield Finding("ok", f"asyncio_mode = {mode}: {follows.get(mode, 'unknown')}")
    tests = str(config.getini("asyncio_default_test_loop_scope") or "function")
    fixtures = str(config.getini("asyncio_default_fixture_loop_scope") or "")
    follow = (
        "one loop for the run, the fastest way"
        if tests == "session"
        else f"a loop for each {'test' if tests == 'function' else tests}; "
        "the plugin keeps its connections all the same"
    )
    yield Finding("ok", f"asyncio_default_test_loop_scope = {tests}: {follow}")
    if fixtures and fixtures != tests:
        yield Finding(
            "note",
            f"asyncio_default_fixture_loop_scope = {fixtures}: async fixtures run on another loop "
            "than tests; engines of your own that they open are bound to it",
            remedy="give both the same scope",
        )


def _drivers(config: pytest.Config, run: Run) -> Iterator[Finding]:
    for name in run.registry.backends:
        backend = run.registry.backend(name)
        used = [spec for spec in run.settings.specs if spec.backend == name]
        for driver in backend.drivers:
            if importlib.util.find_spec(driver.module):
                found = _version(driver.module) or "without a version"
                yield Finding("ok", f"{name}+{driver.name}: {found}")
            elif not used:
                yield Finding("note", f"{name}+{driver.name}: not installed")
        for spec in used:
            try:
                run.driver(spec)
            except errors.AsyncdbError as error:
                yield _error(error)


def _servers(config: pytest.Config, run: Run) -> Iterator[Finding]:
    chosen = {spec.backend for spec in run.settings.specs}
    others = [BackendSpec(n, written=n) for n in run.registry.backends if n not in chosen]
    for spec in (*run.settings.specs, *others):
        backend = run.backend(spec)
        tried = []
        for name in run.choice.candidates(spec):
            try:
                found = run.registry.provider(name).find(spec, backend, run.settings.url(spec))
                tried.append(f"{name}: {found.reason}")
            except errors.ProviderUnavailable as reason:
                tried.append(f"{name}: {reason}")
        try:
            provider, found = run.choice.find(spec)
        except errors.AsyncdbError as error:
            if spec.backend in chosen:
                yield _error(error)
            else:
                yield Finding("note", f"{spec}: none could be had", tuple(tried))
        else:
            known = f" {found.version}" if found.version else ""
            yield Finding(
                "ok",
                f"{spec}: {backend.label}{known} from {provider.name}",
                tuple(tried) if len(tried) > 1 else (),
            )


def _application(config: pytest.Config, run: Run) -> Iterator[Finding]:
    settings = run.settings
    if settings.metadata.value:
        yield _try(partial(_metadata, run), f"asyncdb_metadata = {settings.metadata.value}")
    elif settings.migrations.value is None:
        yield Finding(
            "note",
            "no tables are named in the ini file; a conftest may override asyncdb_metadata",
            remedy="write asyncdb_metadata = app.models:Base",
        )
    path = settings.migrations.value
    if path is not None:
        from pytest_asyncdb._databases.migrations import AlembicMigration

        migration = AlembicMigration(path, settings.migrations.source)
        yield _try(migration.check, f"asyncdb_migrations = {path.name}")
    for entry in run.named_engines:
        if not entry.foreign:
            yield _try(partial(_engines, entry), f"asyncdb_app_engines: {entry.word}")


def _engines(entry: AppEngine) -> None:
    entry.engines()


def _metadata(run: Run) -> str:
    from pytest_asyncdb._databases.plan import load_metadata

    tables = sum(len(m.tables) for m in load_metadata(run.settings.metadata))
    return f"{tables} table{'s' * (tables != 1)}"


def _portability(config: pytest.Config, run: Run) -> Iterator[Finding]:
    from pytest_asyncdb.reports import portability as portability

    for trouble in portability.of_run(run):
        text, says, instead = portability.describe(trouble)
        yield Finding("wrong" if trouble.refused else "note", text, (says,), instead)


def _conftests(config: pytest.Config, run: Run) -> Iterator[Finding]:
    for path in _files(config):
        shown = os.path.relpath(path, config.rootpath).replace(os.sep, "/")
        for mistake in mistakes(path, shown):
            rule = mistake.rule
            text = f"{mistake.place}: {rule.name}"
            yield Finding("wrong" if rule.wrong else "note", text, (rule.says,), rule.instead)


def _files(config: pytest.Config) -> list[Path]:
    """The conftests of the folders that a run would collect, and of those above them."""
    found: dict[Path, None] = {}
    for argument in config.args:
        start = Path(config.invocation_params.dir, argument.partition("::")[0]).resolve()
        above = [p for p in (start, *start.parents) if p.is_relative_to(config.rootpath)]
        found |= dict.fromkeys(p / "conftest.py" for p in reversed(above) if p.is_dir())
        for folder, below, _ in os.walk(start):
            below[:] = sorted(
                name
                for name in below
                if not name.startswith(".")
                and name not in _NOT_OURS
                and not Path(folder, name, "pyvenv.cfg").exists()
            )
            found[Path(folder, "conftest.py")] = None
    return [path for path in found if path.is_file()]


def _try(work: Callable[[], str | None], text: str) -> Finding:
    """What an application's module does on import is not ours to foresee."""
    try:
        more = work()
    except errors.AsyncdbError as error:
        return _error(error)
    except Exception as error:
        return Finding("wrong", text, (f"{type(error).__name__}: {error}",))
    return Finding("ok", f"{text}: {more}" if more else f"{text}: can be imported")


def _error(error: errors.AsyncdbError) -> Finding:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return Finding("wrong", lines[0], tuple(line.strip() for line in lines[1:]))


PARTS: dict[str, Callable[[Any, Run], Iterator[Finding]]] = {
    "python": _python,
    "loops": _loops,
    "drivers": _drivers,
    "servers": _servers,
    "application": _application,
    "portability": _portability,
    "conftest": _conftests,
}
