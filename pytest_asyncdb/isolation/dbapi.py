"""What SQLAlchemy's pool and cursors hold: a DBAPI connection and cursor for each checkout.

A ``Branch`` is one checkout of the sandboxed engine; its transaction is a savepoint of the
outer transaction (``outer_transaction.py``). Its statements run on the one real connection, through
SQLAlchemy's own adapter for the driver (``backing_connection.py``).
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from pytest_asyncdb import errors
from pytest_asyncdb._record.call_sites import user_frames, user_places
from pytest_asyncdb._record.statement_log import Statement
from pytest_asyncdb.isolation import messages
from pytest_asyncdb.isolation.driver_connection import DriverConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_asyncdb.isolation.backing_connection import BackingConnection
    from pytest_asyncdb.isolation.outer_transaction import OuterTransaction
    from pytest_asyncdb.isolation.unit import Unit

#: pytest leaves our frames out of the tracebacks of drivers' errors.
__tracebackhide__ = True

#: SQLAlchemy numbers its savepoints for each connection; on one connection they would meet.
_SAVEPOINT = re.compile(r"\bsa_savepoint_(\d+)\b")


class Checkout:
    """What the connections that SQLAlchemy holds have in common: their cursors are ours."""

    #: The real connection; None: there is none yet, or no more.
    taken: BackingConnection | None
    #: Tells this checkout from the others of its test.
    number: int

    @property
    def transaction(self) -> int | None:
        """Whose transaction a statement of this checkout runs in; None: in none, autocommit."""
        raise NotImplementedError

    def cursor(self, *args: Any, **kwargs: Any) -> Cursor:
        return Cursor(self, args, kwargs)

    def execute(self, operation: Any, parameters: Any = None) -> Cursor:
        """As SQLAlchemy's adapters have it."""
        cursor = self.cursor()
        cursor.execute(operation, parameters)
        return cursor


class SandboxConnection(Checkout):
    """The DBAPI connection that SQLAlchemy holds: one checkout of the sandboxed engine."""

    def __init__(self, outer: OuterTransaction, number: int) -> None:
        self.outer = outer
        self.number = number
        self.taken = outer.link
        self.autocommit = outer.link.connector.autocommit
        #: The unit of work that is under way; None before its first statement.
        self.unit: Unit | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.outer.link.adapted, name)

    @property
    def transaction(self) -> int | None:
        return None if self.autocommit else self.number

    @property
    def link(self) -> BackingConnection:
        """The real connection."""
        return self.outer.link

    @property
    def adapted(self) -> Any:
        """SQLAlchemy's adapter of it."""
        return self.outer.link.adapted

    @property
    def _connection(self) -> Any:
        """The driver's connection as ``driver_connection`` shows it."""
        return DriverConnection(self)

    def ping(self, *args: Any) -> Any:
        return self.outer.link.call(self.outer.link.adapted.ping, *args)

    def commit(self) -> None:
        self._end("commit")

    def rollback(self) -> None:
        self._end("rollback")

    def close(self) -> None:
        self._drop()

    def terminate(self) -> None:
        """SQLAlchemy gives the connection up: after a cancellation, or by its finalizer."""
        import greenlet

        if getattr(greenlet.getcurrent(), "__sqlalchemy_greenlet_provider__", False):
            self._drop()
        elif self.unit is not None:
            self.unit.ending = "rollback"  # no SQL in a finalizer: the next unit does it
            self.unit = None

    def tpc_begin(self, xid: object) -> None:
        """Two-phase transactions outlive their connection, and so the test.

        Raises:
            IsolationBreach: Always.
        """
        raise self.outer.guard.refuse(
            "begin_twophase()", "a prepared transaction would outlive the test"
        )

    def set_isolation_level(self, level: str | None) -> None:
        """Answer ``execution_options(isolation_level=…)``; None: back to the engine's.

        Raises:
            IsolationConflict: The outer transaction has another level.
        """
        connector = self.outer.link.connector
        if level is None:
            self.autocommit = connector.autocommit
        elif level == "AUTOCOMMIT":
            self.autocommit = True
        elif level == (connector.isolation_level or connector.dialect.default_isolation_level):
            self.autocommit = False
        else:
            raise messages.overlapping_units(
                self.outer.test,
                f"The test's outer transaction cannot change to isolation level {level}.",
                user_frames(),
            )

    def run(self, statement: str, work: Callable[[str], Any], whole: bool) -> Any:
        """Run a statement of the application in this unit of work.

        Args:
            work: Gets the statement, with savepoint names that are unique.
            whole: If the statement fails, it has changed nothing.
        """
        outer = self.outer
        outer.guard.check_before(statement)
        outer.link.host.require_greenlet()
        try:
            result = self._run(statement, work, whole)
            outer.guard.check_after(statement)
            if self.autocommit:
                self._end("commit")
            return result
        except errors.AsyncdbError:
            raise
        except Exception as error:
            outer.guard.failed(error, statement)
            raise

    def _run(self, statement: str, work: Callable[[str], Any], whole: bool) -> Any:
        outer = self.outer
        if self.unit is None or not self.unit.open:
            self.unit = outer.push()
        unit = self.unit
        outer.join(unit)
        text = self._rename(statement)
        if not outer.stack.prepare(unit, text, whole):
            return None
        try:
            with outer.guard.calls.calling(outer.link, text):
                result = outer.link.call(work, text)
        except BaseException:
            outer.stack.undone(unit)
            raise
        outer.stack.done(unit, text, whole)
        return result

    def begin(self) -> Unit:
        """Open the unit of work without waiting: from code outside of SQLAlchemy's greenlets.

        Raises:
            IsolationConflict: It is another unit's turn.
        """
        if self.unit is None or not self.unit.open:
            self.unit = self.outer.push_at_once()
        return self.unit

    def _rename(self, statement: str) -> str:
        if "sa_savepoint_" not in statement:
            return statement
        return _SAVEPOINT.sub(lambda match: f"asyncdb_{self.number}_{match[1]}", statement)

    def _drop(self) -> None:
        """End by the pool, which logs errors and goes on: the end of the test tells them."""
        try:
            self._end("rollback")
        except errors.IsolationConflict as error:
            self.outer.guard.breaches.append(error)

    def _end(self, how: str) -> None:
        unit, self.unit = self.unit, None
        if unit is None:
            return
        if self.outer.deferring:
            unit.ending = None if self.outer.keeping else "rollback"
            return
        if not self.autocommit:
            self.outer.journal.ended(how.upper(), self.number)
        guard = self.outer.guard
        if how == "commit":
            guard.check_alive("COMMIT")
        try:
            self.outer.stack.finish(unit, how)
        except errors.AsyncdbError:
            raise
        except Exception as error:
            guard.not_ended(error, how.upper())
            raise


class Cursor:
    """The DBAPI cursor that SQLAlchemy holds; the adapter's own is made when it executes."""

    def __init__(self, branch: Checkout, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.__dict__.update(_branch=branch, _how=(args, kwargs), _cursor=None, _early={})

    def __getattr__(self, name: str) -> Any:
        cursor = self._cursor
        if cursor is None:
            if name in self._early:
                return self._early[name]
            if name in ("description", "lastrowid"):
                return None
            if name == "rowcount":
                return -1
            cursor = self._branch.link.call(self._open)
        value = getattr(cursor, name)
        fetches = name in ("fetchone", "fetchmany", "fetchall")
        # SQLAlchemy 2.0's cursors for psycopg do not say what they are; a call does no harm.
        if fetches and not getattr(cursor, "server_side", True):
            return value
        if fetches or name in ("nextset", "setinputsizes", "callproc"):
            return lambda *args, **kwargs: self._branch.link.call(lambda: value(*args, **kwargs))
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if self._cursor is None:
            self._early[name] = value
        else:
            setattr(self._cursor, name, value)

    def __iter__(self) -> Any:
        while (row := self.fetchone()) is not None:
            yield row

    def execute(self, operation: Any, parameters: Any = None) -> Any:
        arguments = () if parameters is None else (parameters,)
        return self._run(
            operation,
            parameters,
            lambda text: self._open().execute(text, *arguments),
            whole=";" not in operation,
        )

    def executemany(self, operation: Any, parameters: Any) -> Any:
        return self._run(
            operation,
            parameters,
            lambda text: self._open().executemany(text, parameters),
            whole=False,
            many=True,
        )

    def _run(
        self,
        operation: str,
        parameters: Any,
        work: Callable[[str], Any],
        whole: bool,
        many: bool = False,
    ) -> Any:
        failed: BaseException | None = None
        began = time.perf_counter()
        try:
            return self._branch.run(operation, work, whole)
        except Exception as error:
            failed = error
            link = self._branch.taken
            if link is not None:
                seconds = time.perf_counter() - began
                self._branch.outer.waits.explain(link, error, operation, seconds)
            raise  # SQLAlchemy closes the cursor
        except BaseException as error:
            failed = error
            self._branch.outer.abandon([self])  # it gives the connection up, and the cursor
            raise
        finally:
            seconds = time.perf_counter() - began
            rows = getattr(self._cursor, "rowcount", -1) if failed is None else -1
            self._branch.outer.journal.add(
                Statement(
                    operation,
                    rows if rows >= 0 else None,
                    seconds,
                    many,
                    None if failed is None else _raised(failed),
                    user_places(1),
                    self._branch.transaction,
                ),
                parameters,
            )

    def close(self) -> None:
        cursor = self._cursor
        if cursor is None or self._branch.outer.ended:
            return
        self._branch.outer.cursors.discard(self)
        import greenlet

        if not getattr(greenlet.getcurrent(), "__sqlalchemy_greenlet_provider__", False):
            return  # a finalizer: the connection's end closes it
        self._branch.link.call(cursor.close)

    async def abandon(self) -> None:
        """Close what SQLAlchemy has left open, on our own loop."""
        from sqlalchemy.util import greenlet_spawn

        await greenlet_spawn(self._cursor.close)

    async def _async_soft_close(self) -> None:
        if self._cursor is not None and not self._branch.outer.ended:
            self._branch.outer.cursors.discard(self)
            await self._branch.link.host.await_here(self._cursor._async_soft_close())

    def _open(self) -> Any:
        if self._cursor is None:
            args, kwargs = self._how
            cursor = self._branch.adapted.cursor(*args, **kwargs)
            for name, value in self._early.items():
                setattr(cursor, name, value)
            self.__dict__["_cursor"] = cursor
            self._branch.outer.cursors.add(self)
        return self._cursor


def _raised(error: BaseException) -> str:
    """The class of what the driver raised; SQLAlchemy's adapter for asyncpg has its own."""
    cause = error.__cause__
    adapted = type(error).__module__.startswith("sqlalchemy.") and cause is not None
    return type(cause if adapted else error).__name__
