"""The stack of a test's units of work: savepoints on one connection, opened and ended in an
order that the server can follow.

Which task may open a unit, and when, is decided in ``outer_transaction.py``; ``unit.py`` counts
what each has done.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from pytest_asyncdb._record.call_sites import user_frames
from pytest_asyncdb._record.sql_text import cannot_end_transaction, only_reads
from pytest_asyncdb.isolation import messages
from pytest_asyncdb.isolation.unit import (
    NOT_INNERMOST,
    UNDID_COMMIT,
    WORK_INSIDE,
    WROTE_MEANWHILE,
    Unit,
    savepoint_statement,
)

if TYPE_CHECKING:
    from pytest_asyncdb.isolation.backing_connection import BackingConnection

#: Around a statement of a unit that is not on top, where a failed one dooms all.
ASIDE = "asyncdb_aside"
#: Around what we read for a report.
LOOK = "asyncdb_look"


class UnitsOfWork:
    """The open units, the innermost on top.

    Args:
        link: The kept connection.
        test: The node id, for errors.
        settled: Called when units have ended.
    """

    def __init__(self, link: BackingConnection, test: str, settled: Callable[[], None]) -> None:
        self.link = link
        self.test = test
        self.units: list[Unit] = []
        #: Something was committed here that may have changed something.
        self.committed = False
        #: There is no transaction any more in which a unit could end.
        self.dead = False
        #: A unit whose statement runs below others, in a savepoint of its own: until it has
        #: ended, no unit may begin or end.
        self.aside: Unit | None = None
        self.lock = threading.RLock()
        #: Statements that end units, for which no round trip of their own is made.
        self._owed: list[str] = []
        self._settled = settled

    @property
    def top(self) -> Unit | None:
        return self.units[-1] if self.units else None

    def add(self, unit: Unit, statements: Sequence[str]) -> None:
        """Open the savepoint of *unit*, the topmost, after *statements*."""
        below = self.units[-2] if len(self.units) > 1 else None
        try:
            self._send([*statements, *self.owed(), f"SAVEPOINT {unit.savepoint}"], below)
        except BaseException:
            unit.open = False
            self.units.remove(unit)
            self._settled()
            raise

    def owed(self) -> list[str]:
        """What has to be sent before the next savepoint; it is taken as sent."""
        owed, self._owed = self._owed, []
        return owed

    def commit(self, statements: Sequence[str]) -> None:
        """End everything with *statements*: what is open is kept, as far as it has not failed.
        Blocks.

        Raises:
            Exception: The driver's own.
        """
        with self.lock:
            self.settle()
            self._send([*self.owed(), *statements], self.top)

    def clear(self) -> None:
        """Forget all: the outer transaction has ended, or is about to."""
        self.dead = True
        self.drop()

    def drop(self) -> None:
        """Forget the open units: their savepoints are undone."""
        for unit in self.units:
            unit.open = False
        self.units.clear()
        self._owed.clear()
        self.aside = None

    def savepoints(self) -> list[str]:
        """The names of all savepoints, the outermost first."""
        return [name for unit in self.units for name in unit.savepoints]

    def emptied(self) -> bool:
        """The server has undone everything, the savepoints are there again. Would
        connections of their own have kept something of it?"""
        wrote = [unit for unit in self.units if unit.wrote or unit.absorbed]
        kept = self.committed or len(wrote) > 1
        self.committed = False
        self._owed.clear()
        for unit in self.units:
            unit.forget()
        return kept

    def prepare(self, unit: Unit, statement: str, whole: bool) -> bool:
        """Make the server ready for a statement of *unit*. False: there is nothing to send.

        Args:
            whole: If it fails it has changed nothing.

        Raises:
            IsolationConflict: It cannot be had on one connection.
        """
        above = self._above(unit)
        about = savepoint_statement(statement)
        unit.plain = unit.plain and not above and cannot_end_transaction(statement)
        if about is not None and not self._prepare_savepoint(unit, *about, bool(above)):
            unit.follow(*about)
            return False
        if above and self._fails_whole:
            self._send([f"SAVEPOINT {ASIDE}"], above[-1])
            self.aside = unit
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
        if whole and not only_reads(statement):
            self._wrote(unit, self._above(unit))
        if self.aside is unit:
            self.aside = None
            if not self.dead:
                self.link.script([f"RELEASE SAVEPOINT {ASIDE}"])
            self._aside_ended()

    def undone(self, unit: Unit) -> None:
        """A statement of *unit* has failed: those above it must be able to go on."""
        unit.plain = False
        if self.aside is not unit:
            return
        self.aside = None
        if self.dead or not self.link.is_open:
            return
        release = f"RELEASE SAVEPOINT {ASIDE}"
        try:
            self.link.script([release])  # it failed in the driver, and never was sent
        except Exception:
            self.link.script([f"ROLLBACK TO SAVEPOINT {ASIDE}", release])
            unit.doomed = True
        self._aside_ended()

    def finish(self, unit: Unit, how: str) -> None:
        """End *unit* as soon as it is on top of the stack.

        Args:
            how: ``commit`` or ``rollback``.

        Raises:
            IsolationConflict: Its rollback cannot be had, or has undone more.
        """
        if self.dead or not unit.open or unit.ending is not None:
            return
        problem = None
        with self.lock:
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
            raise messages.overlapping_units(self.test, problem, user_frames())

    def settle(self) -> str | None:
        """End the units on top of the stack that wait for their end. Returns what was wrong."""
        problem = None
        with self.lock:
            settled = False
            while self.aside is None and self.units and self.units[-1].ending is not None:
                problem = self._settle_top(self.units[-1]) or problem
                settled = True
        if settled:
            self._settled()
        return problem

    @contextlib.contextmanager
    def looking(self) -> Iterator[bool]:
        """A savepoint on top of all, in which may be read; the units do not notice.

        False: it cannot be had without undoing what one unit has committed inside another.
        """
        top = self.top
        if top is not None and self._failed():
            kept = top.nested[-1].absorbed if top.nested else 0
            if top.absorbed != kept:
                yield False
                return
        self._send([f"SAVEPOINT {LOOK}"], top)
        try:
            yield True
        except BaseException:
            self.link.script([f"ROLLBACK TO SAVEPOINT {LOOK}", f"RELEASE SAVEPOINT {LOOK}"])
            raise
        self.link.script([f"RELEASE SAVEPOINT {LOOK}"])

    def _aside_ended(self) -> None:
        self.settle()
        self._settled()

    @property
    def _fails_whole(self) -> bool:
        """Does a failed statement doom all that is open?"""
        return self.link.backend.failed_transaction is not None

    def _above(self, unit: Unit) -> list[Unit]:
        if self.top is unit or unit not in self.units:
            return []
        return self.units[self.units.index(unit) + 1 :]

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
            raise messages.overlapping_units(self.test, NOT_INNERMOST, user_frames())
        if verb != "ROLLBACK" or level is None:
            return True
        if (unit.absorbed, unit.mixed) == (level.absorbed, level.mixed):
            return True
        problem = UNDID_COMMIT if unit.absorbed != level.absorbed else WROTE_MEANWHILE
        if unit.wrote != level.wrote or self._failed():
            raise messages.overlapping_units(self.test, problem, user_frames())
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
                raise messages.overlapping_units(self.test, UNDID_COMMIT, user_frames()) from error
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
            # What a COMMIT would check, it checks when nothing of another unit is open.
            check = self.link.deferred_check if len(self.units) == 1 else ()
            statements = [*check, *statements, *self._lift()]
        try:
            if not self.link.is_open or self.dead:
                return None
            try:
                if self._may_wait(unit) and statements[0] in (release, undo):
                    self._owed = statements
                else:
                    self.link.script(statements)
            except Exception as error:
                if not commit:
                    raise
                # COMMIT fails with what a deferred constraint says, and rolls a transaction
                # back in silence that has failed before.
                self.link.script([undo, release])
                code = self.link.driver.error_code(error)
                if code is None or code != self.link.backend.failed_transaction:
                    raise
                return UNDID_COMMIT if unit.absorbed else None
            self.committed |= commit and bool(unit.wrote or unit.absorbed)
        finally:
            self.units.pop()
            unit.open = False
        return None

    def _may_wait(self, unit: Unit) -> bool:
        """Is it the same whether the end of *unit*, the topmost, is sent now or before the next
        savepoint? Then it cannot fail, and on one connection nobody sees whether it is done."""
        return unit.plain and len(self.units) == 1 and not self.link.was_ended()

    def _lift(self) -> list[str]:
        """Statements that put the savepoints of units without work of their own behind what
        the top one commits, so that their rollback does not undo it."""
        lifted: list[Unit] = []
        for below in reversed(self.units[:-1]):
            if below.wrote or below.nested:
                below.absorbed += 1
                break
            below.absorbed = below.mixed = 0
            lifted.insert(0, below)
        if not lifted:
            return []
        names = [below.savepoint for below in lifted]
        return [f"RELEASE SAVEPOINT {names[0]}", *(f"SAVEPOINT {name}" for name in names)]
