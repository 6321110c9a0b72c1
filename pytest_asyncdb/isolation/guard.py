"""The guard of one test: it refuses what must not reach the server, and notices what ended the
outer transaction nevertheless.

Each error names the statement and its place in the user's code, which is looked up for the
error only. The driver's error is raised as it is, as in production; if it cost more than
its own statement, a note on it and the end of the test say so.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from pytest_asyncdb import errors
from pytest_asyncdb._record.sql_text import ends_transaction
from pytest_asyncdb._record.text import error_text, one_line
from pytest_asyncdb.isolation import messages
from pytest_asyncdb.isolation.backing_connection import BackingConnection
from pytest_asyncdb.isolation.messages import Text, here
from pytest_asyncdb.isolation.units_of_work import UnitsOfWork
from pytest_asyncdb.isolation.work import Work


class GuardedWork(Work):
    """Work in an outer transaction, which is watched.

    Args:
        backing: The kept connection.
        test: The node id, for errors.
        on_ended: Called when units of work have ended.
    """

    def __init__(self, backing: BackingConnection, test: str, on_ended: Callable[[], None]) -> None:
        super().__init__(backing.connector, test)
        self.backing = backing
        #: The units of work in the transaction.
        self.units = UnitsOfWork(backing, test, on_ended)
        #: What ended the transaction, if something did.
        self.lost: errors.AsyncdbError | None = None

    def check_before(self, statement: str) -> None:
        """Refuse what must not reach the server.

        Raises:
            IsolationBreach: The statement would end the transaction, or one did before, or
                the connection is gone.
            IsolationConflict: The test has ended, or the data are not what they would be on
                connections of their own.
        """
        self.check_open(statement)
        overlap = self.units.conflicting
        if overlap is not None and self.units.savepoints.read(statement) is None:
            if overlap not in self.breaches:
                self.breaches.append(overlap)
            raise overlap
        backend = self.backing.backend
        why = ends_transaction(statement, not backend.capabilities.transactional_ddl)
        if why is not None and self.units.savepoints.read(statement) is None:
            shown = one_line(statement, 40)
            raise self._breach(
                messages.REFUSED_STATEMENT, here(), statement=shown, label=backend.label, why=why
            )

    def check_open(self, statement: str) -> None:
        """Is there a transaction in which *statement* could run?

        Raises:
            IsolationBreach: It has ended, or the connection has.
            IsolationConflict: The test has ended.
        """
        if self.ended:  # asked here, too, since every statement comes here
            super().check_open(statement)
        if self.lost is None and self.units.begun and not self.backing.is_open:
            self.lose(messages.LOST_CONNECTION, statement)
        if self.lost is not None:
            raise self.lost

    def end_in_child(self) -> None:
        super().end_in_child()
        self.units.dead = True

    def refuse(self, what: str, why: str) -> errors.AsyncdbError:
        """The error for a call that would end the transaction; the test fails with it."""
        return self._breach(messages.REFUSED_CALL, here(), what=what, why=why)

    def check_after(self, statement: str) -> None:
        """Has the statement ended the transaction nevertheless?

        Raises:
            IsolationBreach: It has.
        """
        backing = self.backing
        if self.lost is None and backing.in_transaction() is False and backing.is_open:
            raise self.lose(messages.LOST_TRANSACTION, statement)

    def explain_failure(self, error: BaseException, statement: str) -> None:
        """After an error of the driver: has it cost more than its statement, or does only the
        outer transaction cause it?"""
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
                backing.script([backing.backend.probe])  # tells the driver
            if backing.in_transaction() is not False:
                return
            lost = messages.UNDONE_BY_SERVER
        error.add_note(str(self.lose(lost, statement, error_text(error))))

    def _breach(self, text: Text, *seen: str | list[str], **values: str) -> errors.AsyncdbError:
        error = text.of(self.test, *seen, **values)
        self.breaches.append(error)
        return error

    def lose(self, text: Text, statement: str, said: str = "") -> errors.AsyncdbError:
        """Note that *statement* ended the outer transaction; *text* says what became of it."""
        shown = f"statement: {one_line(statement)}"
        self.lost = self._breach(text, shown, here(), said, label=self.backing.backend.label)
        self.units.dead = True
        return self.lost
