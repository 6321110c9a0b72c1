"""The stack of a test's units of work: savepoints on one connection.

They are opened and ended in an order that the server can follow. ``outer_transaction.py`` decides
which task may open a unit, and when. ``unit.py`` counts what each unit has done.
docs/architecture.md shows the states of a unit.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence

from pytest_asyncdb import errors
from pytest_asyncdb._record.sql_text import cannot_end_transaction, only_reads
from pytest_asyncdb.isolation import local_settings, messages
from pytest_asyncdb.isolation.backing_connection import BackingConnection
from pytest_asyncdb.isolation.unit import Level, Unit

#: The savepoint after BEGIN. If it is gone, something has ended the outer transaction.
GUARD = "asyncdb_guard"
#: The savepoint around a statement of a unit below the top, if its failure would fail all units.
BELOW_TOP = "asyncdb_below_top"


class UnitsOfWork:
    """The open units of work. The innermost is on top.

    Args:
        backing: The kept connection.
        test: The node id, for errors.
        on_ended: Called when units have ended.
    """

    def __init__(self, backing: BackingConnection, test: str, on_ended: Callable[[], None]) -> None:
        self.backing = backing
        self.test = test
        self.units: list[Unit] = []
        #: True after the outer transaction has begun.
        self.begun = False
        #: True if there is no longer a transaction in which a unit could end.
        self.dead = False
        #: The unit below the top that is running a statement, in a savepoint of its own. Until the
        #: statement has ended, no unit may begin or end.
        self.below_top: Unit | None = None
        #: Statements that check what COMMIT would check. A test may create such constraints.
        self.deferred_check: tuple[str, ...] = ()
        #: The error to raise if the data are not what they would be on separate connections.
        self.overlap: errors.AsyncdbError | None = None
        self.lock = threading.RLock()
        self.savepoints = backing.connector.savepoints
        #: Statements that end units. They are sent with the next savepoint.
        self._pending: list[str] = []
        self._on_ended = on_ended
        #: True if after a failed statement everything fails until a rollback (PostgreSQL).
        self.fails_whole = backing.backend.failed_transaction is not None

    @property
    def top(self) -> Unit | None:
        return self.units[-1] if self.units else None

    def conflict(self, problem: str) -> errors.AsyncdbError:
        """Return the error for units that one connection cannot keep apart."""
        one_writer = self.backing.backend.begin_at_write is not None
        text = messages.OVERLAPPING_WRITERS if one_writer else messages.OVERLAPPING_UNITS
        return text.of(self.test, messages.here(), problem=problem)

    @property
    def conflicting(self) -> errors.AsyncdbError | None:
        """The error for the next statement, if it would see other data than on separate
        connections."""
        if self.overlap is None:
            for unit in self.units:
                if unit.late is not None:
                    return unit.late
        return self.overlap

    def note(self, problem: str | None) -> None:
        """Note that the data are not what they would be on separate connections. The next statement
        that could see it fails. If there is none, the rollback of the test undoes everything."""
        if problem is not None and self.overlap is None:
            self.overlap = self.conflict(problem)

    # The whole stack.

    def open_savepoint(self, name: str, below: Unit | None = None) -> None:
        """Open a savepoint above the unit *below*. The first savepoint begins the outer
        transaction."""
        begin: list[str] = []
        with self.lock:
            if not self.begun:
                # Only now, because later another thread may use the connection. The server's
                # answers to that thread would look as if the server had ended the connection.
                self.backing.connect()
                self.deferred_check = self.backing.deferred_check
                begin = [self.backing.begin, *self.savepoints.open(GUARD)]
            self._send([*begin, *self._take_pending(), *self.savepoints.open(name)], below)
            self.begun = True

    def add(self, unit: Unit) -> None:
        """Open the savepoint of *unit*, which is the topmost."""
        below = self.units[-2] if len(self.units) > 1 else None
        try:
            self.open_savepoint(unit.savepoint, below)
            hidden = {name: one for one in reversed(self.units[:-1]) for name in one.settings}
            if hidden or unit.read_only:
                self.backing.script(local_settings.begin(self.backing.backend, unit, hidden))
        except BaseException:
            unit.open = False
            self.units.remove(unit)
            self._on_ended()
            raise

    def _take_pending(self) -> list[str]:
        pending, self._pending = self._pending, []
        return pending

    def commit(self) -> None:
        """Commit the outer transaction, with the work of open units that have not failed. Blocks.

        Raises:
            Exception: The driver's own.
        """
        with self.lock:
            self.settle()
            end = [*self.savepoints.release(GUARD), "COMMIT"]
            self._send([*self._take_pending(), *end], self.top)
            self.begun = False

    def drop(self) -> None:
        """Forget the open units. The caller undoes their savepoints."""
        for unit in self.units:
            unit.open = False
        self.units.clear()
        self._pending.clear()
        self.below_top = self.overlap = None

    def can_nest(self) -> bool:
        """Return whether a unit can be opened on top. It cannot if the top one has failed and going
        back would undo what another unit has committed inside of it."""
        top = self.top
        return (
            top is None or top.inner_commits == top.levels[-1].inner_commits or not self._failed()
        )

    # A statement of a unit.

    def prepare(self, unit: Unit, statement: str, whole: bool) -> bool:
        """Prepare the server for a statement of *unit*. Return False if there is nothing to send.

        Args:
            whole: True if the statement has changed nothing when it fails.

        Raises:
            IsolationConflict: One connection cannot do it.
        """
        above = self._above(unit)
        about = self.savepoints.read_own(statement)
        unit.batchable = unit.batchable and not above and cannot_end_transaction(statement)
        if about is not None and not self._prepare_savepoint(unit, *about, bool(above)):
            unit.follow(*about)
            return False
        if above and self.fails_whole:
            self._send(self.savepoints.open(BELOW_TOP), above[-1])
            self.below_top = unit
        if unit.must_roll_back and (about is None or about[0] != "rollback"):
            with contextlib.suppress(Exception):
                self.backing.script(["SELECT 1 / 0"])  # fail again, as on its own connection
            unit.must_roll_back = bool(above)
        if about is None and not whole and not only_reads(statement):
            self._wrote(unit, above)
        return True

    def succeeded(self, unit: Unit, statement: str, whole: bool) -> None:
        """Note what a successful statement of *unit* has done."""
        if (about := self.savepoints.read_own(statement)) is not None:
            unit.follow(*about)
        elif whole and not only_reads(statement):
            self._wrote(unit, self._above(unit))
        if not unit.batchable:
            backend = self.backing.backend
            unit.at_commit += backend.at_commit(statement)
            if "defer" in statement.lower():
                self.deferred_check = (*backend.deferred_prepare, *backend.deferred_check)
        if self.below_top is unit:
            try:
                if not self.dead:
                    self.backing.script(self.savepoints.release(BELOW_TOP))
            finally:
                self._continue_above()

    def failed(self, unit: Unit) -> None:
        """Undo a failed statement of *unit*, so that the units above it can go on."""
        unit.batchable = False
        if self.below_top is unit:
            try:
                if not self.dead and self.backing.is_open:
                    self._undo_below_top(unit)
            finally:
                self._continue_above()

    def _undo_below_top(self, unit: Unit) -> None:
        release = self.savepoints.release(BELOW_TOP)
        try:
            self.backing.script(release)  # works if the driver never sent the statement
        except Exception:
            self.backing.script(self.savepoints.undo(BELOW_TOP) + release)
            unit.must_roll_back = True

    def _continue_above(self) -> None:
        self.below_top = None
        try:
            self.settle()
        finally:
            self._on_ended()

    def _above(self, unit: Unit) -> list[Unit]:
        units = self.units
        if not units or units[-1] is unit or unit not in units:
            return []
        return units[units.index(unit) + 1 :]

    def _wrote(self, unit: Unit, above: Sequence[Unit]) -> None:
        unit.wrote += 1
        for one in above:
            one.outer_writes += 1

    def _prepare_savepoint(self, unit: Unit, verb: str, name: str, covered: bool) -> bool:
        """Return whether to send a statement about a savepoint.

        Args:
            covered: True if there are units above.
        """
        level = unit.level(name)
        if covered:
            if verb == "savepoint":
                raise self.conflict(messages.NOT_INNERMOST)
            # RELEASE would also release the units above. The savepoint ends with its unit.
            if verb == "rollback" or unit.must_roll_back:
                self.note(messages.NOT_INNERMOST)
            return False
        if verb != "rollback" or level is None:
            return True
        lost = _undone_with(unit, level)
        if lost is None:
            return True
        if unit.wrote == level.wrote and not self._failed():
            return False  # the unit wrote nothing itself; the work inside stays
        self.note(lost)
        return True

    def _failed(self) -> bool:
        """Return whether the server refuses everything but a rollback."""
        if not self.fails_whole:
            return False
        savepoints = self.savepoints
        try:
            self.backing.script([*savepoints.open(BELOW_TOP), *savepoints.release(BELOW_TOP)])
        except Exception:
            return True
        return False

    def _is_failed_transaction(self, error: Exception) -> bool:
        code = self.backing.driver.error_code(error)
        return code is not None and code == self.backing.backend.failed_transaction

    def _send(self, statements: Sequence[str], top: Unit | None) -> None:
        """Run statements of the plugin, even if a statement of *top* has failed before."""
        try:
            self.backing.script(statements)
        except Exception as error:
            if top is None or not self._is_failed_transaction(error):
                raise
            level = top.levels[-1]
            self.backing.script(self.savepoints.undo(level.name))
            self.note(lost := _undone_with(top, level))
            top.return_to(level)
            top.must_roll_back = True
            if lost is not None:
                raise self.conflict(lost) from error
            self.backing.script(statements)

    # The end of a unit.

    def finish(self, unit: Unit, how: str) -> None:
        """End *unit* as soon as it is on top of the stack.

        Args:
            how: ``commit`` or ``rollback``.
        """
        if self.dead or not unit.open or unit.ending is not None:
            return
        with self.lock:
            unit.ending = self._decide(unit, how)
            self.settle()

    def settle(self) -> None:
        """End the units on top of the stack that are waiting to end."""
        with self.lock:
            ended = False
            while self.below_top is None and self.units and self.units[-1].ending is not None:
                self.note(self._settle_top(self.units[-1]))
                ended = True
        if ended:
            self._on_ended()

    def _decide(self, unit: Unit, how: str) -> str:
        """Return how *unit* will end when it is on top."""
        above = self._above(unit)
        if how == "commit" and not unit.must_roll_back:
            return "rollback" if unit.read_only and not above else "commit"
        if not unit.wrote and (unit.inner_commits or unit.outer_writes or above):
            return "commit"  # the unit wrote nothing itself; the work inside stays
        if any(one.has_work for one in above):
            unit.late = self.conflict(messages.WORK_INSIDE)
        elif above:
            self.note(self._undone_too(unit))
            self._undo_below(unit, above)
            return "commit"
        return "rollback"

    def _undone_too(self, unit: Unit) -> str | None:
        """Return what the rollback of *unit* undoes besides its own work."""
        if unit.outer_writes:
            return messages.WROTE_MEANWHILE
        return messages.UNDID_COMMIT if unit.inner_commits else None

    def _undo_below(self, unit: Unit, above: Sequence[Unit]) -> None:
        """Roll *unit* back while the units above it have done nothing yet."""
        self._send(self.savepoints.open(BELOW_TOP), above[-1])
        names = [level.name for one in above for level in one.levels]
        self.backing.script([*self.savepoints.undo(unit.savepoint), *self.savepoints.open(*names)])
        unit.forget()
        for one in above:
            one.outer_writes = 0

    def _settle_top(self, unit: Unit) -> str | None:
        """End *unit*, the topmost. Return what that undoes besides its own work."""
        release = self.savepoints.release(unit.savepoint)
        undo = [*self.savepoints.undo(unit.savepoint), *release]
        commit = unit.ending == "commit"
        statements = release if commit else undo
        if commit and unit.has_work:
            # Deferred constraints are checked only if no other unit is open.
            check = self.deferred_check if len(self.units) == 1 else ()
            statements = [*check, *release, *self._reorder_below()]
        if commit:
            statements += unit.at_commit + local_settings.put_back(self.backing.backend, unit)
        try:
            if self.dead or not self.backing.is_open:
                return None
            if self._can_be_pending(unit, statements):
                self._pending = statements
            else:
                self.backing.script(statements)
        except Exception as error:
            if not commit:
                raise
            # As COMMIT does: a violated deferred constraint is an error, and a transaction that has
            # failed before is rolled back silently.
            self.backing.script(undo)
            if not self._is_failed_transaction(error):
                raise
            return messages.UNDID_COMMIT if unit.inner_commits else None
        finally:
            self.units.pop()
            unit.open = False
        return None if commit else self._undone_too(unit)

    def _can_be_pending(self, unit: Unit, statements: Sequence[str]) -> bool:
        """Return whether the end of *unit*, the topmost, may be sent with the next savepoint: it
        cannot fail, and no other unit on the connection sees the difference."""
        alone = unit.batchable and len(self.units) == 1
        checked = not {*statements[:1]}.isdisjoint(self.deferred_check)
        return alone and not checked and not self.backing.was_ended()

    def _reorder_below(self) -> list[str]:
        """Return statements that re-open the savepoints below, of units without own work, above
        what the top unit commits. Then their rollback does not undo it."""
        moved: list[Unit] = []
        for below in reversed(self.units[:-1]):
            if below.wrote or len(below.levels) > 1:
                below.inner_commits += 1
                break
            below.inner_commits = below.outer_writes = 0
            moved.insert(0, below)
        if not moved:
            return []
        names = [below.savepoint for below in moved]
        return [*self.savepoints.release(names[0]), *self.savepoints.open(*names)]


def _undone_with(unit: Unit, level: Level) -> str | None:
    """Return what a rollback of *unit* to *level* undoes besides the unit's own work."""
    if unit.inner_commits != level.inner_commits:
        return messages.UNDID_COMMIT
    return messages.WROTE_MEANWHILE if unit.outer_writes != level.outer_writes else None
