"""The calls of a test that are running, and who made them."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING

from pytest_asyncdb._engines.asyncio_internals import running_task
from pytest_asyncdb._record.call_sites import suspended_frames
from pytest_asyncdb.isolation import messages

if TYPE_CHECKING:
    from pytest_asyncdb import errors
    from pytest_asyncdb.isolation.backing_connection import BackingConnection


class Call:
    """A call of the application on a connection; a context manager, entered while it runs.

    Written as a class because every statement enters one.
    """

    __slots__ = ("_running", "connection", "greenlet", "statement", "task")

    def __init__(self, running: set[Call], connection: BackingConnection, statement: str) -> None:
        import greenlet

        self._running = running
        self.connection = connection
        self.statement = statement
        self.task = running_task()
        self.greenlet = greenlet.getcurrent()

    def __enter__(self) -> None:
        self._running.add(self)

    def __exit__(self, *_: object) -> None:
        self._running.discard(self)


class Calls:
    """The calls of a test that are running."""

    def __init__(self) -> None:
        self.running: set[Call] = set()

    def calling(self, connection: BackingConnection, statement: str) -> Call:
        """Note that a call of the application runs, until the context ends."""
        return Call(self.running, connection, statement)

    def left_running(self, test: str) -> errors.IsolationBreach:
        """The error for calls that are running at the end of the test."""
        tasks = {task_name(call.task): call for call in self.running}
        places = {name: suspended_frames(call.task, call.greenlet) for name, call in tasks.items()}
        return messages.left_running(test, dict(sorted(places.items())))


_names: weakref.WeakKeyDictionary[asyncio.Task[object], str] = weakref.WeakKeyDictionary()


def task_name(task: asyncio.Task[object] | None) -> str:
    """The name of a task with that of its function, for errors."""
    if task is None:
        return "(no task)"
    name = _names.get(task)
    if name is None:
        function = getattr(task.get_coro(), "__qualname__", "")
        name = _names[task] = f"{task.get_name()} ({function})" if function else task.get_name()
    return name
