"""The application's own engines, led to the test's database for the time of a test.

What SQLAlchemy keeps in public attributes of an ``Engine``, its pool, dialect and URL, is
exchanged for that of the test's engine and put back afterwards. So everybody who holds the
engine is redirected, and what else belongs to it stays: its execution options, the
listeners on it, its cache of compiled statements (whose keys hold the dialect), echo. Each
checkout of any engine passes ``Engine.raw_connection``, which is wrapped in a run that has
such tests: there engines are found that came into being during the test, those that
nobody named, and those that are used outside of a database test. No pytest here.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pytest_asyncdb import errors
from pytest_asyncdb._engines.build_engine import OURS
from pytest_asyncdb._run import messages
from pytest_asyncdb._system.import_string import Naming

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import PoolProxiedConnection

NAMING = Naming(
    "asyncdb_app_engines",
    "app.db:engine",
    "an AsyncEngine or an async_sessionmaker",
    errors.ConfigError,
)

#: Before what is meant to keep its own database.
FOREIGN = "-"


class AppEngine:
    """One entry of ``asyncdb_app_engines``.

    Args:
        given: ``module:attribute``, with ``-`` before it if the engine is foreign; or an
            AsyncEngine, an async_sessionmaker, a function that returns one.
        source: Where it was given, for errors.
    """

    def __init__(self, given: Any, source: str) -> None:
        self.foreign = isinstance(given, str) and given.startswith(FOREIGN)
        self.given = given.removeprefix(FOREIGN) if isinstance(given, str) else given
        self.word = self.given if isinstance(given, str) else type(given).__name__
        self._source = source

    @property
    def is_loaded(self) -> bool:
        """Can it be looked up without importing anything?"""
        return not isinstance(self.given, str) or self.given.partition(":")[0] in sys.modules

    def matches(self, engine: Engine) -> bool:
        """Is *engine* what this names? A foreign one may be named by its URL, too."""
        if self.foreign and "://" in self.word:
            return self.word == shown_url(engine)
        return any(engine is one for one in self.engines())

    def engines(self) -> list[Engine]:
        """The sync engines behind it, of which there are none yet where the application
        makes its engine later.

        Raises:
            ConfigError: It is something else.
        """
        from sqlalchemy.ext.asyncio import AsyncEngine

        value = self._value()
        if value is None:
            return []
        if isinstance(value, AsyncEngine):
            return [_root(value.sync_engine)]
        binds = [value.kw.get("bind"), *(value.kw.get("binds") or {}).values()]
        return [_root(bind.sync_engine) for bind in binds if isinstance(bind, AsyncEngine)]

    def session_options(self) -> dict[str, Any] | None:
        """The arguments of the sessionmaker that it names, if it names one."""
        if self.foreign:
            return None
        from sqlalchemy.ext.asyncio import AsyncEngine

        value = self._value()
        if value is None or isinstance(value, AsyncEngine):
            return None
        options = {k: v for k, v in value.kw.items() if k not in ("bind", "binds")}
        return {"class_": value.class_, **options}

    def _value(self) -> Any:
        """An AsyncEngine, an async_sessionmaker, or None where it is not made yet."""
        from sqlalchemy.engine import Engine
        from sqlalchemy.ext.asyncio import AsyncEngine, async_scoped_session, async_sessionmaker
        from sqlalchemy.orm import Session, sessionmaker

        kinds = (AsyncEngine, async_sessionmaker, async_scoped_session)
        sync = (Engine, Session, sessionmaker)
        value = self.given
        if isinstance(value, str):
            value = NAMING.load(value, self._source)
        if callable(value) and not isinstance(value, (*kinds, *sync)):
            try:
                value = value()
            except Exception as error:
                raise messages.app_engine_failed(self.word, self._source, error) from error
        if isinstance(value, async_scoped_session):
            value = value.session_factory
        if value is not None and not isinstance(value, kinds):
            if hasattr(value, "close") and hasattr(value, "cr_code"):
                value.close()  # a coroutine, of which Python would warn
            found = type(value).__name__
            raise messages.not_an_app_engine(
                self.word, self._source, found, isinstance(value, sync)
            )
        return value


def app_engines(given: Any, source: str) -> tuple[AppEngine, ...]:
    """What the fixture ``asyncdb_app_engines`` returned: one or several; words with commas."""
    if isinstance(given, str):
        words = given.replace(",", " ").split()
        return tuple(AppEngine(word, source) for word in words)
    if given is None:
        return ()
    if isinstance(given, Iterable):
        return tuple(one for part in given for one in app_engines(part, source))
    return (AppEngine(given, source),)


def session_options(entries: Sequence[AppEngine]) -> dict[str, Any] | None:
    """The arguments of the first sessionmaker among *entries*, if there is one."""
    found = (entry.session_options() for entry in entries)
    return next((options for options in found if options is not None), None)


class Stray:
    """An engine that nobody named and that connected during a database test.

    Args:
        url: Its URL without the password.
        name: ``module:attribute`` under which the application holds it, if that is known.
    """

    def __init__(self, url: str, name: str | None) -> None:
        self.url = url
        self.name = name


class Redirection:
    """The engines of one test: redirected from the beginning, or when they come up."""

    def __init__(
        self, target: AsyncEngine, entries: Sequence[AppEngine], beside: Callable[[], None]
    ) -> None:
        self._beside = beside
        self.strays: list[Stray] = []
        self._target = target.sync_engine
        self._named = [entry for entry in entries if not entry.foreign]
        self._foreign = [entry for entry in entries if entry.foreign]
        self._swaps: dict[Engine, _Swap] = {}
        self._passed: set[Engine] = set()
        self._lock = threading.RLock()
        try:
            self._redirect()
        except BaseException:
            self.undo()
            raise

    def connecting(self, engine: Engine) -> None:
        """*engine* is about to check a connection out."""
        with self._lock:
            if engine is self._target or engine in self._swaps or engine in self._passed:
                return
            self._redirect()
            if engine in self._swaps:
                return
            self._passed.add(engine)
            if self._is_same_database(engine):
                self._beside()
                return
            if any(entry.matches(engine) for entry in self._foreign):
                return
            self.strays.append(Stray(shown_url(engine), _find_name(engine)))

    def undo(self) -> None:
        """Put everything back."""
        with self._lock:
            for swap in reversed(self._swaps.values()):
                swap.undo()
            self._swaps.clear()

    def _redirect(self) -> None:
        for entry in self._named:
            for engine in entry.engines():
                if engine not in self._swaps and engine is not self._target:
                    self._swaps[engine] = _Swap(engine, self._target)

    def _is_same_database(self, engine: Engine) -> bool:
        """Was it made from ``asyncdb_url``, on purpose?"""
        one, other = engine.url, self._target.url
        return (one.host, one.port, one.database) == (other.host, other.port, other.database)


class _Swap:
    """An engine whose pool, dialect and URL are those of another one."""

    def __init__(self, engine: Engine, target: Engine) -> None:
        from sqlalchemy import event

        self._engine = engine
        self._was = engine.pool, engine.dialect, engine.url
        dialect = target.dialect
        # Told to create_engine, this is part of the dialect, and nothing public says it.
        level = getattr(engine.dialect, "_on_connect_isolation_level", None)

        def connected(connection: Connection) -> None:
            # An engine made by execution_options() shares its pool with this one and has
            # kept the dialect.
            connection.dialect = dialect
            if level == "AUTOCOMMIT":
                branch: Any = connection.connection.dbapi_connection
                dialect.set_isolation_level(branch, level)

        self._connected = connected
        event.listen(engine, "engine_connect", connected, insert=True)
        # A listener for execution_options(isolation_level=…) has kept the dialect, too.
        own: Any = engine.dialect
        own.set_isolation_level = dialect.set_isolation_level
        own.reset_isolation_level = dialect.reset_isolation_level
        engine.pool, engine.dialect, engine.url = target.pool, dialect, target.url

    def undo(self) -> None:
        from sqlalchemy import event

        self._engine.pool, self._engine.dialect, self._engine.url = self._was
        del self._was[1].set_isolation_level, self._was[1].reset_isolation_level
        event.remove(self._engine, "engine_connect", self._connected)


class Redirector:
    """Redirections of a process, one after the other, and the watch over all engines.

    Args:
        is_own: Is this code of ours that connects, rather than the application's?
    """

    def __init__(self, is_own: Callable[[], bool]) -> None:
        self._is_own = is_own
        self._active: Redirection | None = None
        self._entries: Sequence[AppEngine] = ()
        self._where = ""
        self._original: Callable[[Engine], PoolProxiedConnection] | None = None

    def begin(
        self,
        target: AsyncEngine,
        entries: Sequence[AppEngine],
        test: str,
        beside: Callable[[], None],
    ) -> Redirection:
        """Redirect *entries* to *target* until :meth:`end`.

        Args:
            beside: Called before another engine connects to the same database.

        Raises:
            ConfigError: An entry is not an engine.
        """
        self._watch()
        self._entries = entries
        self._active = Redirection(target, entries, beside)
        self._where = f"test: {test}, which has ended"
        return self._active

    def end(self) -> None:
        """Put the engines back. May be called twice."""
        active, self._active = self._active, None
        if active is not None:
            active.undo()

    def guard(self, entries: Sequence[AppEngine], test: str) -> None:
        """Refuse *entries* in a test that has no database."""
        self._watch()
        self._entries = self._entries or entries
        self._where = f"test: {test}"

    def close(self) -> None:
        """Stop watching. May be called twice."""
        self.end()
        if self._original is not None:
            from sqlalchemy.engine import Engine

            Engine.raw_connection = self._original  # type: ignore[method-assign,assignment]
            self._original = None

    def _watch(self) -> None:
        """See every checkout before it happens: no event of SQLAlchemy's says that, the
        earliest comes when there is a connection already, or does not know the engine."""
        if self._original is not None:
            return
        from sqlalchemy.engine import Engine

        original = self._original = Engine.raw_connection

        def raw_connection(engine: Engine) -> PoolProxiedConnection:
            self._connecting(engine)
            return original(engine)

        Engine.raw_connection = raw_connection  # type: ignore[method-assign,assignment]

    def _connecting(self, engine: Engine) -> None:
        if not engine.dialect.is_async or self._is_own():
            return
        if OURS in engine.get_execution_options():
            return
        root = _root(engine)
        if self._active is not None:
            self._active.connecting(root)
            return
        for entry in self._entries:
            if not entry.foreign and entry.is_loaded and entry.matches(root):
                raise messages.used_outside(entry.word, shown_url(root), self._where)


def shown_url(engine: Engine) -> str:
    """The engine's URL without its password."""
    return engine.url.render_as_string(hide_password=True)


def _root(engine: Engine) -> Engine:
    """The engine that another one was derived from by ``execution_options()``."""
    while (parent := getattr(engine, "_proxied", None)) is not None:
        engine = parent
    return engine


def _find_name(engine: Engine) -> str | None:
    """``module:attribute`` of something that leads to *engine*."""
    from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

    for kinds in ((AsyncEngine,), (async_sessionmaker,)):
        for name, value in _attributes():
            # Not isinstance(): that would ask lazy proxies for what they stand for.
            if issubclass(type(value), kinds) and AppEngine(value, "").matches(engine):
                return name
    return None


def _attributes() -> Iterator[tuple[str, Any]]:
    for module_name, module in list(sys.modules.items()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            yield f"{module_name}:{name}", value
