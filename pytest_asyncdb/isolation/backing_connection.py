"""Real connections behind a test's checkouts: opened once, kept for many tests.

They live on the plugin's own loop (``host_loop.py``), so they do not notice on which loop, or in
which thread, a test runs. Statements of the plugin go through :meth:`BackingConnection.script`;
those of the application go through the adapter's cursors (``dbapi.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_asyncdb._engines.build_engine import build_engine, without_pool
from pytest_asyncdb._engines.host_loop import CANCEL_PATIENCE
from pytest_asyncdb._engines.pool_internals import CheckoutPool, connect_listeners, entry_of
from pytest_asyncdb._engines.sqlalchemy_internals import execution_lock, raise_as_dbapi_error

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection, Dialect
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import Pool

    from pytest_asyncdb._engines.host_loop import HostLoop
    from pytest_asyncdb.abc import Database

#: pytest leaves the plugin's frames out of the tracebacks of drivers' errors.
__tracebackhide__ = True

T = TypeVar("T")

#: Seconds that a statement of the plugin, or a new connection, may take.
PATIENCE = 30.0

#: The URL of the connection that is being opened.
_OPENING: contextvars.ContextVar[URL] = contextvars.ContextVar("asyncdb_opening")


class Connector:
    """Opens connections to a database and to other copies of its template, with one engine and
    so one dialect for all of them.

    Attributes:
        url: The database of further connections, if they are not made for another one.
    """

    def __init__(self, database: Database, host: HostLoop, url: URL) -> None:
        from sqlalchemy import event
        from sqlalchemy.pool import NullPool
        from sqlalchemy.util import LRUCache

        self.database = database
        self.host = host
        self.driver = database.driver
        self.backend = database.backend
        self.url = self._first_url = url
        options = without_pool(database.engine_options)
        level = options.pop("isolation_level", None)
        level = level and level.replace("_", " ").upper()  # as SQLAlchemy reads it
        self.autocommit = level == "AUTOCOMMIT"
        self.isolation_level: str | None = None if self.autocommit else level
        self._connect_args = options.pop("connect_args", {})
        #: Listeners of the user, with the names of their events.
        self._pool_events = options.pop("pool_events", ())
        self.engine = build_engine(
            url,
            poolclass=NullPool,
            connect_args=self._connect_args,
            isolation_level=self.isolation_level,
            **options,
        )
        event.listen(self.engine.sync_engine, "do_connect", self._connect)
        self.dialect: Dialect = self.engine.dialect
        self._facade: Dialect | None = None
        self.hide_parameters: bool = self.engine.sync_engine.hide_parameters
        #: The compiled statements are shared by the engines of all tests.
        self._execution_options = {
            "compiled_cache": LRUCache(500),
            **self.engine.get_execution_options(),
        }

    def _connect(self, dialect: Dialect, record: object, args: object, kwargs: object) -> Any:
        """Connect to the URL of the connection that is being opened, without asking the server
        again what the first connection has told the dialect."""
        url = _OPENING.get(self.url)
        if url is self._first_url:
            return None  # SQLAlchemy connects
        positional, named = dialect.create_connect_args(url)
        return dialect.connect(*positional, **{**named, **self._connect_args})

    def test_engine(self, check_out: Callable[..., Any], pools: list[Pool]) -> AsyncEngine:
        """An engine for one test, whose pool gets its connections from *check_out*, see
        ``CheckoutPool``, and is added to *pools*.

        Costs no round trip, but needs one connection to have been opened: it initialises the
        dialect. SQLAlchemy's ``Engine`` is made directly, since ``create_engine`` would ask the
        server again.
        """
        from sqlalchemy.engine import Engine
        from sqlalchemy.ext.asyncio import AsyncEngine

        if self._facade is None:
            facade: Any = copy.copy(self.dialect)
            facade.set_isolation_level = lambda checkout, level: checkout.set_level(level)
            facade.reset_isolation_level = lambda checkout: checkout.set_level(None)
            facade.get_driver_connection = lambda checkout: checkout.driver_connection
            facade.set_readonly = lambda checkout, value: checkout.set_read_only(value)
            facade.get_readonly = lambda checkout: checkout.read_only
            self._facade = facade
        pool = CheckoutPool(check_out, pools, dialect=self._facade, events=self._pool_events)
        return AsyncEngine(
            Engine(
                pool,
                self._facade,
                self.url,
                echo=self.engine.echo,
                hide_parameters=self.hide_parameters,
                query_cache_size=0,
                execution_options=self._execution_options,
            )
        )

    def lead_to(self, url: URL) -> None:
        """Further connections are to another copy of the template."""
        before, self.url = self.url, url
        for dialect in (self.dialect, self._facade):
            # On MySQL and MariaDB it is the database, where reflection looks for tables.
            if dialect is not None and dialect.default_schema_name == before.database:
                dialect.default_schema_name = url.database

    def close(self) -> None:
        """May be called twice."""
        self.host.run(self.engine.dispose(), PATIENCE)


class BackingConnection:
    """A kept connection.

    Args:
        connector: Opens it.
        direct: The application has it for itself: the driver begins transactions where it can,
            and COMMIT checks deferred constraints. Else only the plugin does both.
        url: Its database; None: the connector's when it is opened.
    """

    def __init__(self, connector: Connector, direct: bool = False, url: URL | None = None) -> None:
        self.connector = connector
        self.host = connector.host
        self.driver = connector.driver
        self.backend = connector.backend
        self.begin = self.backend.begin(connector.isolation_level)
        self._direct = direct
        self._url = url
        self._fairy: Any = None
        #: The driver's connection, while there is one.
        self._raw: Any = None
        #: Pools of which this is a connection: their listeners of "connect" run on it.
        self.pools: Sequence[Pool] = ()
        #: The listeners that have run on it.
        self.ran: set[Any] = set()
        #: Checks what COMMIT would check; empty if the schema has no such constraint.
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
        return self._raw or self.adapted.driver_connection

    def connect(self) -> None:
        """Make sure that there is a connection that is not known to be broken, on which the
        listeners of :attr:`pools` have run and no others. Blocks."""
        if not self.is_open or self.was_ended() or self.to_run() is None:
            self.discard()
        self.open()

    def to_run(self) -> list[Any] | None:
        """The listeners of :attr:`pools` that have not run on it; None: others have run."""
        wanted = connect_listeners([self.connector.engine.sync_engine.pool, *self.pools])
        if not self.ran.issubset(wanted):
            return None
        return [one for one in wanted if one not in self.ran]

    @property
    def entry_info(self) -> Any:
        """What listeners have put into the ``info`` of the pool's entry; the connection is open."""
        return self._fairy.info

    @property
    def is_open(self) -> bool:
        """Is there a connection that is not known to be broken?"""
        return self._raw is not None and not self.driver.is_closed(self._raw)

    def was_ended(self) -> bool:
        """Has the server ended this idle connection, or does it have anything else to say?
        Found without a round trip."""
        return self.driver.was_ended(self.connection)

    def in_transaction(self) -> bool | None:
        """Is the connection in a transaction? None: the driver does not know."""
        return self.driver.in_transaction(self.connection)

    def script(self, statements: Sequence[str]) -> None:
        """Run statements of the plugin, in one round trip if the driver can.

        Blocks the caller, whatever it is: a cancelled task must be able to undo its work.

        Raises:
            Exception: The driver's own, as the adapter's cursors raise it, or TimeoutError.
        """
        try:
            self.host.run(self._script(statements), PATIENCE)
        except Exception as error:
            raise_as_dbapi_error(self._fairy.dbapi_connection, error)
            raise

    def read(self, work: Callable[[Connection], T]) -> T:
        """Call *work* with a connection of SQLAlchemy's that is this one, in whatever transaction
        it is. Blocks.

        Raises:
            Exception: The driver's own, or TimeoutError.
        """
        from sqlalchemy.engine import Engine

        connector = self.connector
        pool = CheckoutPool(lambda *_: _Lent(self.adapted), [], dialect=connector.dialect)

        def read() -> T:
            with Engine(pool, connector.dialect, connector.url).connect() as connection:
                return work(connection)

        return self.run(read)

    def is_lost(self, error: BaseException) -> bool:
        """Has the connection ended, as its state or SQLAlchemy's reading of *error* says?"""
        dialect: Any = self.connector.dialect
        return not self.is_open or (
            isinstance(error, dialect.loaded_dbapi.Error)
            and bool(dialect.is_disconnect(error, None, None))
        )

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call the adapter's code from a SQLAlchemy greenlet on any loop."""
        return self.host.call(function, *args, on_cancel=self.cancel)

    async def cancel(self, statement: asyncio.Future[Any]) -> None:
        """End a running statement on the server; the connection stays open."""
        await self.driver.cancel(self.connection, statement, self._run_apart)

    def end_calls(self) -> None:
        """End what still runs on the server: it would hold its locks, and a SQLite
        connection cannot be closed while a statement runs. Discard the connection afterwards."""
        with contextlib.suppress(Exception):
            self.host.run(self._end_calls(), PATIENCE)

    def discard(self) -> None:
        """Close the connection, whatever its state; the next use opens a new one. Blocks."""
        fairy, self._fairy, self._raw = self._fairy, None, None
        if fairy is not None:
            with contextlib.suppress(TimeoutError):  # the server does not answer; it is let go
                self.run(fairy.invalidate)

    def open(self, wait: bool = True) -> None:
        """Connect, if it is not connected, and run the listeners that have not run.

        Args:
            wait: Hold the caller's loop meanwhile; else the caller is in a greenlet of
                SQLAlchemy, and awaits it.

        Raises:
            Exception: The driver's own.
        """
        if self.is_open and not self.to_run():
            return
        if wait:
            self.run(self.open_awaiting)
        else:
            self.host.call(self.open_awaiting)

    def run(self, function: Callable[[], T], patience: float = PATIENCE) -> T:
        """Run code of the adapter. Blocks.

        Raises:
            Exception: The driver's own, or TimeoutError.
        """
        from sqlalchemy.util import greenlet_spawn

        result: T = self.host.run(greenlet_spawn(function), patience)
        return result

    def open_awaiting(self) -> None:
        """As :meth:`open`, in a greenlet of SQLAlchemy."""
        if self.is_open:
            self._run_listeners(self._fairy)
            return
        from sqlalchemy.util import await_only

        token = _OPENING.set(self._url or self.connector.url)
        try:
            fairy = self.connector.engine.sync_engine.raw_connection()
        finally:
            _OPENING.reset(token)
        adapted: Any = fairy.dbapi_connection
        # SQLAlchemy has run these.
        self.ran = set(connect_listeners([self.connector.engine.sync_engine.pool]))
        self._run_listeners(fairy)
        if limit := self.backend.limit_lock_waits():
            await_only(self.driver.run(fairy.driver_connection, limit))
        if self._direct and self.connector.autocommit:
            self.connector.dialect.set_isolation_level(adapted, "AUTOCOMMIT")
        if not self._direct and self.backend.deferred_query is not None:
            cursor = adapted.cursor()
            cursor.execute(self.backend.deferred_query)
            exist = cursor.fetchone()[0]
            cursor.close()
            self.deferred_check = self.backend.deferred_check if exist else ()
            if exist and self.backend.deferred_prepare:
                await_only(self.driver.run(fairy.driver_connection, self.backend.deferred_prepare))
        self._fairy, self._raw = fairy, fairy.driver_connection

    def _run_listeners(self, fairy: Any) -> None:
        """Run what has not run, and commit, so that no rollback of a test undoes a ``SET``."""
        adapted = fairy.dbapi_connection
        try:
            for listener in self.to_run() or ():
                listener(adapted, entry_of(fairy))
                self.ran.add(listener)
            if self.ran:
                adapted.commit()
        except BaseException:
            self._fairy = self._raw = None
            fairy.invalidate()
            raise
        if not self._direct or self.backend.begin_at_write is not None:
            self.driver.adapt(adapted)

    async def _script(self, statements: Sequence[str]) -> None:
        async with execution_lock(self._fairy.dbapi_connection):
            await self.driver.run(self.connection, statements)

    async def _end_calls(self) -> None:
        await self.host.end_parked()
        # A SQLite connection with an open cursor outlives its close(), and so does its lock.
        await asyncio.wait_for(self._script(["ROLLBACK"]), CANCEL_PATIENCE)

    async def _run_apart(self, statement: str) -> None:
        async with self.connector.engine.connect() as connection:
            await connection.exec_driver_sql(statement)


class _Lent:
    """An adapter that SQLAlchemy neither ends nor closes."""

    def __init__(self, adapted: Any) -> None:
        self._adapted = adapted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapted, name)

    def _stay(self) -> None:
        pass

    commit = rollback = close = terminate = _stay
