"""The real connections of ``reset`` and ``copy`` between tests.

They are kept on our own loop from test to test, as many as were open at once. Those to the next
copies are opened, and those to the last ones closed, by the thread that makes and drops them.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pytest_asyncdb.isolation.backing_connection import BackingConnection
from pytest_asyncdb.isolation.direct_connection import DirectConnection
from pytest_asyncdb.isolation.sandbox import engine_on

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Dialect
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import ConnectionPoolEntry

    from pytest_asyncdb.isolation.backing_connection import Connector
    from pytest_asyncdb.isolation.direct import DirectWork


class DirectPool:
    """The kept connections of a worker's database, and the engines of its tests."""

    def __init__(self, connector: Connector) -> None:
        self.connector = connector
        self._idle: list[BackingConnection] = []
        self._dialect: Dialect | None = None
        #: Connections to copies of the template that are for later tests, by database.
        self._ahead: dict[str | None, BackingConnection] = {}
        #: Held while one of them is being opened.
        self._opening = threading.Lock()
        #: Connections that a thread of ours will close.
        self._retired: collections.deque[BackingConnection] = collections.deque()
        self._closed = False
        #: How many connections may be open between tests.
        self._idle_limit = connector.idle_limit

    def engine(self, work: DirectWork) -> AsyncEngine:
        """The engine of one test."""
        numbers = itertools.count(1)

        def check_out(entry: ConnectionPoolEntry) -> DirectConnection:
            work.check_open()  # else the pool would wait for it to come back
            work.entries.append(entry)
            return DirectConnection(work, next(numbers), not self.connector.autocommit)

        return engine_on(self.connector, self._facade(), check_out)

    def lead_to(self, url: URL) -> None:
        """Further connections are to another copy of the template."""
        before, self.connector.url = self.connector.url, url
        for dialect in (self.connector.dialect, self._dialect):
            # On MySQL and MariaDB it is the database, where reflection looks for tables.
            if dialect is not None and dialect.default_schema_name == before.database:
                dialect.default_schema_name = url.database
        link = self._ahead.pop(url.database, None)
        if link is not None:
            self._idle.append(link)

    def open_ahead(self, url: URL) -> None:
        """Open a connection to a copy that :meth:`lead_to` will lead to, if there is room; in a
        thread that nobody waits for."""
        if self._dialect is None:
            return  # the first connection initialises the dialect, and is not to a copy ahead
        link = BackingConnection(self.connector, real=True, url=url)
        with self._opening:
            room = len(self._ahead) < self._idle_limit
            if room and not self._closed and link.open_aside():
                self._ahead[url.database] = link

    def close_ahead(self) -> None:
        """Close what is for later tests."""
        with self._opening:
            while self._ahead:
                self._ahead.popitem()[1].discard()

    def retire(self) -> None:
        """Let :meth:`close_retired` close what is kept; further connections are new ones."""
        self._retired.extend(self._idle)
        self._idle.clear()

    def close_retired(self, aside: bool = True) -> None:
        """Close what was retired.

        Args:
            aside: In a thread that nobody waits for.
        """
        with contextlib.suppress(IndexError):  # there is none left
            while True:
                self._retired.popleft().discard(aside)

    def take(self) -> BackingConnection:
        """A connection that nobody uses, open or not yet."""
        while self._idle:
            link = self._idle.pop()
            if link.is_open and not link.was_ended():
                return link
            link.discard()
        return BackingConnection(self.connector, real=True)

    def keep(self, links: Iterable[BackingConnection]) -> None:
        """Take back connections that are in no transaction."""
        for link in links:
            if link.is_open and len(self._idle) < self._idle_limit and not link.in_transaction():
                self._idle.append(link)
            else:
                link.discard()

    def close(self) -> None:
        """Close what is kept. May be called twice."""
        self._closed = True
        self.discard()
        self.close_ahead()
        self.close_retired(aside=False)
        self.connector.close()

    def discard(self) -> None:
        """Close what is kept; further connections are new ones."""
        idle, self._idle = self._idle, []
        for link in idle:
            link.discard()

    def _facade(self) -> Dialect:
        """The dialect, whose answers to isolation levels reach the real connection."""
        if self._dialect is None:
            link = self.take()
            link.adapted  # noqa: B018  # the first connection initialises the dialect
            self.keep([link])
            real = self.connector.dialect

            def set_level(hosted: DirectConnection, level: Any) -> None:
                hosted.link.call(real.set_isolation_level, hosted.link.adapted, level)
                self._leave_begin_to_us(hosted, level == "AUTOCOMMIT")
                hosted.transactional = level != "AUTOCOMMIT"

            def reset_level(hosted: DirectConnection) -> None:
                if hosted.taken is not None and hosted.taken.is_open:
                    hosted.link.call(real.reset_isolation_level, hosted.link.adapted)
                    self._leave_begin_to_us(hosted, autocommit=False)
                    hosted.transactional = not self.connector.autocommit

            self._dialect = self.connector.facade_dialect(set_level, reset_level)
        return self._dialect

    def _leave_begin_to_us(self, hosted: DirectConnection, autocommit: bool) -> None:
        """A level on SQLite tells the driver to begin transactions, which we do."""
        if self.connector.backend.begin_at_write is not None:
            hosted.link.call(self.connector.driver.adapt, hosted.link.adapted)
            hosted.autocommit = autocommit
