"""The lines of the user's code that led to a statement, also across SQLAlchemy's greenlets."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import greenlet

from pytest_asyncdb._engines.asyncio_internals import running_task
from pytest_asyncdb._record.statement_log import Place, line_of

#: Packages whose frames are not the user's code.
_FOREIGN = frozenset(
    {
        *("sqlalchemy", "greenlet", "asyncio", "uvloop", "contextlib", "threading"),
        *("pytest_asyncdb", "_pytest", "pytest", "pluggy", "pytest_asyncio", "anyio"),
        *("aiosqlite", "asyncpg", "psycopg", "psycopg_pool", "asyncmy", "aiomysql", "pymysql"),
    }
)
#: Modules that call the user's code: an event loop, or pytest. Frames outside of these are not the
#: user's.
_ENDS = frozenset({"asyncio.events", "asyncio.base_events", "asyncio.runners", "_pytest.runner"})


def caller_frames() -> Iterator[FrameType]:
    """Yield the frames from the caller outwards, including those of a greenlet's parents."""
    current: greenlet.greenlet | None = greenlet.getcurrent()
    frame: FrameType | None = sys._getframe(1)
    while current is not None:
        while frame is not None:
            yield frame
            frame = frame.f_back
        current = current.parent
        frame = current.gr_frame if current is not None else None


def user_places(limit: int = 3, start: FrameType | None = None) -> list[Place]:
    """Return the innermost lines of the user's code in the current task, the innermost first.

    SQLAlchemy runs its sync code in a greenlet. The coroutine that awaits it is in that greenlet's
    parent.

    Args:
        start: The frame to begin with; None: the caller's.
    """
    places: list[Place] = []
    current: greenlet.greenlet | None = greenlet.getcurrent()
    frame: FrameType | None = start or sys._getframe(1)
    # This loop calls no function for each frame, because every statement runs it.
    while current is not None:
        while frame is not None:
            names = frame.f_globals
            kind = _KINDS[names["__name__"] if "__name__" in names else ""]  # noqa: SIM401
            if kind == "end":
                return places
            if kind == "user":
                places += [(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)]
                limit -= 1
                if not limit:
                    return places
            frame = frame.f_back
        current = current.parent
        frame = current.gr_frame if current is not None else None
    return places


def places_of_task(task: asyncio.Task[object]) -> list[Place]:
    """Return where a pending task stands in the user's code, the innermost line first."""
    frames = [*_awaiting_frames(task)][::-1]
    return [place for frame in frames for place in _place(frame, frame.f_lineno)]


def user_position() -> tuple[asyncio.Task[object] | None, list[Place]]:
    """Return the running task, or the task that awaits it, and the lines of the user's code in
    it."""
    task, places = running_task(), user_places()
    if task is not None and not places:
        task = user_task(task)
        places = places_of_task(task)
    return task, places[:3]


def user_task(task: asyncio.Task[object]) -> asyncio.Task[object]:
    """Return the task that awaits *task*, which has no line of the user's code.

    At the end of ``async with`` blocks SQLAlchemy commits and closes in a task of its own. A local
    variable of the awaiting coroutine holds that task.
    """
    for other in asyncio.all_tasks(task.get_loop()):
        for frame in [*_awaiting_frames(other)][-1:]:
            if any(value is task for value in frame.f_locals.values()):
                return other
    return task


def _awaiting_frames(task: asyncio.Task[object]) -> Iterator[FrameType]:
    """Yield the frames of the coroutines of a suspended task, the outermost first."""
    awaited: Any = task.get_coro()
    while (frame := getattr(awaited, "cr_frame", None)) is not None:
        yield frame
        awaited = awaited.cr_await


def places_of_error(error: BaseException) -> list[Place]:
    """Return the lines of the user's code in a traceback, the innermost first."""
    frames = [*traceback.walk_tb(error.__traceback__)][::-1]
    return [place for frame, number in frames for place in _place(frame, number)]


def _place(frame: FrameType, number: int) -> list[Place]:
    """Return the line if it is the user's code, else an empty list."""
    code = frame.f_code
    is_user = _KINDS[frame.f_globals.get("__name__", "")] == "user"
    return [(code.co_filename, number, code.co_name)] if is_user else []


def lines_of(places: Sequence[Place]) -> list[str]:
    """Return places as text, the innermost last."""
    return [line_of(place) for place in reversed(places)]


class _Kinds(dict[str, str]):
    def __missing__(self, name: str) -> str:
        kind = "foreign" if name.partition(".")[0] in _FOREIGN else "user"
        self[name] = "end" if name in _ENDS else kind
        return self[name]


#: The kind of each module's frames: ``end``, ``foreign`` or ``user``.
_KINDS = _Kinds()
