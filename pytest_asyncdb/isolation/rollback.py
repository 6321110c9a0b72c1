"""The strategy ``rollback``: one outer transaction around each test, undone at its end.

The mechanism is in ``_sandbox.py`` and ``_outer.py``; here is its life: a connection kept for
all tests of a database, one outer transaction for each, and what follows from a breach.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from pytest_asyncdb import errors
from pytest_asyncdb.abc import Database, Isolation, View
from pytest_asyncdb.isolation._dbapi import Branch
from pytest_asyncdb.isolation._link import Link
from pytest_asyncdb.isolation._outer import OuterTransaction
from pytest_asyncdb.isolation._sandbox import sandboxed_engine

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from pytest_asyncdb._loops import HostLoop


class Rollback(Isolation):
    """Everything of a test happens in one transaction that is rolled back."""

    name = "rollback"
    #: Seconds that a unit of work waits for another task's to end.
    turn: ClassVar[float] = 10.0

    def __init__(self, database: Database, host: HostLoop) -> None:
        self._database = database
        self._host = host
        self._link: Link | None = None
        self._dialect: Dialect | None = None

    def view(self, test: str) -> View:
        if self._link is None:
            self._link = Link(self._database, self._host)
            self._dialect = self._link.facade_dialect(
                Branch.set_isolation_level, lambda branch: branch.set_isolation_level(None)
            )
        return _RollbackView(self, self._link, self._dialect, test)

    def forget(self) -> None:
        """The database holds what it should not: the next test gets a new one."""
        self.close()
        self._database.discard()

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = self._dialect = None


class _RollbackView(View):
    def __init__(self, strategy: Rollback, link: Link, dialect: Dialect | None, test: str) -> None:
        self._strategy = strategy
        self._test = test
        self._outer = OuterTransaction(link, test, strategy.turn)
        self.engine = sandboxed_engine(self._outer, dialect)
        self.url = link.url

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        self._outer.deferring = True
        try:
            yield
        finally:
            self._outer.deferring = False

    def close(self) -> Sequence[BaseException]:
        breaches = self._outer.close()
        if self._outer.guard.lost is not None or self._outer.stuck:
            try:
                self._strategy.forget()
            except Exception as error:
                breaches.append(errors.not_dropped(self._test, self.url.database or "", error))
        return breaches
