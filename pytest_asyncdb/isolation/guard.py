"""The guard of one test: what must not reach the server, what got around it all the same, and
the errors that say so.

Each error names the statement and its place in the user's code, which is looked up only for
the error. What the driver says is raised as it is, as in production; where it cost more than
its own statement, a note on it and the end of the test say what.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_asyncdb import errors
from pytest_asyncdb._record.call_sites import suspended_frames, user_frames
from pytest_asyncdb._record.sql_text import ends_transaction
from pytest_asyncdb.isolation import messages

if TYPE_CHECKING:
    import greenlet

    from pytest_asyncdb.isolation.backing_connection import BackingConnection
    from pytest_asyncdb.isolation.units_of_work import UnitsOfWork

#: The savepoint right behind BEGIN: where it is gone, something ended the transaction.
GUARD = "asyncdb_guard"
#: The statement of a breach, where only its effect is seen.
BEGAN_ANOTHER = "not known, for it began another transaction"


class Call(NamedTuple):
    """A call of the application that is under way, and who made it."""

    task: asyncio.Task[Any] | None
    greenlet: greenlet.greenlet
    link: BackingConnection
    statement: str

    def __str__(self) -> str:
        return task_name(self.task)


class _Noted:
    """A context; written as a class, for each statement passes it."""

    __slots__ = ("_link", "_statement", "_under_way")

    def __init__(
        self, under_way: dict[object, Call], link: BackingConnection, statement: str
    ) -> None:
        self._under_way = under_way
        self._link = link
        self._statement = statement

    def __enter__(self) -> None:
        import greenlet

        self._under_way[self] = Call(
            current_task(), greenlet.getcurrent(), self._link, self._statement
        )

    def __exit__(self, *_: object) -> None:
        del self._under_way[self]


class Calls:
    """The calls of a test that are under way."""

    def __init__(self) -> None:
        self.under_way: dict[object, Call] = {}

    def calling(self, link: BackingConnection, statement: str) -> _Noted:
        """Note that a call of the application is under way, until the context ends."""
        return _Noted(self.under_way, link, statement)

    def abort(self) -> None:
        """Shut down the connections of these calls: their server is gone. From any thread."""
        for call in list(self.under_way.values()):
            call.link.abort()

    def left_running(self, test: str) -> errors.IsolationBreach:
        """The error for calls that are under way at the end of the test."""
        tasks = {str(call): call for call in self.under_way.values()}
        places = {name: suspended_frames(call.task, call.greenlet) for name, call in tasks.items()}
        return messages.left_running(test, dict(sorted(places.items())))


class Guard:
    """Watches the outer transaction of one test.

    Args:
        link: The kept connection.
        test: The node id, for errors.
        stack: The units of work in the transaction.
    """

    def __init__(self, link: BackingConnection, test: str, stack: UnitsOfWork) -> None:
        self.link = link
        self.test = test
        self.stack = stack
        self.begun = False
        self.ended = False
        #: What ended the transaction, if something did.
        self.lost: errors.IsolationBreach | None = None
        self.breaches: list[BaseException] = []
        self.calls = Calls()

    def check_before(self, statement: str) -> None:
        """Refuse what must not reach the server.

        Raises:
            IsolationBreach: The statement would end the transaction, or one did before, or
                the connection is gone.
            IsolationConflict: The test has ended.
        """
        self.check_alive(statement)
        backend = self.link.backend
        why = ends_transaction(statement, not backend.capabilities.transactional_ddl)
        if why is not None:
            place = user_frames()
            error = messages.refused_statement(statement, backend.label, self.test, why, place)
            self.breaches.append(error)
            raise error

    def check_alive(self, statement: str) -> None:
        """Is there a transaction in which *statement* could run?

        Raises:
            IsolationBreach: It has ended, or the connection has.
            IsolationConflict: The test has ended.
        """
        if self.ended:
            raise messages.after_the_test(self.test, user_frames())
        if self.lost is None and self.begun and not self.link.is_open:
            self._lose_connection(statement, None)
        if self.lost is not None:
            raise self.lost

    def refuse(self, what: str, why: str) -> errors.IsolationBreach:
        """The error for a call that would end the transaction; the test fails with it."""
        error = messages.refused_call(what, self.test, why, user_frames())
        self.breaches.append(error)
        return error

    def check_after(self, statement: str) -> None:
        """Has the statement ended the transaction all the same?

        Raises:
            IsolationBreach: It has.
        """
        if self.lost is None and self.link.is_open and self.link.in_transaction() is False:
            raise self.lose(statement)

    def lose(self, statement: str) -> errors.IsolationBreach:
        """Note that *statement* ended the outer transaction."""
        label = self.link.backend.label
        return self._lose(messages.lost_transaction(self.test, statement, label, user_frames()))

    def not_ended(self, error: BaseException, how: str) -> None:
        """After an error of the end of a unit of work.

        Raises:
            IsolationBreach: Its savepoint is gone, with the outer transaction.
        """
        code = self.link.driver.error_code(error)
        if self.lost is None and code is not None and code == self.link.backend.no_such_savepoint:
            raise self.lose(f"{BEGAN_ANOTHER}; noticed at {how}") from error
        self.failed(error, how)

    def failed(self, error: BaseException, statement: str) -> None:
        """After an error of the driver: has it cost more than its statement?"""
        if self.ended or self.lost is not None or not self.begun:
            return
        if not self.link.is_open or self.link.is_disconnect(error):
            error.add_note(str(self._lose_connection(statement, error)))
        elif self.link.driver.error_code(error) in self.link.backend.transaction_ending_errors:
            self._rebuild(error, statement)

    def _lose(self, error: errors.IsolationBreach) -> errors.IsolationBreach:
        self.lost = error
        self.stack.dead = True
        self.breaches.append(error)
        return error

    def _lose_connection(
        self, statement: str, error: BaseException | None
    ) -> errors.IsolationBreach:
        return self._lose(messages.lost_connection(self.test, statement, error, user_frames()))

    def _rebuild(self, error: BaseException, statement: str) -> None:
        """Begin anew where the server has rolled the whole transaction back."""
        self.link.script([self.link.backend.probe])  # its answer tells whether there still is one
        if self.link.in_transaction() is not False:
            return
        statements = [self.link.begin, f"SAVEPOINT {GUARD}"]
        statements += [f"SAVEPOINT {name}" for name in self.stack.savepoints()]
        self.link.script(statements)
        if self.stack.emptied():
            undone = messages.undone_by_server(self.test, statement, error, user_frames())
            self.breaches.append(undone)
            error.add_note(str(undone))


_names: weakref.WeakKeyDictionary[asyncio.Task[Any], str] = weakref.WeakKeyDictionary()


def current_task() -> asyncio.Task[Any] | None:
    """The task that runs in this thread, if one does."""
    loop = asyncio._get_running_loop()
    return asyncio.current_task(loop) if loop is not None else None


def task_name(task: asyncio.Task[Any] | None) -> str:
    """The name of a task with that of its function, for errors."""
    if task is None:
        return "(no task)"
    name = _names.get(task)
    if name is None:
        function = getattr(task.get_coro(), "__qualname__", "")
        name = _names[task] = f"{task.get_name()} ({function})" if function else task.get_name()
    return name
