"""The outer transaction of a test, and the units of work that nest in it.

Each unit of work is a savepoint, opened at its first statement; commit releases it, rollback
goes back to it. Units stack: one that is opened in the context of an open unit (the same
task, or a child of it) nests in it, another one waits for its turn. Where two are ended in
an order that savepoints cannot express, the bookkeeping in ``_units.py`` finds it.

Nothing here knows drivers or backends beyond their data; ``_link.py`` holds the real
connection, ``_dbapi.py`` is what SQLAlchemy sees.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import threading
from typing import TYPE_CHECKING, Any

from pytest_asyncdb import errors
from pytest_asyncdb.isolation._frames import user_frames
from pytest_asyncdb.isolation._link import PATIENCE
from pytest_asyncdb.isolation._statements import ends_transaction, only_reads
from pytest_asyncdb.isolation._units import (
    NOT_INNERMOST,
    UNDID_COMMIT,
    WORK_INSIDE,
    WROTE_MEANWHILE,
    Unit,
    savepoint_statement,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_asyncdb.isolation._link import Link

#: The units that this context has opened or used, outermost first.
_CHAIN: contextvars.ContextVar[tuple[Unit, ...]] = contextvars.ContextVar(
    "asyncdb_chain", default=()
)

#: The savepoint right behind BEGIN: where it is gone, something ended the transaction.
GUARD = "asyncdb_guard"

#: Around a statement of a unit that is not on top, where a failed one dooms all.
ASIDE = "asyncdb_aside"


class OuterTransaction:
    """The transaction around one test: begun at its first statement, undone at its end.

    Args:
        link: The kept connection.
        test: The node id, for errors.
        turn: Seconds that a unit of work waits for another one to end.
    """

    def __init__(self, link: Link, test: str, turn: float) -> None:
        self.link = link
        self.test = test
        self.turn = turn
        self.begun = False
        self.ended = False
        #: The statement that ended the transaction, if one did.
        self.lost: str | None = None
        #: The rollback did not go through.
        self.stuck = False
        self.breaches: list[BaseException] = []
        #: Calls under way, with the names of the tasks that made them.
        self.calls: dict[object, str] = {}
        self.stack: list[Unit] = []
        #: SQLAlchemy's pool entries of this test's checkouts.
        self.entries: list[Any] = []
        self._lock = threading.RLock()
        self._waiting: list[asyncio.Future[None]] = []
        self._numbers = itertools.count(1)

    # The life of the transaction.

    def end(self) -> None:
        """From now on nothing of the application reaches the server."""
        self.ended = True
        self._wake()

    def close(self) -> list[BaseException]:
        """Undo everything. Blocks; the result says what broke the isolation."""
        self.end()
        if self.calls:
            self._end_calls()
        if self.begun and self.lost is None and self.link.is_open:
            try:
                self.link.script([f"ROLLBACK TO SAVEPOINT {GUARD}", "ROLLBACK"])
            except Exception as error:
                self._end_failed(error)
        for unit in self.stack:
            unit.open = False
        self.stack.clear()
        for entry in self.entries:
            # A session that the test forgot would warn in some later test, when the garbage
            # collector finds it.
            if entry.in_use:
                entry.invalidate()
        return self.breaches

    def _end_calls(self) -> None:
        """Something of the test still runs a statement: end it, and say so."""
        self.breaches.append(errors.left_running(self.test, sorted(set(self.calls.values()))))
        # Its answer could be taken for the answer to our ROLLBACK.
        self.link.end_calls()
        self.link.discard()

    def _end_failed(self, error: Exception) -> None:
        if isinstance(error, TimeoutError) or not self.link.is_open:
            self.stuck = True
            self.breaches.append(errors.teardown_stuck(self.test, PATIENCE, error))
        else:
            # The guard is gone: something ended the transaction and began another one.
            self.lose("not known; a transaction was begun after the one of the test")
        self.link.discard()

    def lose(self, statement: str) -> errors.IsolationBreach:
        """Note that *statement* ended the outer transaction."""
        self.lost = statement
        error = errors.lost_transaction(self.test, statement, self.link.backend.label)
        self.breaches.append(error)
        return error

    # Statements of the application.

    def check_before(self, statement: str) -> None:
        """Refuse what must not reach the server.

        Raises:
            IsolationBreach: The statement would end the transaction, or one did before.
            IsolationConflict: The test has ended.
        """
        if self.ended:
            raise errors.after_the_test(self.test)
        if self.lost is not None:
            raise errors.lost_transaction(self.test, self.lost, self.link.backend.label)
        backend = self.link.backend
        why = ends_transaction(statement, not backend.capabilities.transactional_ddl)
        if why is not None:
            error = errors.refused_statement(statement, backend.label, self.test, why)
            self.breaches.append(error)
            raise error

    def check_after(self, statement: str) -> None:
        """Has the statement ended the transaction all the same?

        Raises:
            IsolationBreach: It has.
        """
        if self.lost is None and self.link.is_open and self.link.in_transaction() is False:
            raise self.lose(statement)

    def failed(self, error: BaseException) -> None:
        """After an error of the driver: rebuild what a deadlock has taken away."""
        code = self.link.driver.error_code(error)
        if code not in self.link.backend.transaction_ending_errors:
            return
        statements = [self.link.begin, f"SAVEPOINT {GUARD}"]
        for unit in self.stack:
            statements += [f"SAVEPOINT {name}" for name in unit.savepoints]
        self.link.script(statements)
        error.add_note(
            "asyncdb: the server undid the test's whole outer transaction, with what the test"
            ' had committed before. To keep that: @pytest.mark.asyncdb(isolation="reset")'
        )

    # Units of work.

    def push(self, task: str) -> Unit:
        """Open a unit on top of the stack when it is its turn."""
        from sqlalchemy.util import await_only

        opened = user_frames()
        unit = Unit(task, opened, f"asyncdb_{next(self._numbers)}")
        while not self._try_push(unit):
            await_only(self._wait(unit))
        statements = [f"SAVEPOINT {unit.savepoint}"]
        if not self.begun:
            self.link.adapted  # noqa: B018  # connected before the first statement
            statements = [self.link.begin, f"SAVEPOINT {GUARD}", *statements]
        try:
            self._send(statements, self.stack[-2] if len(self.stack) > 1 else None)
        except BaseException:
            unit.open = False
            self.stack.remove(unit)
            self._wake()
            raise
        self.begun = True
        return unit

    def join(self, unit: Unit) -> None:
        """What the running task opens from now on nests in *unit*: it has used that."""
        chain = _CHAIN.get()
        if unit not in chain:
            _CHAIN.set((*(one for one in chain if one.open), unit))

    def prepare(self, unit: Unit, statement: str, whole: bool) -> bool:
        """Make the server ready for a statement of *unit*. False: there is nothing to send.

        Args:
            whole: If it fails it has changed nothing.

        Raises:
            IsolationConflict: It cannot be had on one connection.
        """
        above = self._above(unit)
        about = savepoint_statement(statement)
        if about is not None and not self._prepare_savepoint(unit, *about, bool(above)):
            unit.follow(*about)
            return False
        if above and self._fails_whole:
            self._send([f"SAVEPOINT {ASIDE}"], above[-1])
        if unit.doomed and (about is None or about[0] != "ROLLBACK"):
            with contextlib.suppress(Exception):
                self.link.script(["SELECT 1 / 0"])  # it has failed, and goes on failing
            unit.doomed = bool(above)
        if not whole and not only_reads(statement):
            self._wrote(unit, above)
        return True

    def done(self, unit: Unit, statement: str, whole: bool) -> None:
        """Note what a statement of *unit* has done."""
        about = savepoint_statement(statement)
        if about is not None:
            unit.follow(*about)
        above = self._above(unit)
        if above and self._fails_whole:
            self.link.script([f"RELEASE SAVEPOINT {ASIDE}"])
        if whole and not only_reads(statement):
            self._wrote(unit, above)

    def undone(self, unit: Unit) -> None:
        """A statement of *unit* has failed: those above it must be able to go on."""
        if not self._above(unit) or not self._fails_whole or not self.link.is_open:
            return
        release = f"RELEASE SAVEPOINT {ASIDE}"
        try:
            self.link.script([release])  # it failed in the driver, and never was sent
        except Exception:
            self.link.script([f"ROLLBACK TO SAVEPOINT {ASIDE}", release])
            unit.doomed = True

    def finish(self, unit: Unit, how: str) -> None:
        """End *unit* as soon as it is on top of the stack.

        Args:
            how: ``commit`` or ``rollback``.

        Raises:
            IsolationConflict: Its rollback cannot be had, or has undone more.
        """
        if self.ended or self.lost is not None or not unit.open or unit.ending is not None:
            return
        problem = None
        with self._lock:
            above = self._above(unit)
            if unit.doomed:
                how = "rollback"
            if how == "rollback" and not unit.wrote and (unit.absorbed or unit.mixed or above):
                how = "commit"  # nothing of its own to undo; what is inside stays
            elif how == "rollback":
                if any(one.wrote or one.absorbed for one in above):
                    problem, how = WORK_INSIDE, "commit"
                elif unit.mixed:
                    problem = WROTE_MEANWHILE
                elif unit.absorbed:
                    problem = UNDID_COMMIT
                if how == "rollback" and above:
                    self._undo_below(unit, above)
                    how = "commit"
            unit.ending = how
            problem = self.settle() or problem
        if problem is not None:
            raise errors.overlapping_units(self.test, problem)

    def settle(self) -> str | None:
        """End the units on top of the stack that wait for their end. Returns what was wrong."""
        problem = None
        with self._lock:
            settled = False
            while self.stack and self.stack[-1].ending is not None:
                problem = self._settle_top(self.stack[-1]) or problem
                settled = True
        if settled:
            self._wake()
        return problem

    @property
    def _fails_whole(self) -> bool:
        """Does a failed statement doom all that is open?"""
        return self.link.backend.failed_transaction is not None

    def _above(self, unit: Unit) -> list[Unit]:
        if not self.stack or self.stack[-1] is unit or unit not in self.stack:
            return []
        return self.stack[self.stack.index(unit) + 1 :]

    def _wrote(self, unit: Unit, above: Sequence[Unit]) -> None:
        unit.wrote += 1
        for one in above:
            one.mixed += 1

    def _prepare_savepoint(self, unit: Unit, verb: str, name: str, covered: bool) -> bool:
        """Is a statement about a savepoint to be sent?

        Args:
            covered: There are units above.
        """
        level = unit.level(name)
        if covered:
            if verb == "RELEASE" and not unit.doomed:
                return False  # it would release those above; it ends with its unit
            raise errors.overlapping_units(self.test, NOT_INNERMOST)
        if verb != "ROLLBACK" or level is None:
            return True
        if (unit.absorbed, unit.mixed) == (level.absorbed, level.mixed):
            return True
        problem = UNDID_COMMIT if unit.absorbed != level.absorbed else WROTE_MEANWHILE
        if unit.wrote != level.wrote or self._failed():
            raise errors.overlapping_units(self.test, problem)
        return False  # nothing of its own to undo; what is inside stays

    def _failed(self) -> bool:
        """Does the server refuse everything but a rollback?"""
        if not self._fails_whole:
            return False
        try:
            self.link.script([f"SAVEPOINT {ASIDE}", f"RELEASE SAVEPOINT {ASIDE}"])
        except Exception:
            return True
        return False

    def _send(self, statements: Sequence[str], top: Unit | None) -> None:
        """Run statements of ours, also where a statement of *top* has failed before."""
        try:
            self.link.script(statements)
        except Exception as error:
            code = self.link.driver.error_code(error)
            if top is None or not self._fails_whole or code != self.link.backend.failed_transaction:
                raise
            self.link.script([f"ROLLBACK TO SAVEPOINT {top.savepoints[-1]}"])
            undone = top.nested[-1] if top.nested else Unit("", (), "")
            lost = top.absorbed != undone.absorbed
            top.wrote, top.absorbed, top.mixed = undone.wrote, undone.absorbed, undone.mixed
            top.doomed = True
            if lost:
                raise errors.overlapping_units(self.test, UNDID_COMMIT) from error
            self.link.script(statements)

    def _undo_below(self, unit: Unit, above: Sequence[Unit]) -> None:
        """Roll *unit* back under units that have done nothing yet."""
        self._send([f"SAVEPOINT {ASIDE}"], above[-1])
        names = [name for one in above for name in one.savepoints]
        self.link.script(
            [f"ROLLBACK TO SAVEPOINT {unit.savepoint}", *(f"SAVEPOINT {name}" for name in names)]
        )
        unit.wrote = unit.absorbed = unit.mixed = 0
        unit.nested.clear()
        for one in above:
            one.mixed = 0

    def _settle_top(self, unit: Unit) -> str | None:
        release = f"RELEASE SAVEPOINT {unit.savepoint}"
        undo = f"ROLLBACK TO SAVEPOINT {unit.savepoint}"
        commit = unit.ending == "commit"
        statements = [release] if commit else [undo, release]
        if commit and (unit.wrote or unit.absorbed):
            statements += self._lift()
        try:
            if not self.link.is_open or self.lost is not None:
                return None
            try:
                self.link.script(statements)
            except Exception:
                if not commit:
                    raise
                # A failed transaction: COMMIT would roll it back, so this does too.
                self.link.script([undo, release])
                return UNDID_COMMIT if unit.absorbed else None
        finally:
            self.stack.pop()
            unit.open = False
        return None

    def _lift(self) -> list[str]:
        """Statements that put the savepoints of units without work of their own behind what
        the top one commits, so that their rollback does not undo it."""
        lifted: list[Unit] = []
        for below in reversed(self.stack[:-1]):
            if below.wrote or below.nested:
                below.absorbed += 1
                break
            below.absorbed = below.mixed = 0
            lifted.insert(0, below)
        if not lifted:
            return []
        names = [below.savepoint for below in lifted]
        return [f"RELEASE SAVEPOINT {names[0]}", *(f"SAVEPOINT {name}" for name in names)]

    # Turns.

    def _try_push(self, unit: Unit) -> bool:
        with self._lock:
            self.settle()
            chain = [one for one in _CHAIN.get() if one.open]
            if self.stack and self.stack[-1] not in chain:
                return False
            self.stack.append(unit)
            _CHAIN.set((*chain, unit))
            return True

    async def _wait(self, unit: Unit) -> None:
        """Wait until some unit of work has ended."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if not self.stack or self.ended:
                return
            holder = self.stack[-1]
            self._waiting.append(future)
        try:
            await asyncio.wait_for(future, self.turn)
        except TimeoutError:
            raise errors.waited_for_turn(
                *(self.test, self.turn),
                *(holder.task, holder.opened, unit.task, unit.opened),
            ) from None

    def _wake(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            loop = future.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_resolve, future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
