"""The DBAPI connection and cursor that SQLAlchemy holds for each checkout.

Statements run on a backing connection, through SQLAlchemy's own adapter for the driver. The
strategies decide which connection and which transaction that is: see ``sandbox.py`` and
``direct.py``.
"""

from __future__ import annotations

import abc
import asyncio
import collections
import inspect
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from sqlalchemy.pool import ConnectionPoolEntry, Pool
from sqlalchemy.util import greenlet_spawn

from pytest_asyncdb._engines.sqlalchemy_internals import buffered_rows, in_greenlet, soft_close
from pytest_asyncdb._record.call_sites import user_places
from pytest_asyncdb._record.sql_text import changes_columns
from pytest_asyncdb._record.statement_log import Statement
from pytest_asyncdb.isolation import lock_waits
from pytest_asyncdb.isolation.backing_connection import BackingConnection
from pytest_asyncdb.isolation.work import Call, Work

#: Prefixes of driver methods that return a value and send nothing.
HARMLESS = ("is_", "get_", "fileno", "character_set", "thread_id")
#: Prefixes of methods that do not change the driver's connection.
_ORDINARY = ("execute", "fetch", "ping", "xid", "dbapi", "tpc_", *HARMLESS)
#: Methods of a cursor that return rows.
FETCHES = ("fetchone", "fetchmany", "fetchall")
#: Row counts from here on mean "unknown": for a stream, MySQL's drivers report -1 as an unsigned
#: number of 64 bits.
_NO_COUNT = 2**63
#: Attributes of a cursor that has executed nothing.
_UNSENT = {"lastrowid": None, "rowcount": -1}
#: Types of attributes that give no way to change the connection.
_PLAIN = (str, int, float, bytes, tuple, type, type(None))


class Checkout(abc.ABC):
    """The DBAPI connection that SQLAlchemy holds: one checkout of a test's engine."""

    work: Work
    #: The number of this checkout within its test.
    number: int
    #: The pool of this checkout. Its "connect" listeners have run on the backing connection.
    pool: Pool
    #: The backing connection; None before it is taken and after it was given back.
    taken: BackingConnection | None
    #: True if statements run outside of a transaction (AUTOCOMMIT).
    autocommit: bool
    #: True if transactions of this checkout only read.
    read_only = False
    #: True after SQLAlchemy's pool has closed it.
    closed = False

    #: The AttributeError that was raised when the connection was taken. ``__getattr__`` raises it
    #: again, because Python takes an AttributeError of a property for a missing attribute.
    failed: AttributeError | None = None

    def __getattr__(self, name: str) -> Any:
        if self.failed is not None:
            raise self.failed
        value = getattr(self.ready().adapted, name)
        if not name.startswith((*_ORDINARY, "_")):
            self.touch(value)
        if not callable(value) or isinstance(value, type):
            return value
        return lambda *args, **kwargs: self.backing.call(lambda: value(*args, **kwargs))

    def touch(self, value: Any) -> None:
        """Mark the connection as touched if the application could change it through *value*."""
        self.backing.touched |= not isinstance(value, _PLAIN)

    @property
    def backing(self) -> BackingConnection:
        """The backing connection."""
        assert self.taken is not None
        return self.taken

    @abc.abstractmethod
    def run(self, statement: str, work: Callable[[str], Any], whole: bool, call: Call) -> Any:
        """Run a statement of the application.

        Args:
            work: Sends the statement that it is given.
            whole: True if the statement has changed nothing when it fails.
            call: Context manager to enter while the driver runs the statement.
        """

    @abc.abstractmethod
    def end(self, how: str) -> None:
        """End the transaction; *how* is ``commit`` or ``rollback``."""

    @abc.abstractmethod
    def terminate(self) -> None:
        """Give the checkout up. SQLAlchemy calls this after a cancellation, or in its finalizer."""

    @abc.abstractmethod
    def set_level(self, level: str | None) -> None:
        """Handle ``execution_options(isolation_level=…)``; None means the engine's level."""

    def set_read_only(self, value: bool) -> None:
        """Handle ``execution_options(postgresql_readonly=…)``."""
        self.read_only = value

    def connected(self, entry: ConnectionPoolEntry) -> None:
        """Called after the checkout was made and before SQLAlchemy uses it."""

    def ready(self) -> BackingConnection:
        """Return the backing connection on which the next statement will run. Blocks."""
        return self.backing

    @property
    def entry_info(self) -> dict[Any, Any]:
        """The ``info`` of the pool's entry."""
        return self.backing.info

    @property
    def adapted(self) -> Any:
        """SQLAlchemy's adapter of the driver's connection."""
        return self.backing.adapted

    @property
    def driver_connection(self) -> Any:
        """The driver's connection for the application."""
        return DriverConnection(self)

    #: SQLAlchemy's dialects read it under this name.
    _connection = driver_connection

    def call_driver(self, name: str, method: Callable[..., Any], /, *args: Any, **kw: Any) -> Any:
        """Call a method of the driver's own connection for the application."""
        if not name.startswith(HARMLESS):
            self.work.check_open(f"driver_connection.{name}()")
        result = method(*args, **kw)
        if inspect.isasyncgen(result):
            return self.work.host.iterate_here(result)
        return self.work.host.await_here(result) if asyncio.iscoroutine(result) else result

    def cursor(self, *args: Any, **kwargs: Any) -> Cursor:
        if self.work.connector.cursor_awaits and not in_greenlet():
            self.work.host.suspend()  # raises MissingGreenlet, as the adapter would
        return Cursor(self, args, kwargs)

    def execute(self, operation: Any, parameters: Any = None) -> Cursor:
        """Execute a statement on a new cursor, as SQLAlchemy's adapted connections do."""
        cursor = self.cursor()
        cursor.execute(operation, parameters)
        return cursor

    def commit(self) -> None:
        self.end("commit")

    def rollback(self) -> None:
        self.end("rollback")


class DriverConnection:
    """The driver's own connection, as the application gets it.

    Its coroutines can be awaited on any loop.
    """

    def __init__(self, checkout: Checkout) -> None:
        self.__dict__["_checkout"] = checkout

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._checkout.ready().connection, name)
        if not name.startswith(_ORDINARY):
            self._checkout.touch(value)
        # Not callable(): that is also true for classes and for sqlite3's connection.
        if not hasattr(value, "__self__"):
            return value
        return partial(self._checkout.call_driver, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._checkout.ready().connection, name, value)
        self._checkout.backing.touched = True


class Cursor:
    """The DBAPI cursor that SQLAlchemy holds. It creates the adapter's cursor when it needs it."""

    def __init__(self, checkout: Checkout, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.__dict__.update(
            _checkout=checkout,
            _how=(args, kwargs),
            _cursor=None,
            _early={},
            _rows=None,
            _fetched=False,  # True if its rows are already in memory
        )

    @property
    def description(self) -> Any:
        return None if self._cursor is None else self._cursor.description

    def __getattr__(self, name: str) -> Any:
        cursor = self._cursor
        if cursor is None:
            if name in (known := _UNSENT | self._early):
                return known[name]
            cursor = self._checkout.ready().call(self._open)
        fetches = name in FETCHES
        if fetches and self._rows is not None:
            return getattr(self._rows, name)
        value = getattr(cursor, name)
        if fetches and self._fetched:
            return value
        if fetches or name in ("nextset", "setinputsizes", "callproc"):
            if self._checkout.work.ended:
                self._checkout.work.check_open(f"cursor.{name}()")
            return lambda *args, **kwargs: self._backing.call(partial(value, *args, **kwargs))
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if self._cursor is None:  # SQLAlchemy sets attributes before it executes
            self._early[name] = value
        else:
            setattr(self._cursor, name, value)

    def __iter__(self) -> Any:
        while (row := self.fetchone()) is not None:
            yield row

    @property
    def server_side(self) -> bool:
        """Return whether rows that are not read yet still come from the connection (a stream)."""
        return self._rows is None and bool(getattr(self._cursor, "server_side", False))

    def is_of(self, checkout: Checkout) -> bool:
        return self._checkout is checkout

    def end_stream(self) -> None:
        """Make the stream return what the driver's stream returns after the end of its transaction.
        Blocks."""
        driver = self._checkout.backing.driver
        if driver.one_result:
            self.buffer()
        ended = driver.ended_stream()
        if (driver.one_result and not self._checkout.autocommit) or ended is not None:
            self.__dict__["_rows"] = Rows(buffered_rows(self._cursor), ended)

    def buffer(self) -> None:
        """Read the remaining rows into memory, so that the connection is free. Blocks."""
        self.__dict__["_rows"] = Rows(self._checkout.backing.run(self._cursor.fetchall))

    def execute(self, operation: Any, parameters: Any = None) -> Any:
        return self._run("execute", operation, parameters, whole=";" not in operation)

    def executemany(self, operation: Any, parameters: Any) -> Any:
        return self._run("executemany", operation, parameters, whole=False)

    def _run(self, method: str, operation: str, parameters: Any, whole: bool) -> Any:
        checkout: Checkout = self._checkout
        arguments = () if parameters is None else (parameters,)

        def work(text: str) -> Any:
            return getattr(self._open(), method)(text, *arguments)

        failed: BaseException | None = None
        places = user_places(1)
        call = Call(checkout.work, places, operation, parameters)
        try:
            result = checkout.run(operation, work, whole, call)
            if checkout.work.connector.driver.keeps_columns and changes_columns(operation):
                checkout.backing.touched = True
            return result
        except Exception as error:
            failed = error
            if checkout.taken is not None:
                seconds = time.perf_counter() - call.began
                lock_waits.explain(checkout.work, checkout.taken, error, operation, seconds)
            raise  # SQLAlchemy closes the cursor
        except BaseException as error:
            failed = error
            checkout.work.cancelled.append(lock_waits.of_call(call, checkout.taken))
            checkout.work.abandon([self])  # SQLAlchemy gives up the connection and the cursor
            raise
        finally:
            seconds = time.perf_counter() - call.began
            rows = self._cursor.rowcount if failed is None and self._cursor is not None else -1
            checkout.work.log.add(
                Statement(
                    operation,
                    rows if 0 <= rows < _NO_COUNT else None,
                    seconds,
                    method == "executemany",
                    None if failed is None else _class_name(failed),
                    places,
                    None if checkout.autocommit else checkout.number,
                ),
                parameters,
            )

    def close(self) -> None:
        if not self._forget():
            return
        checkout, cursor = self._checkout, self._cursor
        if self._fetched and checkout.work.connector.driver.close_cursor(cursor):
            return
        if in_greenlet():  # a finalizer cannot await; the connection closes the cursor
            self._backing.call(cursor.close)

    async def _async_soft_close(self) -> None:
        """Close the cursor. SQLAlchemy calls this name; see ``sqlalchemy_internals.soft_close``."""
        if self._forget():
            await self._checkout.work.host.await_here(soft_close(self._cursor))

    async def abandon(self) -> None:
        """Close the adapter's cursor, which SQLAlchemy has left open, on the plugin's own loop."""
        taken = self._checkout.taken
        if taken is None or taken.is_open:
            await greenlet_spawn(self._cursor.close)

    def _forget(self) -> bool:
        """Note that the cursor is being closed. Return False if there is nothing to close."""
        if self._cursor is None or self._checkout.work.ended:
            return False
        if self in self._checkout.work.cursors:
            del self._checkout.work.cursors[self]
        return True

    def _open(self) -> Any:
        cursor = self._cursor
        if cursor is None:
            args, kwargs = self._how
            backing = self._checkout.taken or self._checkout.backing
            cursor = backing.adapted.cursor(*args, **kwargs)
            for name in self._early:
                setattr(cursor, name, self._early[name])
            # A stream outlives its checkout: on SQLite it may be read after the commit.
            self.__dict__["_cursor"], self.__dict__["_backing"] = cursor, backing
            # SQLAlchemy 2.0's cursors for psycopg have no ``server_side``. Their fetches are called
            # like those of a stream, which does no harm.
            if not getattr(cursor, "server_side", True):
                self.__dict__["_fetched"] = True
                self.__dict__["fetchall"] = cursor.fetchall
            self._checkout.work.cursors[self] = None
        return cursor


class Rows:
    """Rows of a stream that were read before the application asked for them.

    Args:
        ended: The error to raise after these rows; None: they are the last rows of the stream.
    """

    def __init__(self, rows: Iterable[Any], ended: Exception | None = None) -> None:
        self._rows = collections.deque(rows)
        self._ended = ended

    def fetchone(self) -> Any:
        return next(iter(self.fetchmany(1)), None)

    def fetchmany(self, size: int = 1) -> list[Any]:
        if self._ended is not None and size > len(self._rows):
            raise self._ended
        return [self._rows.popleft() for _ in range(min(size, len(self._rows)))]

    def fetchall(self) -> list[Any]:
        return self.fetchmany(len(self._rows) + (self._ended is not None))


def _class_name(error: BaseException) -> str:
    """Return the class name of the driver's error, not of SQLAlchemy's error around it
    (asyncpg)."""
    cause = error.__cause__
    adapted = type(error).__module__.startswith("sqlalchemy.") and cause is not None
    return type(cause if adapted else error).__name__
