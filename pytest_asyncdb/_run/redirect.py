"""Connects the application's engines to the test's database during a test.

A redirected engine has the dialect and the URL of the test's engine, and a pool like its pool, with
the listeners of its own. So whoever holds the engine is redirected, and the rest of it stays:
execution options, listeners, echo, and the cache of compiled statements, whose keys contain the
dialect. Every checkout of every engine is watched, which finds engines that are created during the
test, engines that are not named, and named engines that are used outside of a database test. No
pytest here.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_asyncdb import errors
from pytest_asyncdb._engines.build_engine import OURS
from pytest_asyncdb._engines.sqlalchemy_internals import (
    connect_isolation_level,
    root_engine,
    watch_checkouts,
)
from pytest_asyncdb._run import messages
from pytest_asyncdb._system.import_string import Naming

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

NAMING = Naming(
    "asyncdb_app_engines",
    "app.db:engine",
    "an AsyncEngine or an async_sessionmaker",
    errors.ConfigError,
)

#: The prefix of an engine that keeps its own database.
FOREIGN = "-"


class AppEngine:
    """One entry of ``asyncdb_app_engines``.

    Args:
        given: ``module:attribute``, with ``-`` before it if the engine keeps its own database;
            or an AsyncEngine, an async_sessionmaker, a function that returns one of them.
        source: Where it was given, for errors.
    """

    def __init__(self, given: Any, source: str) -> None:
        self.foreign = isinstance(given, str) and given.startswith(FOREIGN)
        self.given = given.removeprefix(FOREIGN) if isinstance(given, str) else given
        self.word = self.given if isinstance(given, str) else type(given).__name__
        self._source = source

    @property
    def is_loaded(self) -> bool:
        """Is its module imported?"""
        return not isinstance(self.given, str) or self.given.partition(":")[0] in sys.modules

    def matches(self, engine: Engine) -> bool:
        """Is *engine* the engine that this names? A foreign one may be named by its URL."""
        if self.foreign and "://" in self.word:
            return self.word == shown_url(engine)
        return any(engine is one for one in self.engines())

    def engines(self) -> list[Engine]:
        """The sync engines behind it; none as long as the application has created none.

        Raises:
            ConfigError: It is something else.
        """
        from sqlalchemy.ext.asyncio import AsyncEngine

        value = self.value()
        options = getattr(value, "kw", {})  # of a sessionmaker
        found = [value, options.get("bind"), *(options.get("binds") or {}).values()]
        return [root_engine(one.sync_engine) for one in found if isinstance(one, AsyncEngine)]

    def value(self) -> Any:
        """An AsyncEngine, an async_sessionmaker, or None if it is not created yet."""
        from sqlalchemy.ext.asyncio import AsyncEngine, async_scoped_session, async_sessionmaker
        from sqlalchemy.orm import sessionmaker

        kinds = (AsyncEngine, async_sessionmaker, async_scoped_session)
        value = self.given
        if isinstance(value, str):
            value = NAMING.load(value, self._source)
        if callable(value) and not isinstance(value, (*kinds, sessionmaker)):
            try:
                value = value()
            except Exception as error:
                error.add_note(f"called for asyncdb_app_engines={self.word!r} ({self._source})")
                raise
        if isinstance(value, async_scoped_session):
            value = value.session_factory
        if value is not None and not isinstance(value, kinds):
            if inspect.iscoroutine(value):
                value.close()  # else Python warns that it was never awaited
            raise messages.not_an_app_engine(self.word, self._source, type(value).__name__)
        return value


def app_engines(given: Any, source: str) -> tuple[AppEngine, ...]:
    """The entries in a value of ``asyncdb_app_engines``: words, an object, or a list of these."""
    if isinstance(given, str):
        return tuple(AppEngine(word, source) for word in given.replace(",", " ").split())
    if given is None:
        return ()
    if isinstance(given, Iterable):
        return tuple(one for part in given for one in app_engines(part, source))
    return (AppEngine(given, source),)


def session_options(entries: Sequence[AppEngine]) -> dict[str, Any] | None:
    """The arguments of the first sessionmaker among *entries*, or None."""
    from sqlalchemy.ext.asyncio import async_sessionmaker

    for entry in entries:
        value = None if entry.foreign else entry.value()
        if isinstance(value, async_sessionmaker):
            options = {k: v for k, v in value.kw.items() if k not in ("bind", "binds")}
            return {"class_": value.class_, **options}
    return None


class Stray(NamedTuple):
    """An engine that is not named and that connected during a database test.

    Args:
        url: Its URL without the password.
        name: ``module:attribute`` of the application that leads to it, if it was found.
    """

    url: str
    name: str | None


@contextlib.contextmanager
def _redirected(engine: Engine, target: Engine) -> Iterator[None]:
    """Let *engine* have the pool, the dialect and the URL of *target*."""
    from sqlalchemy import event

    from pytest_asyncdb._engines.pool_internals import CheckoutPool, keep_listeners

    before = engine.pool, engine.dialect, engine.url
    own: Any = engine.dialect
    dialect = target.dialect
    level = connect_isolation_level(own)

    def connected(connection: Connection) -> None:
        # An engine derived by execution_options() shares the pool, and has its own dialect.
        connection.dialect = dialect
        if level == "AUTOCOMMIT":
            sandbox: Any = connection.connection.dbapi_connection
            dialect.set_isolation_level(sandbox, level)

    event.listen(engine, "engine_connect", connected, insert=True)
    # The listener for execution_options(isolation_level=…) holds the engine's own dialect.
    own.set_isolation_level = dialect.set_isolation_level
    own.reset_isolation_level = dialect.reset_isolation_level
    pool = target.pool
    if isinstance(pool, CheckoutPool):
        pool = pool.beside(engine)
    engine.pool, engine.dialect, engine.url = pool, dialect, target.url
    try:
        yield
    finally:
        if engine.pool is not target.pool:
            keep_listeners(before[0], engine.pool)
        engine.pool, engine.dialect, engine.url = before
        del own.set_isolation_level, own.reset_isolation_level
        event.remove(engine, "engine_connect", connected)


class Redirector:
    """Redirects the engines of one test after the other, and watches all engines of the process.

    Args:
        is_own: Is it the plugin that connects now, rather than the application?
    """

    def __init__(self, is_own: Callable[[], bool]) -> None:
        self._is_own = is_own
        self._entries: Sequence[AppEngine] = ()
        self._where = ""
        self._stop_watching: Callable[[], None] | None = None
        self._lock = threading.RLock()
        #: The engine of the running test; None: no test's database is open.
        self._target: Engine | None = None
        self._other_engine: Callable[[], None]
        #: Engines that are redirected already, or that are left alone.
        self._known: set[Engine] = set()
        self._strays: list[Stray] = []
        self._undo = contextlib.ExitStack()

    def begin(
        self,
        target: AsyncEngine,
        entries: Sequence[AppEngine],
        test: str,
        other_engine: Callable[[], None],
    ) -> Sequence[Stray]:
        """Redirect *entries* to *target* until :meth:`end`, also those that are created later.

        Args:
            other_engine: Called before an engine that is not redirected connects to the test's
                database.

        Returns:
            The engines that are not named and that connect until :meth:`end`; it grows.

        Raises:
            ConfigError: An entry is not an engine.
        """
        self._watch(entries, f"test: {test}, which has ended")
        with self._lock:
            self._target, self._other_engine = target.sync_engine, other_engine
            self._known, self._strays = {target.sync_engine}, []
            try:
                self._redirect(target.sync_engine)
            except BaseException:
                self.end()
                raise
            return self._strays

    def end(self) -> None:
        """Give every engine its own pool, dialect and URL again. May be called twice."""
        with self._lock:
            self._target = None
            self._undo.close()

    def guard(self, entries: Sequence[AppEngine], test: str) -> None:
        """Refuse *entries* until the test's database is open."""
        self._watch(self._entries or entries, f"test: {test}")

    def close(self) -> None:
        """Stop watching. May be called twice."""
        self.end()
        if self._stop_watching is not None:
            self._stop_watching()
            self._stop_watching = None

    def _redirect(self, target: Engine) -> None:
        for entry in self._entries:
            for engine in () if entry.foreign else entry.engines():
                if engine not in self._known:
                    self._known.add(engine)
                    self._undo.enter_context(_redirected(engine, target))

    def _watch(self, entries: Sequence[AppEngine], where: str) -> None:
        self._entries, self._where = entries, where
        if self._stop_watching is None:
            self._stop_watching = watch_checkouts(self._connecting)

    def _connecting(self, engine: Engine) -> None:
        own = OURS in engine.get_execution_options() or self._is_own()
        if own or not engine.dialect.is_async:
            return
        root = root_engine(engine)
        with self._lock:
            if self._target is not None:
                self._in_test(root, self._target)
                return
        for entry in self._entries:
            if not entry.foreign and entry.is_loaded and entry.matches(root):
                raise messages.used_outside(entry.word, shown_url(root), self._where)

    def _in_test(self, engine: Engine, target: Engine) -> None:
        """*engine* is about to check out a connection during a test."""
        if engine not in self._known:
            self._redirect(target)
        if engine in self._known:
            return
        self._known.add(engine)
        own, other = engine.url, target.url
        if (own.host, own.port, own.database) == (other.host, other.port, other.database):
            self._other_engine()
        elif not any(entry.matches(engine) for entry in self._entries if entry.foreign):
            self._strays.append(Stray(shown_url(engine), _find_name(engine)))


def shown_url(engine: Engine) -> str:
    """The engine's URL without its password."""
    return engine.url.render_as_string(hide_password=True)


def _find_name(engine: Engine) -> str | None:
    """``module:attribute`` of a loaded module that leads to *engine*."""
    from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

    for kind in (AsyncEngine, async_sessionmaker):
        for module, loaded in list(sys.modules.items()):
            for name, value in list(getattr(loaded, "__dict__", {}).items()):
                # Not isinstance(): it would evaluate lazy proxies.
                if issubclass(type(value), kind) and AppEngine(value, "").matches(engine):
                    return f"{module}:{name}"
    return None
