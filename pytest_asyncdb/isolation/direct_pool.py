"""The real connections of ``reset`` and ``copy`` between tests.

They are kept from test to test. Those to the next copies are opened by the thread that makes the
copies.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pytest_asyncdb.isolation.backing_connection import BackingConnection

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from pytest_asyncdb.isolation.backing_connection import Connector


class DirectPool:
    """The idle connections of a worker's database: at most ``Database.idle_limit``, prefetched
    ones included."""

    def __init__(self, connector: Connector) -> None:
        self.connector = connector
        self._idle: list[BackingConnection] = []
        #: Connections to copies of the template that are for later tests, by database.
        self._prefetched: dict[str | None, BackingConnection] = {}
        #: Held while one of them is being opened.
        self._prefetching = threading.Lock()
        self._closed = False
        first = self.take()
        first.connect()  # initialises the dialect
        self.keep([first])

    def lead_to(self, url: URL) -> None:
        """Further connections are to another copy of the template."""
        self.connector.lead_to(url)
        prefetched = self._prefetched.pop(url.database, None)
        if prefetched is not None:
            self._idle.append(prefetched)

    def prefetch(self, url: URL) -> None:
        """Open a connection to a copy that :meth:`lead_to` will lead to, in a background
        thread."""
        backing = BackingConnection(self.connector, direct=True, url=url)
        with self._prefetching:
            if not self._closed and not self._is_full() and backing.open_in_thread():
                self._prefetched[url.database] = backing

    def take(self) -> BackingConnection:
        """A connection that no checkout uses, open or not yet."""
        while self._idle:
            backing = self._idle.pop()
            if backing.is_open and not backing.was_ended():
                return backing
            backing.discard()
        return BackingConnection(self.connector, direct=True)

    def keep(self, connections: Iterable[BackingConnection]) -> None:
        """Take back connections; close those that are in a transaction or too many."""
        for backing in connections:
            if backing.is_open and not self._is_full() and not backing.in_transaction():
                self._idle.append(backing)
            else:
                backing.discard()

    def discard(self) -> None:
        """Close what is idle; further connections are new ones."""
        while self._idle:
            self._idle.pop().discard()

    def close(self) -> None:
        """Close everything. May be called twice."""
        self._closed = True
        self.discard()
        with self._prefetching:
            while self._prefetched:
                self._prefetched.popitem()[1].discard()
        self.connector.close()

    def _is_full(self) -> bool:
        return len(self._idle) + len(self._prefetched) >= self.connector.idle_limit
