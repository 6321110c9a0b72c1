"""What ``reset`` and ``copy`` have in common: a test on real connections of its database.

What becomes of the database after the test is the strategies' business.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_asyncdb._engines.host_loop import CANCEL_PATIENCE
from pytest_asyncdb._record.call_sites import user_frames
from pytest_asyncdb._record.statement_log import StatementLog
from pytest_asyncdb.abc import View
from pytest_asyncdb.isolation import messages
from pytest_asyncdb.isolation.backing_connection import PATIENCE, BackingConnection
from pytest_asyncdb.isolation.guard import Calls
from pytest_asyncdb.isolation.lock_waits import LockWaits, Owner

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from pytest_asyncdb.isolation.dbapi import Cursor
    from pytest_asyncdb.isolation.direct_pool import DirectPool
    from pytest_asyncdb.isolation.restoring import Restoration

#: Seconds that what we read for a report waits for a lock of the test.
_LOCK_PATIENCE = 1.0

T = TypeVar("T")


class DirectWork:
    """What one test does on its connections."""

    def __init__(self, connections: DirectPool, test: str) -> None:
        self.test = test
        self.journal = StatementLog(connections.connector.hide_parameters)
        self.host = connections.connector.host
        self.begin_at_write = connections.connector.backend.begin_at_write
        self.ended = False
        #: Transactions that are ended now are undone by :meth:`close`.
        self.deferring = False
        self.breaches: list[BaseException] = []
        self.calls = Calls()
        #: Cursors that are open: streams, and those of statements that were cancelled.
        self.cursors: set[Cursor] = set()
        #: SQLAlchemy's pool entries of this test's checkouts.
        self.entries: list[Any] = []
        #: Connections with a transaction that nobody has ended.
        self.unfinished: list[BackingConnection] = []
        self._connections = connections
        self._taken: dict[BackingConnection, Owner] = {}
        self.waits = LockWaits(test, self.journal, self.calls, self._taken.items, self.breaches)
        self._spoiled: list[BackingConnection] = []
        self._attending: Callable[[], None] | None = None

    def check_open(self) -> None:
        """Refuse what comes after the test.

        Raises:
            IsolationConflict: The test has ended.
        """
        if self.ended:
            raise messages.after_the_test(self.test, user_frames())

    def take(self, checkout: int) -> BackingConnection:
        """A connection for a checkout; opened without holding up the caller's loop."""
        self.check_open()
        link = self._connections.take()
        self._taken[link] = Owner(checkout)
        if not link.is_open:
            import greenlet

            current = greenlet.getcurrent()
            link.open(wait=not getattr(current, "__sqlalchemy_greenlet_provider__", False))
        return link

    def give_back(self, link: BackingConnection, spoiled: bool) -> None:
        """A checkout has ended. Never blocks: a finalizer may call it."""
        if spoiled or self.ended:
            self._spoiled.append(link)
        elif link in self._taken and link not in self.unfinished:
            del self._taken[link]
            self._connections.keep([link])

    def attend(self) -> None:
        """Let what servers send by themselves arrive while the running loop waits."""
        if self._attending is None and asyncio._get_running_loop() is not None:
            self._attending = self.host.attend(asyncio.get_running_loop())

    def abandon(self, cursors: Iterable[Cursor]) -> None:
        """Close cursors that SQLAlchemy has left open; see ``OuterTransaction.abandon``."""
        for cursor in cursors:
            self.cursors.discard(cursor)
            with contextlib.suppress(Exception):  # it goes with its connection at last
                self.host.run(cursor.abandon(), CANCEL_PATIENCE)

    def close(self, keeping: bool = False) -> list[BaseException]:
        """End everything that the test has left open. Blocks; bounded in time.

        Args:
            keeping: What the test has not ended is committed, as far as the server can.
        """
        self.ended = True
        if keeping and not self.calls.under_way:
            for link in self._taken:
                if link.is_open and link.in_transaction() is not False:
                    with contextlib.suppress(Exception):  # undone below
                        link.commit(CANCEL_PATIENCE)
        if self._attending is not None:
            self._attending()
        if self.calls.under_way:
            self.breaches.append(self.calls.left_running(self.test))
            with contextlib.suppress(Exception):  # what does not end is closed below
                self.host.run(self.host.end_parked(), PATIENCE)
            self._spoiled += self._taken
        self.abandon(list(self.cursors))
        for entry in self.entries:
            # A session that the test forgot would warn in some later test, when the garbage
            # collector finds it.
            if entry.in_use:
                entry.invalidate()
        for link in self._spoiled:
            if link in self._taken:
                del self._taken[link]
            self._undo(link)  # else the server may still be at it when we look
            link.discard()
        self.undo_open()
        self._connections.keep(self._taken)
        self._taken.clear()
        self._spoiled = []
        return self.breaches

    def writer(self) -> BackingConnection | None:
        """On SQLite the connection that has written and not committed: nobody else can read."""
        if self.begin_at_write is None:
            return None
        return next((one for one in self._taken if one.is_open and one.in_transaction()), None)

    def undo_open(self) -> None:
        """Roll back what nobody has ended. Blocks."""
        for link in self._taken:
            self._undo(link)

    def _undo(self, link: BackingConnection) -> None:
        if link.is_open and link.in_transaction() is not False:
            with contextlib.suppress(Exception):  # keep() sees that it is not over
                link.rollback(CANCEL_PATIENCE)


class DirectView(View):
    """What a test sees of a database on which its connections are real ones."""

    independent = True
    #: Counters begin anew with each test.
    ids = True

    def __init__(self, connections: DirectPool, test: str) -> None:
        self._connections = connections
        self._work = DirectWork(connections, test)
        self.engine = connections.engine(self._work)
        self.url = connections.connector.url
        self.journal = self._work.journal

    def abort(self) -> None:
        self._work.calls.abort()

    @property
    @abc.abstractmethod
    def restoration(self) -> Restoration:
        """Puts the database back."""

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        self._work.deferring = True
        try:
            yield
        finally:
            self._work.deferring = False

    def read(self, work: Callable[[Connection], T]) -> T | None:
        if (writer := self._work.writer()) is not None:
            return None if self._work.calls.under_way else writer.read(work)
        link = self._connections.take()
        try:
            link.connect()
            link.script(link.backend.lock_timeout(_LOCK_PATIENCE))
            return link.read(work)
        finally:
            link.discard()  # its lock_timeout is not the test's

    @contextlib.contextmanager
    def checkpoint(self) -> Iterator[None]:
        changed = self.restoration.changed(self.ids)
        if changed:
            raise messages.checkpoint_behind_changes(self._work.test, changed)
        try:
            yield
        finally:
            self._work.undo_open()
            changed, restored = self.restoration.put_back(self.ids)
            if not restored:
                raise messages.checkpoint_lost(self._work.test, changed)
