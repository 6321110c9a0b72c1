"""The real connections that ``reset`` and ``copy`` keep from test to test."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterable, Sequence

from sqlalchemy.engine import URL
from sqlalchemy.pool import Pool

from pytest_asyncdb._engines.host_loop import HostLoop
from pytest_asyncdb.abc import Database
from pytest_asyncdb.isolation.backing_connection import BackingConnection
from pytest_asyncdb.isolation.connector import PATIENCE, Connector


class DirectPool:
    """The idle connections of a worker's database: at most ``Database.idle_limit``, including
    prefetched ones."""

    def __init__(self, database: Database, host: HostLoop, url: URL) -> None:
        self.connector = Connector(database, host, url)
        self._idle: list[BackingConnection] = []
        #: Prefetched connections to copies of the template for later tests, by name of the
        #: database.
        self._prefetched: dict[str | None, BackingConnection] = {}
        #: Held while a connection is being prefetched.
        self._prefetching = threading.Lock()
        self._closed = False
        first = self.take(())
        first.connect()  # initialises the dialect
        self.keep([first])

    def lead_to(self, url: URL) -> None:
        """Make new connections go to another copy of the template."""
        self.connector.lead_to(url)
        if (prefetched := self._prefetched.pop(url.database, None)) is not None:
            self._idle.append(prefetched)

    def prefetch(self, url: URL) -> None:
        """Open a connection to a copy for a later test, in a background thread.

        :meth:`lead_to` makes the connection available.
        """
        backing = BackingConnection(self.connector, direct=True, url=url)
        # If this fails, or the end of a test cancels it, the next test opens a connection itself.
        with self._prefetching, contextlib.suppress(Exception, asyncio.CancelledError):
            if not self._closed and not self._is_full():
                backing.host.call_in_thread(backing.open_awaiting, timeout=PATIENCE)
                self._prefetched[url.database] = backing

    def take(self, pools: Sequence[Pool]) -> BackingConnection:
        """Return an idle connection, or a new one that is not open yet.

        Args:
            pools: Only "connect" listeners of these pools may have run on the connection.
        """
        others: list[BackingConnection] = []
        try:
            while self._idle:
                backing = self._idle.pop()
                if not backing.is_open or backing.was_ended():
                    backing.discard()
                    continue
                backing.pools = pools
                if backing.to_run() is not None:
                    return backing
                others.insert(0, backing)
        finally:
            self._idle[:0] = others
        if others and self._is_full():
            self._idle.pop(0).discard()  # make room to keep the new one
        backing = BackingConnection(self.connector, direct=True)
        backing.pools = pools
        return backing

    def keep(self, connections: Iterable[BackingConnection]) -> None:
        """Take connections back. Close those that are broken, in a transaction, or above the
        limit."""
        for backing in connections:
            if backing.is_open and not self._is_full() and not backing.in_transaction():
                self._idle.append(backing)
            else:
                backing.discard()

    def discard(self) -> None:
        """Close the idle connections."""
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
        return len(self._idle) + len(self._prefetched) >= self.connector.database.idle_limit
