"""The calls of a test that are running, who has its connections, and the names of tasks."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_asyncdb._engines.asyncio_internals import running_task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_asyncdb._record.statement_log import Place


class Call:
    """A call of the application; a context manager, entered while the call runs.

    Written as a class because every statement enters one.

    Args:
        checkout: The :class:`~pytest_asyncdb.isolation.dbapi.Checkout` that runs it.
        places: Where the user's code made it, the innermost first.
    """

    __slots__ = ("checkout", "places", "task")

    def __init__(self, checkout: Any, places: Sequence[Place]) -> None:
        self.checkout = checkout
        self.places = places
        self.task = running_task()

    def __enter__(self) -> None:
        self.checkout.work.running.add(self)

    def __exit__(self, *_: object) -> None:
        self.checkout.work.running.discard(self)


class Owner(NamedTuple):
    """Who has taken a connection.

    Args:
        task: The name of the task.
        checkout: The number of the checkout in the statement log.
    """

    task: str
    checkout: int


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
