"""The entries of ``asyncdb_app_engines``, and the engines of the application that they name."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_asyncdb import errors
from pytest_asyncdb._engines.sqlalchemy_internals import json_arguments, root_engine
from pytest_asyncdb._run import messages
from pytest_asyncdb._system.import_string import Naming, split_name

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from pytest_asyncdb.values import Sourced

NAMING = Naming(
    "asyncdb_app_engines", "app.db:engine", "an engine or a sessionmaker", errors.ConfigError
)

#: The prefix of an engine that keeps its own database.
FOREIGN = "-"


class AppEngine:
    """One entry of ``asyncdb_app_engines``.

    Args:
        given: ``module:attribute``, such as ``app.db:get_db().engine``, with ``-`` before it if the
            engine keeps its own database; or an engine, a sessionmaker, or a function that returns
            one of them.
        source: Where it was given, for errors.
        database: The name of the database to which it is redirected; None: the first one.
    """

    def __init__(self, given: Any, source: str, database: str | None = None) -> None:
        self.database = database
        self.foreign = isinstance(given, str) and given.startswith(FOREIGN)
        self.given = given.removeprefix(FOREIGN) if isinstance(given, str) else given
        self.word = self.given if isinstance(given, str) else type(given).__name__
        self.source = source

    def matches(self, engine: Engine) -> bool:
        """Return whether this entry names *engine*. A foreign engine may be named by its URL.

        An entry that is wrong, or whose module is being imported, names no engine.
        """
        if self.foreign and "://" in self.word:
            return self.word == shown_url(engine)
        with contextlib.suppress(Exception):  # the next database test raises it
            loaded = not isinstance(self.given, str) or self.word.partition(":")[0] in sys.modules
            return loaded and any(engine is one for one in self.engines())
        return False

    def engines(self) -> list[Engine]:
        """Return the sync engines behind this entry; none if the application has not created one
        yet.

        Raises:
            ConfigError: The entry names something else.
        """
        from sqlalchemy.engine import Engine

        value = self.value()
        options = getattr(value, "kw", {})  # of a sessionmaker
        found = [value, options.get("bind"), *(options.get("binds") or {}).values()]
        found = [getattr(one, "sync_engine", one) for one in found]
        return [root_engine(one) for one in found if isinstance(one, Engine)]

    def value(self) -> Any:
        """Return an engine or a sessionmaker; None if the application has not created it yet."""
        kinds, value = _kinds(), self.given
        if isinstance(value, str):
            value = NAMING.load(value, self.source)
        found = value
        if callable(value) and not isinstance(value, kinds):
            value = NAMING.call(value, self.word, self.source)
        if value is None or isinstance(value, kinds):
            return getattr(value, "session_factory", value)  # of a scoped session
        if inspect.iscoroutine(value):
            value.close()  # else Python warns that it was never awaited
        inside = [k for k, v in getattr(value, "__dict__", {}).items() if isinstance(v, kinds)]
        call = "" if value is found else "()"
        paths = [f"{self.word}{call}.{name}" for name in inside]
        raise messages.not_an_app_engine(self.word, self.source, type(value).__name__, paths)


def app_engines(given: Any, source: str) -> tuple[AppEngine, ...]:
    """Return the entries in a value of ``asyncdb_app_engines``.

    The value is a text of words, an object, a list of these, or a mapping from names of databases
    to these.
    """
    if given is None or given == "":
        return ()
    if isinstance(given, str):
        words = [split_name(word) for word in given.replace(",", " ").split()]
        return tuple(AppEngine(word, source, name) for name, word in words)
    if isinstance(given, Mapping) and given:
        return tuple(
            AppEngine(one.given, source, str(name))
            for name, part in given.items()
            for one in app_engines(part, source)
        )
    if isinstance(given, Collection) and not isinstance(given, Mapping):
        return tuple(one for part in given for one in app_engines(part, source))
    return (AppEngine(given, source),)


def of_fixture(given: Any, written: Sourced[str]) -> tuple[AppEngine, ...]:
    """Return the entries in the value of the fixture. By default that is the ini file's value."""
    is_written = given == written.value
    return app_engines(given, written.source if is_written else "the fixture asyncdb_app_engines")


def session_options(entries: Sequence[AppEngine]) -> dict[str, Any] | None:
    """Return the arguments of the first sessionmaker among *entries*, or None."""
    from sqlalchemy.ext.asyncio import async_sessionmaker

    for entry in entries:
        value = None if entry.foreign else entry.value()
        if isinstance(value, async_sessionmaker):
            options = {k: v for k, v in value.kw.items() if k not in ("bind", "binds")}
            return {"class_": value.class_, **options}
    return None


def engine_options(entries: Sequence[AppEngine]) -> dict[str, Any]:
    """Return the arguments for JSON of the first engine among *entries*, if it exists."""
    engines = (one for entry in entries if not entry.foreign for one in entry.engines())
    return next((json_arguments(engine.dialect) for engine in engines), {})


def sqlmodel_session(written: Sourced[str]) -> dict[str, Any]:
    """Return the options that make a session SQLModel's own, which has ``exec()``.

    They are empty unless the ini file names SQLModel's metadata.
    """
    from pytest_asyncdb._databases.plan import as_metadata

    model: Any = getattr(sys.modules.get("sqlmodel"), "SQLModel", None)
    if model is None or not written.value:
        return {}
    if all(model.metadata is not one for one in as_metadata(written.value, written.source)):
        return {}
    from sqlmodel.ext.asyncio.session import AsyncSession

    return {"class_": AsyncSession}


def shown_url(engine: Engine) -> str:
    """Return the engine's URL without its password."""
    return engine.url.render_as_string(hide_password=True)


def _kinds() -> tuple[type, ...]:
    """Return the classes of objects that an entry can name. The first ones are preferred."""
    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine, async_scoped_session, async_sessionmaker
    from sqlalchemy.orm import scoped_session, sessionmaker

    of_async = (async_sessionmaker, AsyncEngine, async_scoped_session)
    return (*of_async, Engine, sessionmaker, scoped_session)


def name_of(engine: Engine) -> str | None:
    """Return ``module:attribute`` of a loaded module that leads to *engine*, or None.

    Sessionmakers come first, because the sessions of tests then have their options. An object with
    several engines is left out, because each engine may have another database.
    """
    for kind in _kinds():
        for module, loaded in list(sys.modules.items()):
            for name, value in list(getattr(loaded, "__dict__", {}).items()):
                # Not isinstance(): it would evaluate lazy proxies.
                if issubclass(type(value), kind) and AppEngine(value, "").engines() == [engine]:
                    return f"{module}:{name}"
    return None
