"""A checkout that is a real connection: what SQLAlchemy holds in ``reset`` and ``copy``.

The connection lives on our own loop, so it works on any loop and in any thread, and is kept
from test to test. Its transactions are its own, as in production.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pytest_asyncdb._record.sql_text import keeps_session_state, only_queries
from pytest_asyncdb.isolation.dbapi import Checkout

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_asyncdb.isolation.backing_connection import BackingConnection
    from pytest_asyncdb.isolation.direct import DirectWork

#: pytest leaves our frames out of the tracebacks of drivers' errors.
__tracebackhide__ = True


class DirectConnection(Checkout):
    """The DBAPI connection that SQLAlchemy holds; the real one is taken at its first use."""

    outer: DirectWork
    number: int
    autocommit: bool
    #: The test has left something in the connection's session: it is not kept.
    spoiled: bool
    #: Its statements run in transactions; what ``autocommit`` says on SQLite only.
    transactional: bool

    def __init__(self, outer: DirectWork, number: int, transactional: bool) -> None:
        self.__dict__.update(outer=outer, autocommit=False, taken=None, spoiled=False)
        self.__dict__.update(number=number, transactional=transactional)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.link.adapted, name)
        if not callable(value) or isinstance(value, type):
            return value
        return lambda *args, **kwargs: self.link.call(lambda: value(*args, **kwargs))

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("taken", "spoiled", "autocommit", "transactional"):
            self.__dict__[name] = value
        else:
            self.link.call(setattr, self.link.adapted, name, value)

    @property
    def transaction(self) -> int | None:
        return self.number if self.transactional else None

    @property
    def link(self) -> BackingConnection:
        """The real connection."""
        if self.taken is None:
            self.taken = self.outer.take(self.number)
        return self.taken

    @property
    def adapted(self) -> Any:
        """SQLAlchemy's adapter of it."""
        return self.link.adapted

    @property
    def _connection(self) -> Any:
        """The driver's connection as ``driver_connection`` shows it."""
        self.spoiled = True
        return OwnDriverConnection(self)

    def commit(self) -> None:
        self._end("commit")

    def rollback(self) -> None:
        self._end("rollback")

    def close(self) -> None:
        """SQLAlchemy's pool gives it back, after a rollback."""
        link, self.taken = self.taken, None
        if link is not None:
            self.outer.give_back(link, self.spoiled)

    def terminate(self) -> None:
        """SQLAlchemy gives the connection up: after a cancellation, or by its finalizer."""
        link, self.taken = self.taken, None
        if link is not None:
            self.outer.journal.ended("ROLLBACK", self.number)
            self.outer.give_back(link, spoiled=True)

    def run(self, statement: str, work: Callable[[str], Any], whole: bool) -> Any:
        """Run a statement of the application."""
        outer = self.outer
        outer.check_open()
        outer.host.require_greenlet()
        link = self.link
        if keeps_session_state(statement):
            self.spoiled = True
        with outer.calls.calling(link, statement):
            return link.call(self._begun, work, statement)

    def _begun(self, work: Callable[[str], Any], statement: str) -> Any:
        begin = self.outer.begin_at_write
        if begin is None or self.autocommit or only_queries(statement):
            return work(statement)
        if self.link.in_transaction() is False:
            cursor = self.link.adapted.cursor()
            cursor.execute(begin)
            cursor.close()
        return work(statement)

    def _end(self, how: str) -> None:
        link = self.taken
        if link is None or not link.is_open:
            return
        if self.outer.deferring or self.outer.ended:
            self.outer.unfinished.append(link)  # undone by the end of the test
        else:
            if self.transactional:
                self.outer.journal.ended(how.upper(), self.number)
            link.call(getattr(link.adapted, how))


class OwnDriverConnection:
    """The driver's own connection for the application; its coroutines may be awaited on any
    loop, and what the server sends by itself reaches it while a test's loop runs."""

    def __init__(self, hosted: DirectConnection) -> None:
        self.__dict__["_hosted"] = hosted
        hosted.outer.attend()

    def __getattr__(self, name: str) -> Any:
        link = self._hosted.link
        value = getattr(link.adapted._connection, name)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            result = value(*args, **kwargs)
            return link.host.await_here(result) if asyncio.iscoroutine(result) else result

        return call
