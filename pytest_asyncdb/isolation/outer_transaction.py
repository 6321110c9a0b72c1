"""The outer transaction of a test, and the units of work that nest in it.

Each unit of work is a savepoint, opened at its first statement; commit releases it, rollback
goes back to it. Units stack: one that is opened in the context of an open unit (the same
task, or a child of it) nests in it, another one waits for its turn. Where two are ended in
an order that savepoints cannot express, ``units_of_work.py`` finds it.

Nothing here knows drivers or backends beyond their data; ``backing_connection.py`` holds the real
connection, ``dbapi.py`` is what SQLAlchemy sees.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_asyncdb import errors
from pytest_asyncdb._engines.host_loop import CANCEL_PATIENCE
from pytest_asyncdb._record.call_sites import user_places
from pytest_asyncdb._record.statement_log import StatementLog
from pytest_asyncdb.isolation import messages
from pytest_asyncdb.isolation.backing_connection import PATIENCE
from pytest_asyncdb.isolation.guard import BEGAN_ANOTHER, GUARD, Guard, current_task, task_name
from pytest_asyncdb.isolation.lock_waits import LockWaits, Owner
from pytest_asyncdb.isolation.unit import Unit
from pytest_asyncdb.isolation.units_of_work import UnitsOfWork

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pytest_asyncdb.isolation.backing_connection import BackingConnection
    from pytest_asyncdb.isolation.dbapi import Cursor

T = TypeVar("T")

#: The units that this context has opened or used, outermost first.
_CHAIN: contextvars.ContextVar[tuple[Unit, ...]] = contextvars.ContextVar(
    "asyncdb_chain", default=()
)


class OuterTransaction:
    """The transaction around one test: begun at its first statement, undone at its end.

    Args:
        link: The kept connection.
        test: The node id, for errors.
        turn: Seconds that a unit of work waits for another one to end.
    """

    def __init__(self, link: BackingConnection, test: str, turn: float) -> None:
        self.link = link
        self.test = test
        self.turn = turn
        self.journal = StatementLog(link.connector.hide_parameters)
        #: Units of work that are closed now are undone by the next one, or by our ROLLBACK.
        self.deferring = False
        #: The test has failed, and :meth:`commit` will be called: these units go on.
        self.keeping = False
        #: The rollback did not go through.
        self.stuck = False
        #: Who was the first to use the connection; None: nobody has.
        self._owner: Owner | None = None
        self.stack = UnitsOfWork(link, test, self._wake)
        self.guard = Guard(link, test, self.stack)
        self.waits = LockWaits(
            test, self.journal, self.guard.calls, self._taken, self.guard.breaches
        )
        #: Cursors that are open: streams, and those of statements that were cancelled.
        self.cursors: set[Cursor] = set()
        #: SQLAlchemy's pool entries of this test's checkouts.
        self.entries: list[Any] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._numbers = itertools.count(1)

    @property
    def ended(self) -> bool:
        """Is the test over?"""
        return self.guard.ended

    # The life of the transaction.

    def end(self) -> None:
        """From now on nothing of the application reaches the server."""
        self.guard.ended = self.stack.dead = True
        self._wake()

    def close(self) -> list[BaseException]:
        """Undo everything. Blocks; the result says what broke the isolation."""
        self.end()
        guard = self.guard
        if guard.calls.under_way:
            self._end_calls()
        self.abandon(list(self.cursors))
        if guard.begun and guard.lost is None and self.link.is_open:
            try:
                self.link.script([f"ROLLBACK TO SAVEPOINT {GUARD}", "ROLLBACK"])
            except Exception as error:
                self._end_failed(error)
        self.stack.clear()
        for entry in self.entries:
            # A session that the test forgot would warn in some later test, when the garbage
            # collector finds it.
            if entry.in_use:
                entry.invalidate()
        return guard.breaches

    def commit(self) -> None:
        """Let everything stay that the test has done, but for what it has rolled back; to be
        called before :meth:`close`. Blocks.

        Raises:
            Exception: It cannot.
        """
        guard = self.guard
        if not guard.begun and guard.lost is None:
            return
        if guard.calls.under_way:
            raise errors.AsyncdbError("something of the test was still running a statement")
        if guard.lost is not None or not self.link.is_open:
            raise errors.AsyncdbError("the transaction of the test was lost")
        self.abandon(list(self.cursors))
        self.stack.commit([f"RELEASE SAVEPOINT {GUARD}", "COMMIT"])
        guard.begun = False

    def abandon(self, cursors: Iterable[Cursor]) -> None:
        """Close cursors that SQLAlchemy has left open.

        The garbage collector would do it at any time, and on SQLite, where closing waits for
        the statement that is running in the driver's thread, hold up the whole process.
        """
        for cursor in cursors:
            self.cursors.discard(cursor)
            if self.link.is_open:
                with contextlib.suppress(Exception):  # it goes with its transaction at last
                    self.link.host.run(cursor.abandon(), CANCEL_PATIENCE)

    def _end_calls(self) -> None:
        """Something of the test still runs a statement: end it, and say so."""
        self.guard.breaches.append(self.guard.calls.left_running(self.test))
        # Its answer could be taken for the answer to our ROLLBACK.
        self.link.end_calls()
        self.link.discard()

    def _end_failed(self, error: Exception) -> None:
        lost = not self.link.is_open or self.link.is_disconnect(error)
        if isinstance(error, TimeoutError) or lost:
            self.stuck = True
            self.guard.breaches.append(messages.teardown_stuck(self.test, PATIENCE, error))
        else:
            # The guard is gone: something ended the transaction and began another one.
            self.guard.lose(f"{BEGAN_ANOTHER}; noticed at the end of the test")
        self.link.discard()

    @contextlib.contextmanager
    def checkpoint(self) -> Iterator[None]:
        """A savepoint under all units of work that are opened meanwhile. Blocks.

        Raises:
            IsolationConflict: A unit is open.
        """
        if self.stack.top is not None:
            raise messages.checkpoint_in_a_transaction(self.test, self.stack.top.opened)
        name = f"asyncdb_{next(self._numbers)}"
        self._connect()
        begin = [] if self.guard.begun else [self.link.begin, f"SAVEPOINT {GUARD}"]
        self.link.script([*begin, *self.stack.owed(), f"SAVEPOINT {name}"])
        self.guard.begun = True
        try:
            yield
        finally:
            if not self.guard.ended and self.guard.lost is None:
                self.stack.drop()
                self.link.script([f"ROLLBACK TO SAVEPOINT {name}", f"RELEASE SAVEPOINT {name}"])
                self._wake()

    def read(self, work: Callable[[Connection], T]) -> T | None:
        """See ``View.read``."""
        guard = self.guard
        if not guard.begun or guard.lost is not None or not self.link.is_open:
            return None
        streams = any(getattr(c.__dict__["_cursor"], "server_side", False) for c in self.cursors)
        if guard.calls.under_way or self.stack.aside is not None or streams:
            return None  # the connection is not free
        with self.stack.lock, self.stack.looking() as free:
            return self.link.read(work) if free else None

    # Units of work.

    def push(self) -> Unit:
        """Open a unit on top of the stack when it is its turn."""
        from sqlalchemy.util import await_only

        unit = self._new_unit()
        while not self._try_push(unit):
            await_only(self._wait(unit))
            self.guard.check_alive("BEGIN")
        self._open(unit)
        return unit

    def push_at_once(self) -> Unit:
        """Open a unit on top of the stack, from code that cannot wait.

        Raises:
            IsolationConflict: It is another unit's turn.
        """
        unit = self._new_unit()
        with self.stack.lock:
            holder = self.stack.top
            if not self._try_push(unit):
                raise self._no_turn(unit, holder or unit, 0)
        self._open(unit)
        return unit

    def _new_unit(self) -> Unit:
        self._connect()
        return Unit(task_name(current_task()), user_places(), f"asyncdb_{next(self._numbers)}")

    def _connect(self) -> None:
        """See to it that there is a connection, once for a test: afterwards another thread may
        be at it, and what the server says to that is no sign of its end."""
        with self.stack.lock:
            if self._owner is None:
                self.link.connect()
                self._owner = Owner(None)

    def _taken(self) -> list[tuple[BackingConnection, Owner]]:
        return [] if self._owner is None else [(self.link, self._owner)]

    def _open(self, unit: Unit) -> None:
        begin = [] if self.guard.begun else [self.link.begin, f"SAVEPOINT {GUARD}"]
        self.stack.add(unit, begin)
        self.guard.begun = True

    def join(self, unit: Unit) -> None:
        """What the running task opens from now on nests in *unit*: it has used that."""
        chain = _CHAIN.get()
        if unit not in chain:
            _CHAIN.set((*(one for one in chain if one.open), unit))

    # Turns.

    def _try_push(self, unit: Unit) -> bool:
        with self.stack.lock:
            problem = self.stack.settle()
            if problem is not None:  # of a unit that the garbage collector has ended
                self.guard.breaches.append(messages.overlapping_units(self.test, problem, []))
            chain = [one for one in _CHAIN.get() if one.open]
            if self.stack.top is not None and self.stack.top not in chain:
                return False
            if self.stack.aside is not None:
                return False
            self.stack.units.append(unit)
            _CHAIN.set((*chain, unit))
            return True

    async def _wait(self, unit: Unit) -> None:
        """Wait until some unit of work has ended."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self.stack.lock:
            holder = self.stack.top
            if holder is None or self.guard.ended:
                return
            self._waiting.append(future)
        try:
            await asyncio.wait_for(future, self.turn)
        except TimeoutError:
            raise self._no_turn(unit, holder, self.turn) from None

    def _no_turn(self, unit: Unit, holder: Unit, seconds: float) -> errors.IsolationConflict:
        return messages.waited_for_turn(
            *(self.test, seconds), *(holder.task, holder.opened, unit.task, unit.opened)
        )

    def _wake(self) -> None:
        with self.stack.lock:
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            loop = future.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_resolve, future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
