"""Where in the user's code a statement comes from, seen through SQLAlchemy's greenlets."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    import greenlet

#: Packages whose frames say nothing to the user.
_FOREIGN = frozenset(
    {
        *("sqlalchemy", "greenlet", "asyncio", "uvloop", "contextlib", "threading"),
        *("pytest_asyncdb", "_pytest", "pytest", "pluggy", "pytest_asyncio", "anyio"),
    }
)

#: Where the user's own frames end: an event loop, or pytest, runs them.
_ENDS = frozenset({"asyncio.events", "asyncio.base_events", "asyncio.runners", "_pytest.runner"})


def user_frames(limit: int = 3) -> list[str]:
    """The innermost lines of the user's code in this task, the innermost last.

    SQLAlchemy runs its sync code in a greenlet; the coroutine that awaits it stands in that
    greenlet's parent.
    """
    import greenlet

    lines: list[str] = []
    current: greenlet.greenlet | None = greenlet.getcurrent()
    frame: FrameType | None = sys._getframe(1)
    while current is not None:
        while frame is not None:
            module = frame.f_globals.get("__name__", "")
            if module in _ENDS:
                return lines[::-1]
            if _is_users(frame):
                lines.append(_line(frame))
                if len(lines) == limit:
                    return lines[::-1]
            frame = frame.f_back
        current = current.parent
        frame = current.gr_frame if current is not None else None
    return lines[::-1]


def suspended_frames(
    task: asyncio.Task[Any] | None, inner: greenlet.greenlet, limit: int = 3
) -> list[str]:
    """Where a task that waits stands: like :func:`user_frames`, from outside of it.

    Args:
        inner: SQLAlchemy's greenlet, in which sync code of the user may stand.
    """
    frames = list(_awaiting(task.get_coro() if task is not None else None))
    inside: list[FrameType] = []
    frame = inner.gr_frame
    while frame is not None:
        inside.append(frame)
        frame = frame.f_back
    lines = [_line(frame) for frame in (*frames, *reversed(inside)) if _is_users(frame)]
    return lines[-limit:]


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
    return frame.f_globals.get("__name__", "").partition(".")[0] not in _FOREIGN


def _line(frame: FrameType) -> str:
    return f"{_path(frame)}:{frame.f_lineno} in {frame.f_code.co_name}"


def _path(frame: FrameType) -> str:
    """The frame's file as a user would write it: from the current folder, if it is below."""
    path = frame.f_code.co_filename
    here = os.getcwd() + os.sep  # noqa: PTH109  # a string is all that is needed
    return path.removeprefix(here)
