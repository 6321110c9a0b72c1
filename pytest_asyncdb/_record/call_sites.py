"""The lines of the user's code that led to a statement, also across SQLAlchemy's greenlets."""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from pytest_asyncdb._engines.asyncio_internals import running_task
from pytest_asyncdb._record.statement_log import Place, line_of

if TYPE_CHECKING:
    import asyncio

    import greenlet

#: Packages whose frames are not the user's code.
_FOREIGN = frozenset(
    {
        *("sqlalchemy", "greenlet", "asyncio", "uvloop", "contextlib", "threading"),
        *("pytest_asyncdb", "_pytest", "pytest", "pluggy", "pytest_asyncio", "anyio"),
        *("aiosqlite", "asyncpg", "psycopg", "psycopg_pool", "asyncmy", "aiomysql", "pymysql"),
    }
)
#: Modules that call the user's code: an event loop, or pytest. Frames outside of these are none.
_ENDS = frozenset({"asyncio.events", "asyncio.base_events", "asyncio.runners", "_pytest.runner"})


def user_frames(limit: int = 3) -> list[str]:
    """The innermost lines of the user's code in the current task, the innermost last."""
    return lines_of(user_places(limit))


def user_places(limit: int = 3) -> list[Place]:
    """Like :func:`user_frames`, not yet as text, the innermost first.

    SQLAlchemy runs its sync code in a greenlet; the coroutine that awaits it is in that
    greenlet's parent.
    """
    import greenlet

    places: list[Place] = []
    current: greenlet.greenlet | None = greenlet.getcurrent()
    frame: FrameType | None = sys._getframe(1)
    while current is not None:
        while frame is not None:
            kind = _kind(frame)
            if kind == "end":
                return places
            if kind == "user":
                places.append(_place(frame))
                if len(places) == limit:
                    return places
            frame = frame.f_back
        current = current.parent
        frame = current.gr_frame if current is not None else None
    return places


def lines_of(places: Sequence[Place]) -> list[str]:
    """Places as text, the innermost last."""
    return [line_of(place) for place in reversed(places)]


def standing(
    task: asyncio.Task[Any] | None, thread: int, inner: greenlet.greenlet | None
) -> list[str]:
    """Where any task, or a thread without a task, is now; like :func:`user_frames`.

    Args:
        thread: The identifier of the task's thread.
        inner: The greenlet of the task's current call, if there is one.
    """
    if task is not None:
        if task is running_task():
            return user_frames()
        if not getattr(task.get_coro(), "cr_running", False):
            return suspended_frames(task, inner)
    frames = _callers(sys._current_frames().get(thread))
    inside = itertools.takewhile(lambda frame: _kind(frame) != "end", frames)
    return lines_of([_place(frame) for frame in inside if _kind(frame) == "user"][:3])


def suspended_frames(
    task: asyncio.Task[Any] | None, inner: greenlet.greenlet | None, limit: int = 3
) -> list[str]:
    """Where a suspended task is; like :func:`user_frames`.

    Args:
        inner: SQLAlchemy's greenlet of the task, which may contain sync code of the user.
    """
    sync = [] if inner is None else [*_callers(inner.gr_frame)]
    frames = (*_awaited(task.get_coro() if task is not None else None), *reversed(sync))
    places = [_place(frame) for frame in frames if _kind(frame) == "user"]
    return [line_of(place) for place in places[-limit:]]


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _awaited(work: Any) -> Iterator[FrameType]:
    """The frames of a suspended coroutine and of what it awaits, the innermost last."""
    while work is not None:
        for kind in ("cr", "gi", "ag"):
            frame = getattr(work, f"{kind}_frame", None)
            if frame is not None:
                yield frame
                break
        else:
            return
        work = getattr(work, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")


def _kind(frame: FrameType) -> str:
    return _kind_of_module(frame.f_globals.get("__name__", ""))


@functools.cache
def _kind_of_module(name: str) -> str:
    if name in _ENDS:
        return "end"
    return "foreign" if name.partition(".")[0] in _FOREIGN else "user"


def _place(frame: FrameType) -> Place:
    return frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name
