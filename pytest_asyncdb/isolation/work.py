"""What one test does on its connections, in every strategy, and the view that shows it."""

from __future__ import annotations

import abc
import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pytest_asyncdb._engines.host_loop import CANCEL_PATIENCE
from pytest_asyncdb._record.call_sites import lines_of
from pytest_asyncdb._record.statement_log import StatementLog
from pytest_asyncdb.abc import View
from pytest_asyncdb.isolation import messages
from pytest_asyncdb.isolation.calls import Call, task_name

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import ConnectionPoolEntry

    from pytest_asyncdb import errors
    from pytest_asyncdb.isolation.backing_connection import BackingConnection, Connector
    from pytest_asyncdb.isolation.calls import Owner


class OpenCursor(Protocol):
    """A cursor of the application that is open on the server."""

    @property
    def server_side(self) -> bool:
        """Does it fetch rows when they are asked for?"""

    async def abandon(self) -> None:
        """Close it, on the plugin's own loop."""


class Work(abc.ABC):
    """What one test does on its connections; its checkouts note it here.

    Args:
        test: The node id, for errors.
    """

    def __init__(self, connector: Connector, test: str) -> None:
        self.connector = connector
        self.host = connector.host
        self.test = test
        self.log = StatementLog(connector.hide_parameters)
        #: The calls that are running.
        self.running: set[Call] = set()
        #: What the test must be told at its end.
        self.breaches: list[BaseException] = []
        #: Cursors that are open: streams, and those of statements that were cancelled.
        self.cursors: set[OpenCursor] = set()
        #: The test is over.
        self.ended = False
        #: Transactions that are ended now are undone by :meth:`close`.
        self.deferring = False
        #: The test has failed, and its database will be kept: open transactions are committed.
        self.keeping = False
        #: SQLAlchemy's pool entries of this test's checkouts.
        self._entries: list[ConnectionPoolEntry] = []

    def in_transaction(self, besides: BackingConnection) -> Sequence[Owner]:
        """Who has taken connections that are in a transaction, without *besides*."""
        return []

    @abc.abstractmethod
    def close(self) -> list[BaseException]:
        """End and undo everything. Blocks; bounded in time. Returns what broke the isolation."""

    def check_open(self, statement: str) -> None:
        """Refuse *statement* after the test.

        Raises:
            IsolationConflict: The test has ended.
        """
        if self.ended:
            raise messages.AFTER_THE_TEST.of(self.test, messages.here())

    def left_running(self) -> errors.AsyncdbError:
        """The error for calls that are running at the end of the test."""
        calls = {task_name(call.task): call.places for call in list(self.running)}
        tasks = [(f"task: {task}", *messages.at(lines_of(calls[task]))) for task in sorted(calls)]
        return messages.LEFT_RUNNING.of(self.test, *tasks)

    def engine(self, connect: Callable[[int], object]) -> AsyncEngine:
        """The engine of the test.

        Args:
            connect: Makes the DBAPI connection of a checkout, by the checkout's number.
        """
        numbers = itertools.count(1)

        def check_out(entry: ConnectionPoolEntry) -> object:
            self.check_open("connect")  # else the pool would wait for the connection's return
            self._entries.append(entry)
            return connect(next(numbers))

        return self.connector.test_engine(check_out)

    def abandon(self, cursors: Iterable[OpenCursor]) -> None:
        """Close cursors that SQLAlchemy has left open.

        The garbage collector would do it at any time. On SQLite closing waits for the statement
        that runs in the driver's thread, so it would stop the whole process.
        """
        for cursor in list(cursors):
            self.cursors.discard(cursor)
            with contextlib.suppress(Exception):  # it ends with its transaction or connection
                self.host.run(cursor.abandon(), CANCEL_PATIENCE)

    def invalidate_checkouts(self) -> None:
        """Release what the test has not: a forgotten session would warn in a later test, when
        the garbage collector finds it."""
        for entry in self._entries:
            if entry.in_use:
                entry.invalidate()


class WorkView(View):
    """A view that shows a test's work."""

    def __init__(self, work: Work, connect: Callable[[int], Any]) -> None:
        self.work = work
        self.engine = work.engine(connect)
        self.url = work.connector.url
        self.log = work.log

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        self.work.deferring, self.work.keeping = True, self.keeping
        try:
            yield
        finally:
            self.work.deferring = False
