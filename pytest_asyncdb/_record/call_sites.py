"""Where in the user's code a statement comes from, seen through SQLAlchemy's greenlets."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from pytest_asyncdb._record.statement_log import Place, line_of

if TYPE_CHECKING:
    import asyncio

    import greenlet

#: Packages whose frames say nothing to the user.
_FOREIGN = frozenset(
    {
        *("sqlalchemy", "greenlet", "asyncio", "uvloop", "contextlib", "threading"),
        *("pytest_asyncdb", "_pytest", "pytest", "pluggy", "pytest_asyncio", "anyio"),
        *("aiosqlite", "asyncpg", "psycopg", "psycopg_pool", "asyncmy", "aiomysql", "pymysql"),
    }
)

#: Where the user's own frames end: an event loop, or pytest, runs them.
_ENDS = frozenset({"asyncio.events", "asyncio.base_events", "asyncio.runners", "_pytest.runner"})


def user_frames(limit: int = 3) -> list[str]:
    """The innermost lines of the user's code in this task, the innermost last."""
    return lines_of(user_places(limit))


def user_places(limit: int = 3) -> list[Place]:
    """The same before it is put in words, which only errors need; the innermost first.

    SQLAlchemy runs its sync code in a greenlet; the coroutine that awaits it stands in that
    greenlet's parent.
    """
    import greenlet

    places: list[Place] = []
    current: greenlet.greenlet | None = greenlet.getcurrent()
    frame: FrameType | None = sys._getframe(1)
    while current is not None:
        while frame is not None:
            kind = _kind(frame.f_globals.get("__name__", ""))
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
    """Places in words, the innermost last."""
    return [line_of(place) for place in reversed(places)]


def standing(
    task: asyncio.Task[Any] | None, thread: int, inner: greenlet.greenlet | None
) -> list[str]:
    """Where a task stands, or a thread without one: like :func:`user_frames`, from anywhere.

    Args:
        thread: Its thread's number.
        inner: The greenlet of the task's call that is under way, if there is one.
    """
    if task is not None:
        if _is_current(task):
            return user_frames()
        if not getattr(task.get_coro(), "cr_running", False):
            return suspended_frames(task, inner)
    places: list[Place] = []
    frame = sys._current_frames().get(thread)
    while frame is not None and _kind(frame.f_globals.get("__name__", "")) != "end":
        if _is_users(frame):
            places.append(_place(frame))
        frame = frame.f_back
    return lines_of(places[:3])


def _is_current(task: asyncio.Task[Any]) -> bool:
    import asyncio

    loop = asyncio._get_running_loop()
    return loop is not None and asyncio.current_task(loop) is task


def suspended_frames(
    task: asyncio.Task[Any] | None, inner: greenlet.greenlet | None, limit: int = 3
) -> list[str]:
    """Where a task that waits stands: like :func:`user_frames`, from outside of it.

    Args:
        inner: SQLAlchemy's greenlet, in which sync code of the user may stand.
    """
    frames = list(_awaiting(task.get_coro() if task is not None else None))
    inside: list[FrameType] = []
    frame = None if inner is None else inner.gr_frame
    while frame is not None:
        inside.append(frame)
        frame = frame.f_back
    places = [_place(frame) for frame in (*frames, *reversed(inside)) if _is_users(frame)]
    return [line_of(place) for place in places[-limit:]]


def _awaiting(work: Any) -> Iterator[FrameType]:
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


def _is_users(frame: FrameType) -> bool:
    return _kind(frame.f_globals.get("__name__", "")) == "user"


@functools.cache
def _kind(module: str) -> str:
    if module in _ENDS:
        return "end"
    return "foreign" if module.partition(".")[0] in _FOREIGN else "user"


def _place(frame: FrameType) -> Place:
    return frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name
