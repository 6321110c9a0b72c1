"""The calls of a test that are running, and the names of tasks."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING

from pytest_asyncdb._engines.asyncio_internals import running_task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_asyncdb._record.statement_log import Place
    from pytest_asyncdb.isolation.backing_connection import BackingConnection


class Call:
    """A call of the application; a context manager, entered while the call runs.

    Written as a class because every statement enters one.

    Args:
        running: The calls of the test that are running.
        connection: Runs it.
        places: Where the user's code made it, the innermost first.
    """

    __slots__ = ("_running", "connection", "places", "task")

    def __init__(
        self, running: set[Call], connection: BackingConnection, places: Sequence[Place]
    ) -> None:
        self._running = running
        self.connection = connection
        self.places = places
        self.task = running_task()

    def __enter__(self) -> None:
        self._running.add(self)

    def __exit__(self, *_: object) -> None:
        self._running.discard(self)


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
