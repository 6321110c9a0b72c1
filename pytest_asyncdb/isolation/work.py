"""What one test does on its connections, in every strategy: running calls, open cursors, breaches
of the isolation."""

from __future__ import annotations

import abc
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy.pool import ConnectionPoolEntry

from pytest_asyncdb import errors
from pytest_asyncdb._engines.asyncio_internals import running_task
from pytest_asyncdb._engines.host_loop import CANCEL_PATIENCE
from pytest_asyncdb._engines.pool_internals import CheckoutPool
from pytest_asyncdb._engines.private_loop import OF_PARENT
from pytest_asyncdb._record.statement_log import Place, StatementLog
from pytest_asyncdb.isolation import messages
from pytest_asyncdb.isolation.backing_connection import BackingConnection
from pytest_asyncdb.isolation.connector import Connector
from pytest_asyncdb.isolation.started_tasks import late, started_in, task_name


class Call:
    """A call of the application: a context manager, entered while the call runs.

    It is a class, not a generator, because every statement enters one.

    Args:
        work: The work of the test.
        places: Where the user's code made the call, the innermost first.
        statement: The statement's text, or the name of the driver's method.
        parameters: The statement's parameters, as the driver gets them.
    """

    __slots__ = ("began", "parameters", "places", "statement", "task", "work")

    def __init__(
        self, work: Work, places: Sequence[Place], statement: str, parameters: Any = None
    ) -> None:
        self.began = time.perf_counter()
        self.work = work
        self.places = places
        self.statement = statement
        self.parameters = parameters
        self.task = running_task()
        if self.task is not None and (test := started_in()) is not None and not test.ended:
            test.use(self.task, places)

    def __enter__(self) -> None:
        self.work.running[self] = None

    def __exit__(self, *_: object) -> None:
        del self.work.running[self]


class Owner(NamedTuple):
    """The task and the checkout that have taken a connection.

    Args:
        task: The name of the task.
        checkout: The number of the checkout in the statement log.
    """

    task: str
    checkout: int


class Work(abc.ABC):
    """What one test does on its connections. Its checkouts note it here.

    Args:
        test: The node id, for errors.
    """

    def __init__(self, connector: Connector, test: str) -> None:
        self.connector = connector
        self.host = connector.host
        self.test = test
        self.log = StatementLog(connector.hide_parameters)
        #: The calls that are running.
        self.running: dict[Call, None] = {}
        #: The errors that the test gets at its end.
        self.breaches: list[BaseException] = []
        #: Lines about each statement that was cancelled; see ``lock_waits.py``.
        self.cancelled: list[list[str]] = []
        #: Cursors that are open: streams, and cursors of statements that were cancelled.
        self.cursors: dict[Any, None] = {}
        #: True after the test, and in a forked child of its process.
        self.ended = False
        #: The text of the error for a statement after that.
        self.refusal = messages.AFTER_THE_TEST
        #: True if transactions that end now are undone later: by :meth:`close`, or when other code
        #: needs it.
        self.deferring = False
        #: True if the test has failed and its database will be kept. Open transactions are
        #: committed then.
        self.keeping = False
        #: SQLAlchemy's pool entries of this test's checkouts.
        self.entries: list[ConnectionPoolEntry] = []
        #: The pools of the test's engine and of those that are redirected to it.
        self.pools: list[CheckoutPool] = []
        #: Functions to call when the checkouts are released.
        self.at_end: list[Callable[[], object]] = []
        OF_PARENT.add(self)

    def in_transaction(self, besides: BackingConnection | None) -> Sequence[Owner]:
        """Return the owners of connections that are in a transaction, except *besides*."""
        return []

    @abc.abstractmethod
    def close(self) -> list[BaseException]:
        """End and undo everything. Return what broke the isolation. Blocks, with a time limit."""

    def check_open(self, statement: str) -> None:
        """Refuse *statement* after the test, and in a forked child process.

        Raises:
            IsolationConflict: The test has ended, or this is a child process.
        """
        if self.ended:
            late()
            raise self.refusal.of(self.test, messages.here())

    def end_in_child(self) -> None:
        """Refuse everything in a forked child, because its connections are those of its parent.

        As after a test, no connection goes back to a pool: SQLAlchemy's finalizers would close it.
        """
        self.ended, self.refusal = True, messages.IN_A_CHILD

    def left_running(self) -> errors.AsyncdbError:
        """Return the error for calls that are running at the end of the test."""
        calls = {}
        for call in list(self.running):
            calls[task_name(call.task)] = call.places
            if call.task is not None and (test := started_in()) is not None:
                test.forget(call.task)
        tasks = [(f"task: {task}", *messages.at(calls[task])) for task in sorted(calls)]
        return messages.LEFT_RUNNING.of(self.test, *tasks)

    def abandon(self, cursors: Iterable[Any]) -> None:
        """Close cursors that SQLAlchemy has left open.

        The garbage collector could close them at any time. On SQLite closing waits for the
        statement that runs in the driver's thread, so it would stop the whole process.
        """
        for cursor in list(cursors):
            self.cursors.pop(cursor, None)
            with contextlib.suppress(Exception):  # it ends with its transaction or connection
                self.host.run(cursor.abandon(), CANCEL_PATIENCE)

    def invalidate_checkouts(self) -> None:
        """Release the checkouts that the test has not released.

        Otherwise the garbage collector would find a forgotten session in a later test, and warn
        there.
        """
        for entry in self.entries:
            if entry.in_use:
                entry.invalidate()
        self.pools.clear()  # they refer to each other
        for end in self.at_end:
            end()
