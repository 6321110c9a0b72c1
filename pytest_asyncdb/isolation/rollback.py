"""The strategy ``rollback``: one outer transaction around each test, undone at its end.

The mechanism is in ``sandbox.py`` and ``outer_transaction.py``. This module has its life cycle: one
connection kept for all tests of a database, one outer transaction for each test, and what follows a
breach.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import ClassVar, TypeVar

from sqlalchemy.engine import Connection

from pytest_asyncdb._engines.host_loop import HostLoop
from pytest_asyncdb.abc import Database, View, ViewRequest
from pytest_asyncdb.isolation import messages
from pytest_asyncdb.isolation.backing_connection import BackingConnection
from pytest_asyncdb.isolation.connector import Connector
from pytest_asyncdb.isolation.outer_transaction import OuterTransaction
from pytest_asyncdb.isolation.restoring import SharedDatabaseStrategy
from pytest_asyncdb.isolation.sandbox import SandboxConnection
from pytest_asyncdb.isolation.work_view import WorkView

T = TypeVar("T")


class Rollback(SharedDatabaseStrategy):
    """Runs a test in one transaction that is rolled back."""

    name = "rollback"
    one_connection = True
    #: Seconds that a unit of work waits for the unit of another task to end.
    turn: ClassVar[float] = 10.0

    def __init__(self, database: Database, host: HostLoop) -> None:
        super().__init__(database, host)
        self._backing: BackingConnection | None = None
        #: True if the restoration was made before any sequence had moved.
        self._knows_sequences = False
        #: True behind a pooler: each transaction may be in another session, but a restorer needs
        #: its own.
        self.pooled = bool(database.server.behind_pooler)

    def view(self, request: ViewRequest) -> View:
        if request.reset_sequences and not self._database.backend.capabilities.sequences_roll_back:
            # A rollback does not reset sequences. Their start values are remembered on a new copy.
            if self.pooled or not self._knows_sequences:
                for problem in self.forget(request.test) if self._backing is not None else ():
                    raise problem
                self._knows_sequences = True
            if not self.pooled:
                self.restoration.reset_sequences()
        if self._backing is None:
            backing = BackingConnection(Connector(self._database, self._host, self._database.url))
            backing.connect()  # initialises the dialect
            self._backing = backing
            if self._database.backend.restores_whole:  # SQLite cannot be read after a write
                self.restoration  # noqa: B018
        return _RollbackView(self, self._backing, request.test)

    def close(self) -> None:
        self._knows_sequences = False
        super().close()
        if self._backing is not None:
            self._backing.discard()
            self._backing.connector.close()
            self._backing = None


class _RollbackView(WorkView):
    independent = False
    work: OuterTransaction

    def __init__(self, strategy: Rollback, backing: BackingConnection, test: str) -> None:
        self._strategy = strategy
        super().__init__(OuterTransaction(backing, test, strategy.turn), SandboxConnection)

    def checkpoint(self) -> AbstractContextManager[None]:
        return self.work.checkpoint()

    def read(self, work: Callable[[Connection], T]) -> T | None:
        return self.work.read(work)

    def watch(self) -> None:
        if not self._strategy.pooled:
            self._strategy.restoration  # noqa: B018  # create it before another connection writes
        super().watch()

    def close(self) -> Sequence[BaseException]:
        work, strategy = self.work, self._strategy
        if self.keeping:
            try:
                work.commit()
            except Exception as error:
                self.kept = error
        breaches = work.close()
        if self.keeping and self.kept is None:
            self.kept = strategy.keep()
        if self.keeping or work.lost or work.stuck or (self.watched and strategy.pooled):
            return [*breaches, *strategy.forget(work.test)]
        if self.watched:
            changed, more = strategy.put_back(work.test, sequences=False)
            breaches += more
            if changed:
                breaches.append(messages.SECOND_CONNECTION.of(work.test, messages.changed(changed)))
        return breaches
