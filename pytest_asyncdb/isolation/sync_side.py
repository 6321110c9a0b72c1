"""The checkouts of a test for sync code, such as a sync ``Session``, Celery's tasks or factories.

Each DBAPI call runs in a task on a loop in the calling thread, as if the code awaited it. The loop
that runs the test stands still meanwhile, as with a sync driver.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable
from typing import Any, Self, TypeVar

from sqlalchemy.util import greenlet_spawn

from pytest_asyncdb._engines.asyncio_internals import pause, resume, running_task
from pytest_asyncdb._engines.host_loop import HostLoop
from pytest_asyncdb.isolation.dbapi import FETCHES, Checkout, Cursor

T = TypeVar("T")

#: Methods of cursors that await, in addition to the fetches of a stream.
_AWAITING = ("execute", "executemany", "close")


class SyncSide:
    """Calls code of SQLAlchemy's adapters from sync code, in any thread and within any loop."""

    def __init__(self, host: HostLoop) -> None:
        self.host = host
        #: Idle loops, for any thread. They are reused, because each one holds three file
        #: descriptors.
        self._free: list[asyncio.AbstractEventLoop] = []

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Return the result of *function*, which may await. Blocks."""
        task = running_task()
        paused = pause()
        context = contextvars.copy_context()
        try:
            own = self._free.pop()
        except IndexError:
            own = asyncio.new_event_loop()
        name = task.get_name() if task is not None else threading.current_thread().name
        try:
            work = greenlet_spawn(function, *args, **kwargs)
            return own.run_until_complete(own.create_task(work, name=name, context=context))
        finally:
            self._free.append(own)
            resume(*paused)
            for variable in context:  # copy changes back, such as the open units of work
                if variable.get(None) is not context[variable]:
                    variable.set(context[variable])

    def close(self) -> None:
        """Close the idle loops. May be called twice."""
        while self._free:
            self._free.pop().close()


class SyncConnection:
    """The DBAPI connection that a sync engine's pool holds."""

    def __init__(self, side: SyncSide, checkout: Checkout) -> None:
        self.__dict__.update(_side=side, _checkout=checkout)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._checkout, name)
        if not callable(value) or isinstance(value, type):
            return value
        return functools.partial(self._side.call, value)

    def __setattr__(self, name: str, value: Any) -> None:
        self._side.call(setattr, self._checkout, name, value)

    def cursor(self, *args: Any, **kwargs: Any) -> SyncCursor:
        return SyncCursor(self._side, Cursor(self._checkout, args, kwargs))

    def rollback(self) -> None:
        if self._side.host.runs_here:  # the garbage collector calls this
            self._checkout.terminate()
        else:
            self._side.call(self._checkout.rollback)


class SyncCursor:
    """The DBAPI cursor of a sync engine."""

    def __init__(self, side: SyncSide, cursor: Cursor) -> None:
        self.__dict__.update(_side=side, _cursor=cursor)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._cursor, name)
        if name in _AWAITING or (name in FETCHES and self._cursor.server_side):
            return functools.partial(self._side.call, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._cursor, name, value)

    __iter__ = Cursor.__iter__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
