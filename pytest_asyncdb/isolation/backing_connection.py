"""The real connections behind a test's checkouts: opened once, kept for many tests.

They live on the plugin's own loop (``host_loop.py``), so a test may run on any loop and in any
thread. Statements of the plugin run through :meth:`BackingConnection.script`. Statements of the
application run through the adapter's cursors (``dbapi.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.pool import Pool
from sqlalchemy.util import await_only, greenlet_spawn

from pytest_asyncdb._engines import sqlalchemy_internals
from pytest_asyncdb._engines.host_loop import CANCEL_PATIENCE
from pytest_asyncdb._engines.pool_internals import CheckoutPool, connect_listeners, entry_of
from pytest_asyncdb.isolation.connector import OPENING, PATIENCE, Connector

T = TypeVar("T")


class BackingConnection:
    """A real connection that is kept from test to test.

    Args:
        connector: Opens the connection.
        direct: True if the application has the connection for itself (``reset``, ``copy``): the
            driver begins transactions if it can, and COMMIT checks deferred constraints. If False
            (``rollback``), only the plugin begins transactions and checks constraints.
        url: The database; None: the connector's URL at the time of opening.
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
        self._database = ""
        #: The driver's connection; None while there is none.
        self._raw: Any = None
        #: One entry for each call that runs. The lock is held to add an entry, so that no call
        #: begins while :meth:`in_transaction` asks the driver.
        self._calls: list[None] = []
        self._calls_lock = threading.RLock()
        #: The pools to which this connection belongs. Their "connect" listeners run on it.
        self.pools: Sequence[Pool] = ()
        #: The listeners that have run on it.
        self.ran: set[Any] = set()
        #: True if the application got the driver's own connection and may have changed it.
        self.touched = False
        #: The ``info`` of its pool entry, with the values that listeners and one test have stored.
        self.info: dict[Any, Any] = {}
        #: Statements that check deferred constraints as COMMIT does; empty if the schema has none.
        self.deferred_check: tuple[str, ...] = ()

    @property
    def adapted(self) -> Any:
        """SQLAlchemy's adapter of the driver's connection. Connects at first use.

        The connection may be broken. The plugin does not replace it in the middle of a test,
        because a new connection would be outside of the test's transaction.
        """
        if self._fairy is None:
            self.connect()
        return self._fairy.dbapi_connection

    @property
    def connection(self) -> Any:
        """The driver's own connection."""
        return self.adapted.driver_connection if self._raw is None else self._raw

    def connect(self) -> None:
        """Open a new connection if there is none, if it is broken, or if other listeners have run
        on it.

        Afterwards the listeners of :attr:`pools` have run, and no others. Blocks.
        """
        if not self.is_open or self.was_ended() or self.to_run() is None:
            self.discard()
        self.open()

    def to_run(self) -> list[Any] | None:
        """Return the listeners of :attr:`pools` that have not run on this connection.

        None: listeners of other pools have run on it.
        """
        wanted = connect_listeners([self.connector.engine.sync_engine.pool, *self.pools])
        if not self.ran.issubset(wanted):
            return None
        return [one for one in wanted if one not in self.ran]

    @property
    def is_open(self) -> bool:
        """Return whether there is a connection that is not known to be broken."""
        return self._raw is not None and not self.driver.is_closed(self._raw)

    def was_ended(self) -> bool:
        """Return whether the server has ended this idle connection, or has sent something else.

        Costs no round trip.
        """
        return self.driver.was_ended(self.connection)

    def in_transaction(self) -> bool | None:
        """Return whether the connection is in a transaction. None: unknown, or a call is running.

        SQLite would answer only after the statement that runs in the driver's thread. If that
        statement calls Python code it would never answer, because the question holds the GIL.
        """
        with self._calls_lock:
            known = self._raw is not None and not self._calls
            return self.driver.in_transaction(self._raw) if known else None

    def script(self, statements: Sequence[str]) -> None:
        """Run statements of the plugin, in one round trip if the driver can.

        Blocks the caller, even in a coroutine: a cancelled task must be able to undo its work.

        Raises:
            Exception: The driver's error, as the adapter's cursors raise it; or TimeoutError.
        """
        with self._calls_lock:
            self._calls.append(None)
        try:
            if statements:
                self.host.run(self._script(statements), PATIENCE)
        except Exception as error:
            sqlalchemy_internals.raise_as_dbapi_error(self._fairy.dbapi_connection, error)
            raise
        finally:
            self._calls.pop()

    def read(self, work: Callable[[Connection], T]) -> T:
        """Call *work* with a ``Connection`` of SQLAlchemy that uses this connection. Blocks.

        It runs in the transaction that is open, if there is one.

        Raises:
            Exception: The driver's own, or TimeoutError.
        """
        connector = self.connector
        pool = CheckoutPool(lambda *_: _Lent(self.adapted), [], dialect=connector.dialect)

        def read() -> T:
            with Engine(pool, connector.dialect, connector.url).connect() as connection:
                return work(connection)

        return self.run(read)

    def end_session(self, first: Sequence[str]) -> bool:
        """Roll back and clean the session; if it cannot be cleaned, discard the connection. Blocks.

        Args:
            first: Statements that must succeed in the transaction before the rollback.

        Returns:
            True if the rollback undid everything.

        Raises:
            Exception: The driver's own, or TimeoutError, if it is not certain that the rollback
                happened.
        """
        clean: bool | None = False
        try:
            clean = self.host.run(self.clean(first), PATIENCE)
        except Exception as error:
            if self.is_lost(error) or self.in_transaction() is not False:
                raise
        if not clean:
            self.discard()
        return clean is not None

    async def clean(self, first: Sequence[str] = ()) -> bool | None:
        """Roll back and clean the session for the next test.

        Returns:
            False if the session cannot be cleaned; None if the rollback did not undo all rows.

        Raises:
            Exception: The driver's own.
        """
        commits = self.backend.after_commits if self._direct else ()
        settings = [*(self.connector.settings or ()), *commits]
        then = [*settings, *self.backend.after_rollback]
        then = [one.replace("{database}", self._database) for one in then]
        clean = await self.driver.reset_session(self.connection, first, then)
        sqlalchemy_internals.forget_transaction(self.adapted)
        self.info = dict(self._fairy.info)
        if settings:
            self.ran.clear()  # this also undid what listeners had set
        return clean and not self.touched

    def is_lost(self, error: BaseException) -> bool:
        """Return whether the connection has ended: it is closed, or SQLAlchemy says so from
        *error*."""
        dialect: Any = self.connector.dialect
        return not self.is_open or (
            isinstance(error, dialect.loaded_dbapi.Error)
            and bool(dialect.is_disconnect(error, None, None))
        )

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call the adapter's code from a SQLAlchemy greenlet on any loop."""
        with self._calls_lock:
            self._calls.append(None)
        try:
            return self.host.call(function, *args, on_cancel=self.cancel)
        finally:
            self._calls.pop()

    async def cancel(self, statement: asyncio.Future[Any]) -> None:
        """Cancel a running statement on the server; the connection stays open."""
        await self.driver.cancel(self.connection, statement, self._run_apart)

    def end_calls(self) -> None:
        """End the calls that still run on the server. Discard the connection afterwards.

        A running statement would hold its locks, and SQLite cannot close a connection while a
        statement runs.
        """
        with contextlib.suppress(Exception):
            self.host.run(self.host.end_parked(), PATIENCE)
            # An open cursor keeps a closed SQLite connection alive, and so its lock.
            self.host.run(self._script(["ROLLBACK"]), CANCEL_PATIENCE)

    def give_up(self) -> None:
        """Roll back, release the locks and close the connection. Blocks.

        If the connection is only closed, the server may keep the locks for a while.
        """
        if self.is_open:  # do not open it only to close it
            with contextlib.suppress(Exception):
                self.host.run(self.clean(), CANCEL_PATIENCE)
        self.discard()

    def discard(self) -> None:
        """Close the connection in any state. The next use opens a new one. Blocks."""
        fairy, self._fairy, self._raw = self._fairy, None, None
        if fairy is not None:
            with contextlib.suppress(TimeoutError):  # the server does not answer
                self.run(fairy.invalidate)

    def open(self, wait: bool = True) -> None:
        """Connect, if it is not connected, and run the listeners that have not run.

        Args:
            wait: If True, block the caller's loop. If False, await; the caller must be in a
                greenlet of SQLAlchemy.

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
        """Run code of the adapter in a greenlet of SQLAlchemy on the plugin's loop. Blocks.

        Raises:
            Exception: The driver's own, or TimeoutError.
        """
        return self.host.run(greenlet_spawn(function), patience)

    def open_awaiting(self) -> None:
        """Do what :meth:`open` does; the caller must be in a greenlet of SQLAlchemy."""
        fairy, prepare = self._fairy, self._run_listeners
        if not self.is_open:
            prepare = self._prepare
            url = self._url or self.connector.url
            self._database = url.database or ""
            token = OPENING.set(url)
            try:
                fairy = self.connector.engine.sync_engine.raw_connection()
            finally:
                OPENING.reset(token)
        try:
            prepare(fairy)
            if self.deferred_check and self.backend.deferred_prepare:  # listeners may undo it
                await_only(self.driver.run(fairy.driver_connection, self.backend.deferred_prepare))
            await_only(self.driver.watch_session(fairy.driver_connection))
        except BaseException:
            self._fairy = self._raw = None
            fairy.invalidate()
            raise
        self._fairy, self._raw, self.info = fairy, fairy.driver_connection, dict(fairy.info)

    def _prepare(self, fairy: Any) -> None:
        """Prepare a new connection for the plugin, and run the listeners."""
        adapted, driver = fairy.dbapi_connection, fairy.driver_connection
        if statements := self.backend.at_connect():
            await_only(self.driver.run(driver, statements))
        if self._direct and self.connector.autocommit:
            self.connector.dialect.set_isolation_level(adapted, "AUTOCOMMIT")
        if self.connector.settings is None:
            self.connector.settings = await_only(self.driver.session_settings(driver))
        # SQLAlchemy ran these when it connected.
        self.ran = set(connect_listeners([self.connector.engine.sync_engine.pool]))
        self._run_listeners(fairy)
        self.touched = False
        if not self._direct and self.backend.deferred_query is not None:
            cursor = adapted.cursor()
            cursor.execute(self.backend.deferred_query)
            exist = cursor.fetchone()[0]
            cursor.close()
            self.deferred_check = self.backend.deferred_check if exist else ()

    def _run_listeners(self, fairy: Any) -> None:
        """Run the listeners that have not run, and commit, so that no rollback undoes their
        ``SET``."""
        adapted = fairy.dbapi_connection
        for listener in self.to_run() or ():
            listener(adapted, entry_of(fairy))
            self.ran.add(listener)
        if self.ran:
            adapted.commit()
        if not self._direct:
            self.driver.adapt(adapted)
        elif self.backend.begin_at_write is not None:
            begins = None if self.connector.autocommit else self.backend.begin_at_write
            self.driver.adapt(adapted, begins)

    async def _script(self, statements: Sequence[str]) -> None:
        async with sqlalchemy_internals.execution_lock(self._fairy.dbapi_connection):
            await self.driver.run(self.connection, statements)

    async def _run_apart(self, statement: str) -> None:
        async with self.connector.engine.connect() as connection:
            await connection.exec_driver_sql(statement)


class _Lent:
    """An adapter that does nothing when SQLAlchemy ends a transaction or closes the connection."""

    def __init__(self, adapted: Any) -> None:
        self._adapted = adapted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapted, name)

    commit = rollback = close = terminate = lambda self: None
