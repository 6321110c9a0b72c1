"""The one real connection behind a sandbox: opened once, kept for many tests.

It lives on our own loop (``host_loop.py``), so it does not notice on which loop, or in which
thread, a test runs. What is sent over it by ourselves goes through
:meth:`BackingConnection.script`;
what the application sends, through the adapter's cursors.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import os
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_asyncdb._engines.build_engine import POOL_OPTIONS, build_engine
from pytest_asyncdb._engines.host_loop import CANCEL_PATIENCE

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection, Dialect

    from pytest_asyncdb._engines.host_loop import HostLoop
    from pytest_asyncdb.abc import Database

#: pytest leaves our frames out of the tracebacks of drivers' errors.
__tracebackhide__ = True

T = TypeVar("T")

#: Seconds that a statement of ours, or a new connection, may take.
PATIENCE = 30.0

#: Where a connection that is being opened leads.
_LEADS_TO: contextvars.ContextVar[URL] = contextvars.ContextVar("asyncdb_leads_to")


class Connector:
    """Opens connections to a database and to other copies of its template: one engine, and
    so one dialect, for all of them.

    Attributes:
        url: The database that connections lead to, if they are not made for another one.
    """

    def __init__(self, database: Database, host: HostLoop, url: URL) -> None:
        from sqlalchemy import event
        from sqlalchemy.pool import NullPool
        from sqlalchemy.util import LRUCache

        self.host = host
        self.driver = database.driver
        self.backend = database.backend
        self.idle_limit = database.idle_limit
        self.url = url
        options = {k: v for k, v in database.engine_options.items() if k not in POOL_OPTIONS}
        level = options.pop("isolation_level", None)
        self.autocommit = level == "AUTOCOMMIT"
        if level is not None and not self.autocommit:
            options["isolation_level"] = level
        self.isolation_level: str | None = None if self.autocommit else level
        self._connect_args = {**self.driver.connect_args(), **options.pop("connect_args", {})}
        self.engine = build_engine(
            self.url, poolclass=NullPool, connect_args=self._connect_args, **options
        )
        event.listen(self.engine.sync_engine, "do_connect", self._connect)
        self._made_for = url
        #: Compiled statements, shared by the engines of all tests.
        self.compiled_cache: Any = LRUCache(500)
        self.dialect: Dialect = self.engine.dialect
        self.hide_parameters: bool = self.engine.sync_engine.hide_parameters
        self.echo: Any = options.get("echo")
        self.execution_options = dict(self.engine.get_execution_options())

    def _connect(self, dialect: Dialect, record: object, args: object, kwargs: object) -> Any:
        """Connect to where the connection shall lead, without asking the server again what the
        first connection has told the dialect."""
        url = _LEADS_TO.get(self.url)
        if url is self._made_for:
            return None  # as SQLAlchemy would
        positional, named = dialect.create_connect_args(url)
        return dialect.connect(*positional, **{**named, **self._connect_args})

    def facade_dialect(self, set_isolation_level: Any, reset_isolation_level: Any) -> Dialect:
        """The engine's dialect with other answers to isolation levels. It has to be
        initialised, which the first connection does."""
        dialect = copy.copy(self.dialect)
        dialect.set_isolation_level = set_isolation_level  # type: ignore[method-assign]
        dialect.reset_isolation_level = reset_isolation_level  # type: ignore[method-assign]
        return dialect

    def close(self) -> None:
        """May be called twice."""
        self.host.run(self.engine.dispose(), PATIENCE)


class BackingConnection:
    """A kept connection.

    Args:
        connector: Opens it.
        real: It is the application's own: the driver begins transactions where it can, and
            COMMIT checks what is deferred. Else only our own statements do.
        url: Where it leads; None: where the connector does when it is opened.
    """

    def __init__(self, connector: Connector, real: bool = False, url: URL | None = None) -> None:
        self.connector = connector
        self.host = connector.host
        self.driver = connector.driver
        self.backend = connector.backend
        self.begin = self.backend.begin(connector.isolation_level)
        self._real = real
        self._url = url
        self._fairy: Any = None
        #: Checks what COMMIT would check; empty where the schema has no such constraint.
        self.deferred_check: tuple[str, ...] = ()

    @property
    def adapted(self) -> Any:
        """SQLAlchemy's adapter of the driver's connection; opened at first use.

        It may be broken: a new one in the middle of a test would be outside of its transaction.
        """
        if self._fairy is None:
            self.connect()
        return self._fairy.dbapi_connection

    @property
    def connection(self) -> Any:
        """The driver's own connection."""
        return self.adapted._connection

    def connect(self) -> None:
        """See to it that there is a connection that is not known to be broken."""
        if not self.is_open or self.was_ended():
            self.discard()
            self.open()

    @property
    def is_open(self) -> bool:
        """Is there a connection that is not known to be broken?"""
        return self._fairy is not None and not self.driver.is_closed(self._fairy.driver_connection)

    @property
    def number(self) -> int | None:
        """The server's number of this session; None: it is not open, or has none."""
        return self.driver.session(self._fairy.driver_connection) if self.is_open else None

    def was_ended(self) -> bool:
        """Has the server ended this connection, which is idle, or does it have anything else to
        say? Found without a round trip."""
        return self.driver.was_ended(self._fairy.driver_connection)

    def rollback(self, patience: float) -> None:
        """Undo the transaction that the adapter has begun. Blocks.

        Raises:
            Exception: The driver's own, or TimeoutError.
        """
        from sqlalchemy.util import greenlet_spawn

        # As text it would leave the adapter in the belief that it goes on.
        self.host.run(greenlet_spawn(self.adapted.rollback), patience)

    def commit(self, patience: float) -> None:
        """Commit the transaction that the adapter has begun. Blocks.

        Raises:
            Exception: The driver's own, or TimeoutError.
        """
        from sqlalchemy.util import greenlet_spawn

        self.host.run(greenlet_spawn(self.adapted.commit), patience)

    def script(self, statements: Sequence[str]) -> None:
        """Run statements of ours, in one round trip where the driver can.

        Blocks the caller, whatever it is: a cancelled task must be able to undo its work.

        Raises:
            Exception: The driver's own, as the adapter's cursors raise it, or TimeoutError.
        """
        try:
            self.host.run(self._script(statements), PATIENCE)
        except Exception as error:
            handle = getattr(self._fairy.dbapi_connection, "_handle_exception", None)
            if handle is not None:
                handle(error)
            raise

    def read(self, work: Callable[[Connection], T]) -> T:
        """Call *work* with a connection of SQLAlchemy's that is this one, in whatever transaction
        it is. Blocks.

        Raises:
            Exception: The driver's own, or TimeoutError.
        """
        from sqlalchemy.util import greenlet_spawn

        found: T = self.host.run(greenlet_spawn(self._read, work), PATIENCE)
        return found

    def is_disconnect(self, error: BaseException) -> bool:
        """Does SQLAlchemy take *error* for the end of the connection?"""
        dialect: Any = self.connector.dialect
        if not isinstance(error, dialect.loaded_dbapi.Error):
            return False
        return bool(dialect.is_disconnect(error, None, None))

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call the adapter's code from a SQLAlchemy greenlet on any loop."""
        return self.host.call(function, *args, on_cancel=self.cancel)

    async def cancel(self, statement: asyncio.Future[Any]) -> None:
        """End a running statement on the server; the connection stays."""
        await self.driver.cancel(self.adapted._connection, statement, self._on_the_side)

    def abort(self) -> None:
        """Shut the socket down, which fails whatever waits for the server. From any thread."""
        with contextlib.suppress(Exception):  # it is closed, or is no socket
            found = self.driver.socket(self._fairy.driver_connection)
            number = os.dup(found if isinstance(found, int) else found.fileno())
            with socket.socket(fileno=number) as own:
                own.shutdown(socket.SHUT_RDWR)

    def end_calls(self) -> None:
        """End what still runs on the server: it would hold its locks, and a SQLite
        connection cannot be closed under a statement. The connection is of no use then."""
        with contextlib.suppress(Exception):  # thrown away in any case
            self.host.run(self._end_calls(), PATIENCE)

    def in_transaction(self) -> bool | None:
        """Does the driver know the connection to be in a transaction?"""
        return self.driver.in_transaction(self._fairy.driver_connection)

    def discard(self, aside: bool = False) -> None:
        """Throw the connection away, whatever its state; the next use opens a new one.

        Args:
            aside: In a thread that nobody waits for.
        """
        fairy, self._fairy = self._fairy, None
        if fairy is not None:
            with contextlib.suppress(TimeoutError):  # the server does not answer; it is let go of
                if aside:
                    self.host.call_aside(_terminate, fairy, timeout=PATIENCE)
                else:
                    from sqlalchemy.util import greenlet_spawn

                    self.host.run(greenlet_spawn(_terminate, fairy), PATIENCE)

    def open(self, wait: bool = True) -> None:
        """Connect.

        Args:
            wait: Hold up the caller's loop meanwhile; else the caller is in a greenlet of
                SQLAlchemy, and awaits it.

        Raises:
            Exception: The driver's own.
        """
        if wait:
            from sqlalchemy.util import greenlet_spawn

            self.host.run(greenlet_spawn(self._open), PATIENCE)
        else:
            # Not in a greenlet of its own on our loop: that one would have to be turned by
            # the same greenlet to its end.
            self.host.call(self._open)

    def open_aside(self) -> bool:
        """Connect in a thread that nobody waits for; False: it is not open."""
        # What is wrong is told to whoever needs a connection.
        with contextlib.suppress(Exception):
            self.host.call_aside(self._open, timeout=PATIENCE)
        return self._fairy is not None

    def _open(self) -> None:
        from sqlalchemy.util import await_only

        token = _LEADS_TO.set(self._url or self.connector.url)
        try:
            fairy = self.connector.engine.sync_engine.raw_connection()
        finally:
            _LEADS_TO.reset(token)
        adapted: Any = fairy.dbapi_connection
        if not self._real or self.backend.begin_at_write is not None:
            self.driver.adapt(adapted)
        if limit := self.backend.limit_lock_waits():
            await_only(self.driver.run(adapted._connection, limit))
        if not self._real and self.backend.deferred_query is not None:
            exist = _one_value(adapted, self.backend.deferred_query)
            self.deferred_check = self.backend.deferred_check if exist else ()
            if exist and self.backend.deferred_prepare:
                work = self.driver.run(adapted._connection, self.backend.deferred_prepare)
                await_only(work)
        self._fairy = fairy

    def _read(self, work: Callable[[Connection], T]) -> T:
        from sqlalchemy.engine import Engine
        from sqlalchemy.pool import NullPool

        connector = self.connector
        pool: Any = NullPool(lambda: _Lent(self.adapted), dialect=connector.dialect)
        with Engine(pool, connector.dialect, connector.url).connect() as connection:
            return work(connection)

    async def _script(self, statements: Sequence[str]) -> None:
        adapted = self._fairy.dbapi_connection
        # SQLAlchemy's lock: one statement at a time. SQLAlchemy 2.0 has none for aiosqlite and
        # psycopg, which see to it themselves.
        async with getattr(adapted, "_execute_mutex", None) or contextlib.nullcontext():
            await self.driver.run(adapted._connection, statements)

    async def _end_calls(self) -> None:
        await self.host.end_parked()
        # A SQLite connection with an open cursor outlives its close(), and so does its lock.
        await asyncio.wait_for(self._script(["ROLLBACK"]), CANCEL_PATIENCE)

    async def _on_the_side(self, statement: str) -> None:
        async with self.connector.engine.connect() as connection:
            await connection.exec_driver_sql(statement)


class _Lent:
    """An adapter that stays as it is when SQLAlchemy has done with it."""

    def __init__(self, adapted: Any) -> None:
        self._adapted = adapted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapted, name)

    def _stay(self) -> None:
        pass

    commit = rollback = close = terminate = _stay


def _one_value(adapted: Any, query: str) -> Any:
    cursor = adapted.cursor()
    cursor.execute(query)
    value = cursor.fetchone()[0]
    cursor.close()
    return value


def _terminate(fairy: Any) -> None:
    fairy.invalidate()
    fairy.close()
