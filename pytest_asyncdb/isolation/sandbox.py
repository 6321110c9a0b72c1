"""The checkouts of ``rollback``. Their transactions are units of work in the outer transaction."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable
from typing import Any

from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_only

from pytest_asyncdb import errors
from pytest_asyncdb._engines.pool_internals import CheckoutPool, connect_listeners
from pytest_asyncdb._engines.sqlalchemy_internals import in_greenlet
from pytest_asyncdb._record.call_sites import user_places
from pytest_asyncdb._record.sql_text import begins_transaction, may_set
from pytest_asyncdb.isolation import local_settings, messages
from pytest_asyncdb.isolation.backing_connection import BackingConnection
from pytest_asyncdb.isolation.dbapi import HARMLESS, Checkout
from pytest_asyncdb.isolation.outer_transaction import OuterTransaction
from pytest_asyncdb.isolation.turns import Turns
from pytest_asyncdb.isolation.unit import Unit
from pytest_asyncdb.isolation.work import Call

#: SQLAlchemy numbers savepoints for each connection. On one connection the names would clash.
_SAVEPOINT = re.compile(r"\bsa_savepoint_(\d+)\b")

#: Used instead of a statement's text.
_RUN_ASYNC = "run_async()"
#: Methods of drivers that end the transaction or the connection.
_ENDING = frozenset(
    {
        *("commit", "rollback", "begin", "close", "terminate", "transaction", "pipeline"),
        *("executescript", "autocommit", "set_autocommit", "reset", "ensure_closed", "backup"),
        *("tpc_begin", "tpc_prepare", "tpc_commit", "tpc_rollback", "select_db", "kill"),
    }
)


class SandboxConnection(Checkout):
    """One checkout of a sandbox engine."""

    work: OuterTransaction
    taken: BackingConnection
    pool: CheckoutPool

    def __init__(self, work: OuterTransaction, number: int, pool: CheckoutPool) -> None:
        self.work = work
        self.number = number
        self.pool = pool
        self.turns = Turns(self)
        self.taken = work.backing
        self.autocommit = work.connector.autocommit
        #: The open unit of work; None before the first statement of a transaction.
        self.unit: Unit | None = None

    def connected(self, entry: ConnectionPoolEntry) -> None:
        """Run "connect" listeners that were added after the outer transaction had begun."""
        work, ran = self.work, self.taken.ran
        new = work.units.begun and [o for o in connect_listeners([self.pool]) if o not in ran]
        if not new:
            return
        try:
            for listener in new:
                work.late_listeners = True
                ran.add(listener)
                listener(self, entry)
                self.taken.info.update(entry.info)
            self.end("commit")
        finally:
            self.end("rollback")

    def ready(self) -> BackingConnection:
        with self.work.units.lock:
            if not (self.work.units.begun or self.work.ended):
                self.taken.connect()
        return self.taken

    @functools.cached_property
    def entry_info(self) -> dict[Any, Any]:
        return self.pool.infos.pop(0) if self.pool.infos else dict(self.ready().info)

    def close(self) -> None:
        """End the unit. The pool calls this, and logs errors; the end of the test reports them."""
        if not self.closed and "entry_info" in vars(self):
            self.pool.infos.append(self.entry_info)
        self.closed = True
        try:
            self._finish("rollback")
        except errors.IsolationConflict as error:
            self.work.told(error)

    def terminate(self) -> None:
        """Give the connection up. SQLAlchemy calls this after a cancellation, or in its
        finalizer."""
        self.closed = True
        if in_greenlet() and not self.work.host.runs_here:
            self.close()
        elif self.unit is not None:
            self.unit.ending = "rollback"  # no SQL in a finalizer: the next unit sends it

    def tpc_begin(self, xid: object) -> None:
        """Refuse a two-phase transaction: it would outlive its connection, and so the test.

        Raises:
            IsolationBreach: Always.
        """
        raise self.work.refuse("begin_twophase()", messages.OUTLIVES)

    def set_level(self, level: str | None) -> None:
        """Handle ``execution_options(isolation_level=…)``; None means the engine's level.

        Raises:
            IsolationConflict: The outer transaction has another level.
        """
        connector = self.work.connector
        own = connector.isolation_level or connector.dialect.default_isolation_level
        if level not in (None, "AUTOCOMMIT", own):
            error = messages.OTHER_LEVEL.of(self.work.test, messages.here(), level=level)
            raise self.work.told(error)
        self.autocommit = connector.autocommit if level is None else level == "AUTOCOMMIT"

    def set_deferrable(self, value: bool) -> None:
        """Ignore ``execution_options(postgresql_deferrable=…)`` with psycopg.

        It only changes how a serializable transaction begins.
        """

    def run(self, statement: str, work: Callable[[str], Any], whole: bool, call: Call) -> Any:
        if self.unit is None and not self.autocommit and begins_transaction(statement):
            return self.work.host.suspend()  # the unit begins with its next statement
        self.turns.enter()  # the test may end meanwhile
        ends = self.autocommit or (statement == _RUN_ASYNC and self._is_alone())
        try:
            self.work.check_before(statement)
            result = self._run(statement, work, whole, call)
            self.work.check_after(statement)
            if ends:
                self._finish("commit")
            return result
        except errors.AsyncdbError as error:
            raise self.work.told(error) from error.__cause__
        except Exception as error:
            self.work.explain_failure(error, statement)
            if ends:  # what executemany() wrote before it failed may stay
                self._finish("rollback" if self.work.units.fails_whole else "commit")
            raise
        finally:
            self.turns.leave()

    def _run(self, statement: str, work: Callable[[str], Any], whole: bool, call: Call) -> Any:
        outer = self.work
        if outer.cursors:
            self._free_connection()
        if self.unit is None or not self.unit.open:
            self.unit = outer.push(read_only=self.read_only)
        unit = self.unit
        if outer.units.below_top is not None:
            await_only(outer.until_free(unit))
            outer.check_before(statement)
        outer.join(unit)
        text = statement
        if "sa_savepoint_" in statement:
            text = _SAVEPOINT.sub(lambda match: f"asyncdb_{self.number}_{match[1]}", statement)
        if not outer.units.prepare(unit, text, whole):
            return None
        keep: list[str] = []
        if may_set(text):
            keep = local_settings.watch(self.taken.backend, unit, text, call.parameters)
        if keep:
            self.taken.script(keep)
        try:
            with call:
                result = self.taken.call(work, text)
        except BaseException:
            for _ in keep:
                unit.settings.popitem()  # the statement has set nothing
            outer.units.failed(unit)
            raise
        outer.units.succeeded(unit, text, whole)
        return result

    def run_async(self, function: Callable[[Any], Any]) -> Any:
        """Call *function* with the driver's connection, as SQLAlchemy's adapted connections do.

        It runs in this unit of work. The plugin notices if *function* ends the outer transaction.
        """
        self.touch(function)
        call = Call(self.work, user_places(), _RUN_ASYNC)
        return self.run(_RUN_ASYNC, lambda _: self.adapted.run_async(function), False, call)

    def _free_connection(self) -> None:
        """Read the streams of other checkouts ahead, so that the next statement does not lose their
        rows."""
        if self.taken.driver.one_result:
            for cursor in self._streams(own=False):
                cursor.buffer()

    def _streams(self, own: bool) -> list[Any]:
        """Return the streams of this checkout, or of the others, that have unread rows."""
        return [one for one in self.work.cursors if one.server_side and one.is_of(self) is own]

    def call_driver(self, name: str, method: Callable[..., Any], /, *args: Any, **kw: Any) -> Any:
        """Call a method of the driver's own connection in this unit of work.

        Raises:
            IsolationBreach: It would end the outer transaction.
            IsolationConflict: Another unit has the connection.
        """
        if name.startswith(HARMLESS):
            return super().call_driver(name, method, *args, **kw)
        why = "it would end the test's outer transaction" if name in _ENDING else None
        if name == "notifies":
            why = "no NOTIFY is delivered, because none is committed"
        if why is not None:
            raise self.work.refuse(f"driver_connection.{name}()", why)
        statement = args[0] if args and isinstance(args[0], str) else f"{name}()"
        self.work.check_before(statement)
        self._free_connection()
        alone = self._is_alone()
        if self.unit is None or not self.unit.open:
            self.unit = self.work.push(wait=False)
        self.unit.wrote += 1
        self.unit.batchable = False
        result = super().call_driver(name, method, *args, **kw)
        if not asyncio.iscoroutine(result):
            return result
        return self._watched(result, statement, self.unit, alone)

    def _is_alone(self) -> bool:
        """Return whether a call of the driver's own connection runs in no transaction now."""
        return self.unit is None and not self.taken.driver.begins

    async def _watched(self, result: Any, statement: str, unit: Unit, alone: bool) -> Any:
        how = "rollback"
        try:
            with Call(self.work, user_places(), statement):
                value = await result
            self.work.units.succeeded(unit, statement, False)
            how = "commit"
        except Exception as error:
            self.work.explain_failure(error, statement)
            raise
        finally:
            if alone:
                self._finish(how)
        self.work.check_after(statement)
        return value

    def end(self, how: str) -> None:
        if not self.work.deferring and in_greenlet():
            self.turns.before_end(self.unit is not None)
        self._finish(how)

    def _finish(self, how: str) -> None:
        unit, self.unit = self.unit, None
        if unit is None:
            return
        outer = self.work
        if outer.deferring:
            unit.ending = None if outer.keeping else "rollback"
            outer.wake()  # waiting units go on, as if the transaction had ended
            return
        self._free_connection()
        for cursor in self._streams(own=True):
            cursor.end_stream()
        if not self.autocommit:
            outer.log.ended(how.upper(), self.number)
        if how == "commit":
            outer.check_open("COMMIT")
        try:
            outer.units.finish(unit, how)
        except errors.AsyncdbError:
            raise
        except Exception as error:
            outer.explain_failure(error, how.upper())
            raise
