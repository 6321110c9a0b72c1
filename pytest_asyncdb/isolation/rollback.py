"""The strategy ``rollback``: one outer transaction around each test, undone at its end.

The mechanism is in ``sandbox.py`` and ``outer_transaction.py``; here is its life: a connection
kept for all tests of a database, one outer transaction for each, and what follows a breach.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, TypeVar

from pytest_asyncdb.abc import VACUUM_EVERY, Database, View, ViewRequest
from pytest_asyncdb.isolation import messages
from pytest_asyncdb.isolation.backing_connection import BackingConnection, Connector
from pytest_asyncdb.isolation.dbapi import SandboxConnection
from pytest_asyncdb.isolation.outer_transaction import OuterTransaction
from pytest_asyncdb.isolation.restoring import SharedDatabaseStrategy
from pytest_asyncdb.isolation.sandbox import sandboxed_engine

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection, Dialect

    from pytest_asyncdb._engines.host_loop import HostLoop

T = TypeVar("T")


class Rollback(SharedDatabaseStrategy):
    """Everything of a test happens in one transaction that is rolled back."""

    name = "rollback"
    #: Seconds that a unit of work waits for another task's to end.
    turn: ClassVar[float] = 10.0
    vacuum_every: ClassVar[int] = VACUUM_EVERY

    def __init__(self, database: Database, host: HostLoop) -> None:
        super().__init__(database, host)
        self._link: BackingConnection | None = None
        self._dialect: Dialect | None = None
        #: Was the restoration made before any counter had moved?
        self._knows_ids = False
        #: How many tests have left rows that were undone.
        self._left = 0

    def view(self, request: ViewRequest) -> View:
        if request.reset_sequences and not self._database.backend.capabilities.sequences_roll_back:
            self._restart_ids(request.test)
        if self._link is None:
            connector = Connector(self._database, self._host, self._database.url)
            self._link = BackingConnection(connector)
            self._link.adapted  # noqa: B018  # the first connection initialises the dialect
            self._dialect = connector.facade_dialect(
                SandboxConnection.set_isolation_level,
                lambda branch: branch.set_isolation_level(None),
            )
        return _RollbackView(self, self._link, self._dialect, request.test)

    def tidy(self) -> None:
        """After a test: its rows, though undone, have a place in the database. Blocks."""
        statement, self._left = self._database.backend.vacuum, self._left + 1
        if statement is not None and self._left >= self.vacuum_every and self._link is not None:
            self._left = 0
            with contextlib.suppress(Exception):  # the next tests are slower
                self._link.script([statement])

    def find_others(self, test: str) -> list[BaseException]:
        """Has anybody else written to the database? It is put back; blocks."""
        changed, breaches = self.put_back(test, ids=False)
        return [*breaches, messages.second_connection(test, changed)] if changed else breaches

    def _restart_ids(self, test: str) -> None:
        """Counters go on when a transaction is undone, so they are noted on a new copy."""
        if not self._knows_ids:
            for problem in self.forget(test) if self._link is not None else ():
                raise problem
            self._knows_ids = True
        self.restoration.restart_ids()

    def close(self) -> None:
        self._knows_ids = False
        super().close()
        if self._link is not None:
            self._link.discard()
            self._link.connector.close()
            self._link = self._dialect = None


class _RollbackView(View):
    independent = False

    def __init__(
        self, strategy: Rollback, link: BackingConnection, dialect: Dialect | None, test: str
    ) -> None:
        self._strategy = strategy
        self._test = test
        self._outer = OuterTransaction(link, test, strategy.turn)
        self._watched = False
        self.engine = sandboxed_engine(self._outer, dialect)
        self.url = link.connector.url
        self.journal = self._outer.journal

    def abort(self) -> None:
        self._outer.guard.calls.abort()

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        self._outer.deferring, self._outer.keeping = True, self.keeping
        try:
            yield
        finally:
            self._outer.deferring = False

    @contextlib.contextmanager
    def checkpoint(self) -> Iterator[None]:
        with self._outer.checkpoint():
            yield

    def reference(self) -> URL:
        return self._strategy.reference()

    def read(self, work: Callable[[Connection], T]) -> T | None:
        return self._outer.read(work)

    def watch(self) -> None:
        if not self._watched:
            self._strategy.restoration  # noqa: B018  # made before anybody has written
            self._watched = True

    def close(self) -> Sequence[BaseException]:
        if self.keeping:
            return self._close_and_keep()
        breaches = self._outer.close()
        if self._outer.guard.lost is not None or self._outer.stuck:
            return [*breaches, *self._strategy.forget(self._test)]
        self._strategy.tidy()
        if self._watched:
            return [*breaches, *self._strategy.find_others(self._test)]
        return breaches

    def _close_and_keep(self) -> Sequence[BaseException]:
        try:
            self._outer.commit()
        except Exception as error:
            self.kept = error
        breaches = self._outer.close()
        if self.kept is None:
            self.kept = self._strategy.keep()
        return [*breaches, *self._strategy.forget(self._test)]
