"""The outer transaction of a test, its guard, and the units of work that nest in it.

Each unit of work is a savepoint, opened at its first statement. Commit releases the savepoint,
rollback goes back to it. Units stack: if a task, or a child of it, opens a unit while another one
of the task is open, the new unit nests in the open one. Any other unit waits for its turn.
``units_of_work.py`` notices when two units are ended in an order that savepoints cannot express.

The guard refuses statements that must not reach the server, and notices if something has ended the
transaction nevertheless. Each error names the statement and its place in the user's code, which is
looked up for errors only. The driver's error is raised as it is, as in production. If that error
cost more than its own statement, a note on it and the end of the test say so.

This module uses drivers and backends only through their data. ``sandbox.py`` has what SQLAlchemy
sees.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.util import await_only

from pytest_asyncdb import errors
from pytest_asyncdb._engines.asyncio_internals import resolve, running_task
from pytest_asyncdb._record.call_sites import user_places
from pytest_asyncdb._record.sql_text import ends_transaction
from pytest_asyncdb._record.text import error_text, one_line
from pytest_asyncdb.isolation import messages
from pytest_asyncdb.isolation.backing_connection import BackingConnection
from pytest_asyncdb.isolation.messages import Text, here
from pytest_asyncdb.isolation.restoring import teardown_stuck
from pytest_asyncdb.isolation.started_tasks import task_name
from pytest_asyncdb.isolation.unit import Unit
from pytest_asyncdb.isolation.units_of_work import GUARD, UnitsOfWork
from pytest_asyncdb.isolation.work import Work

T = TypeVar("T")

#: The units that this context has opened or used, outermost first.
_CHAIN: contextvars.ContextVar[tuple[Unit, ...]] = contextvars.ContextVar(
    "asyncdb_chain", default=()
)


class OuterTransaction(Work):
    """The transaction around one test. It begins at the first statement and is undone at the end.

    Args:
        backing: The kept connection.
        test: The node id, for errors.
        turn: Seconds that a unit of work waits for another one to end.
    """

    def __init__(self, backing: BackingConnection, test: str, turn: float) -> None:
        super().__init__(backing.connector, test)
        self.backing = backing
        #: The units of work in the transaction.
        self.units = UnitsOfWork(backing, test, self.wake)
        #: The error about what ended the transaction; None: nothing did.
        self.lost: errors.AsyncdbError | None = None
        self.turn = turn
        backing.pools = self.pools
        #: True if "connect" listeners have run within the transaction.
        self.late_listeners = False
        #: True if the rollback failed or did not undo everything.
        self.stuck = False
        self._waiting: list[asyncio.Future[None]] = []
        self._numbers = itertools.count(1)

    # The life of the transaction.

    def close(self) -> list[BaseException]:
        self.ended = self.units.dead = True
        self.wake()
        if self.running:
            self.breaches.append(self.left_running())
            self.backing.end_calls()  # else their answers could be taken for the answer to ROLLBACK
            self.backing.discard()
        self.abandon(self.cursors)
        if self.units.begun and self.lost is None and self.backing.is_open:
            try:
                self.stuck = not self.backing.end_session(self.units.savepoints.undo(GUARD))
            except Exception as error:
                if self.backing.is_lost(error) or isinstance(error, TimeoutError):
                    self.stuck = True
                    self.breaches.append(teardown_stuck(self.test, error))
                else:  # the guard's savepoint is gone
                    seen = "unknown: it began another transaction; noticed when the test ended"
                    self.lose(messages.LOST_TRANSACTION, seen)
                self.backing.discard()
        self.units.drop()
        self.invalidate_checkouts()
        if self.late_listeners or self.backing.touched:
            self.backing.discard()  # the rollback undid only a part of the changes
        return self.breaches

    def commit(self) -> None:
        """Commit everything that the test has done and not rolled back. Blocks.

        Call it before :meth:`close`.

        Raises:
            Exception: That is not possible.
        """
        if not self.units.begun and self.lost is None:
            return
        if self.running:
            raise errors.AsyncdbError("something of the test was still running a statement")
        if self.lost is not None or not self.backing.is_open:
            raise errors.AsyncdbError("the transaction of the test was lost")
        self.abandon(self.cursors)
        self.units.commit()

    @contextlib.contextmanager
    def checkpoint(self) -> Iterator[None]:
        """Open a savepoint below all units of work that are opened meanwhile, and undo it. Blocks.

        Raises:
            IsolationConflict: A unit is open.
        """
        if self.units.top is not None:
            seen = ("It was opened", messages.at(self.units.top.places))
            raise messages.CHECKPOINT_IN_A_TRANSACTION.of(self.test, *seen)
        name = f"asyncdb_{next(self._numbers)}"
        self.units.open_savepoint(name)
        try:
            yield
        finally:
            if not self.ended and self.lost is None:
                self.units.drop()
                savepoints = self.units.savepoints
                self.backing.script([*savepoints.undo(name), *savepoints.release(name)])
                self.wake()

    def read(self, work: Callable[[Connection], T]) -> T | None:
        """See ``View.read``."""
        lost = self.lost is not None or self.units.conflicting is not None
        if not self.units.begun or lost or not self.backing.is_open:
            return None
        streams = any(cursor.server_side for cursor in self.cursors)
        if self.running or self.units.below_top is not None or streams:
            return None  # the connection is not free
        with self.units.lock:
            if not self.units.can_nest():
                return None
            unit = self._new_unit()
            self.units.units.append(unit)
            self.units.add(unit)
            try:
                return self.backing.read(work)
            finally:
                self.units.finish(unit, "rollback")

    # The guard.

    def check_before(self, statement: str) -> None:
        """Refuse statements that must not reach the server.

        Raises:
            IsolationBreach: The statement would end the transaction, or an earlier one has ended
                it, or the connection is gone.
            IsolationConflict: The test has ended, or the data are not what they would be on
                separate connections.
        """
        self.check_open(statement)
        overlap = self.units.conflicting
        if overlap is not None and self.units.savepoints.read(statement) is None:
            raise self.told(overlap)
        backend = self.backing.backend
        why = ends_transaction(statement, not backend.capabilities.transactional_ddl)
        if why is not None and self.units.savepoints.read(statement) is None:
            if statement == "XA BEGIN %s":  # of SQLAlchemy
                raise self.refuse("begin_twophase()", messages.OUTLIVES)
            shown = one_line(statement, 40)
            raise self._breach(
                messages.REFUSED_STATEMENT, here(), statement=shown, label=backend.label, why=why
            )

    def check_open(self, statement: str) -> None:
        """Check that there is a transaction in which *statement* can run.

        Raises:
            IsolationBreach: The transaction or the connection has ended.
            IsolationConflict: The test has ended.
        """
        if self.ended:  # checked before the call, because every statement comes here
            super().check_open(statement)
        if self.lost is None and self.units.begun and not self.backing.is_open:
            self.lose(messages.LOST_CONNECTION, statement)
        if self.lost is not None:
            raise self.lost

    def end_in_child(self) -> None:
        super().end_in_child()
        self.units.dead = True

    def refuse(self, what: str, why: str) -> errors.AsyncdbError:
        """Return the error for a call that would end the transaction. The test fails with it."""
        return self._breach(messages.REFUSED_CALL, here(), what=what, why=why)

    def check_after(self, statement: str) -> None:
        """Check that the statement has not ended the transaction.

        Raises:
            IsolationBreach: It has.
        """
        backing = self.backing
        if self.lost is None and backing.in_transaction() is False and backing.is_open:
            raise self.lose(messages.LOST_TRANSACTION, statement)

    def explain_failure(self, error: BaseException, statement: str) -> None:
        """Add a note to an error of the driver if it cost more than its statement, or if only the
        outer transaction causes it."""
        if self.ended or self.lost is not None or not self.units.begun:
            return
        backing = self.backing
        code = backing.driver.error_code(error)
        if backing.is_lost(error):
            lost = messages.LOST_CONNECTION
        elif re.search(backing.backend.outside_transactions, f"{code}: {error}"):
            shown = f"statement: {one_line(statement)}"
            error.add_note(str(messages.OUTSIDE_TRANSACTIONS.of(self.test, shown, here())))
            return
        else:
            if code in backing.backend.transaction_ending_errors:
                backing.script([backing.backend.probe])  # updates the driver's transaction flag
            if backing.in_transaction() is not False:
                return
            lost = messages.UNDONE_BY_SERVER
        error.add_note(str(self.lose(lost, statement, error_text(error))))

    def told(self, error: errors.AsyncdbError) -> errors.AsyncdbError:
        """Note an error that is raised now: if the code swallows it, the test fails at its end.

        Only the first one is noted, because many tasks may wait for the same unit.
        """
        self.breaches = self.breaches or [error]
        return error

    def _breach(self, text: Text, *seen: str | list[str], **values: str) -> errors.AsyncdbError:
        error = text.of(self.test, *seen, **values)
        self.breaches.append(error)
        return error

    def lose(self, text: Text, statement: str, said: str = "") -> errors.AsyncdbError:
        """Note that *statement* ended the outer transaction; *text* describes what that means."""
        shown = f"statement: {one_line(statement)}"
        self.lost = self._breach(text, shown, here(), said, label=self.backing.backend.label)
        self.units.dead = True
        return self.lost

    # Units of work.

    def push(self, wait: bool = True, read_only: bool = False) -> Unit:
        """Open a unit on top of the stack when it is its turn.

        Args:
            wait: If True, wait for the turn. If False, raise: the caller is not in a greenlet of
                SQLAlchemy and cannot wait.
            read_only: True if the unit only reads.

        Raises:
            IsolationConflict: Another unit has the connection for too long.
        """
        unit = self._new_unit()
        unit.read_only = read_only
        while not self._try_push(unit):
            if not wait:
                raise self.told(self._no_turn(self.units.top or unit, unit, 0))
            await_only(self._wait(unit))
            self.check_open("BEGIN")
        self.units.add(unit)
        return unit

    async def until_free(self, unit: Unit) -> None:
        """Wait until the statement of another unit below the top has ended.

        If a failed statement fails all units, its savepoint must be undone before *unit* runs a
        statement.
        """
        while self.units.below_top not in (None, unit) and not self.ended:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            with self.units.lock:
                self._waiting.append(future)
            await future

    def join(self, unit: Unit) -> None:
        """Note that the running task has used *unit*: what it opens from now on nests in *unit*."""
        chain = _CHAIN.get()
        if unit not in chain:
            _CHAIN.set((*(one for one in chain if one.open), unit))

    def _new_unit(self) -> Unit:
        return Unit(task_name(running_task()), user_places(), f"asyncdb_{next(self._numbers)}")

    # Turns.

    def _try_push(self, unit: Unit) -> bool:
        with self.units.lock:
            self.units.settle()  # ends units that the garbage collector gave up
            chain = [one for one in _CHAIN.get() if one.open]
            top = self.units.top
            if self.units.below_top is not None or not (top is None or top in chain):
                return False
            self.units.units.append(unit)
            _CHAIN.set((*chain, unit))
            return True

    async def _wait(self, unit: Unit) -> None:
        """Wait until a unit of work has ended."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self.units.lock:
            holder = self.units.top
            if holder is None or self.ended or (holder.ending and self.units.below_top is None):
                return
            self._waiting.append(future)
        try:
            await asyncio.wait_for(future, self.turn)
        except TimeoutError:
            raise self._no_turn(holder, unit, self.turn) from None

    def _no_turn(self, holder: Unit, waiter: Unit, seconds: float) -> errors.AsyncdbError:
        return messages.WAITED_FOR_TURN.of(
            self.test,
            f"It is held by: {holder.task}, which opened its unit",
            messages.at(holder.places),
            f"It was waited for by: {waiter.task}",
            messages.at(waiter.places),
            seconds=seconds,
        )

    def wake(self) -> None:
        with self.units.lock:
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            resolve(future)
