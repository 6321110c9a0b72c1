"""Where in the user's code a statement comes from, seen through SQLAlchemy's greenlets."""

from __future__ import annotations

import os
import sys
from types import FrameType

#: Packages whose frames say nothing to the user.
_FOREIGN = frozenset(
    {
        *("sqlalchemy", "greenlet", "asyncio", "uvloop", "contextlib", "threading"),
        *("pytest_asyncdb", "_pytest", "pytest", "pluggy", "pytest_asyncio", "anyio"),
    }
)

#: Where a task's own frames end: an event loop runs it.
_LOOPS = frozenset({"asyncio.events", "asyncio.base_events", "asyncio.runners"})


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
            if module in _LOOPS:
                return lines[::-1]
            if module.partition(".")[0] not in _FOREIGN:
                lines.append(f"{_path(frame)}:{frame.f_lineno} in {frame.f_code.co_name}")
                if len(lines) == limit:
                    return lines[::-1]
            frame = frame.f_back
        current = current.parent
        frame = current.gr_frame if current is not None else None
    return lines[::-1]


def _path(frame: FrameType) -> str:
    """The frame's file as a user would write it: from the current folder, if it is below."""
    path = frame.f_code.co_filename
    here = os.getcwd() + os.sep  # noqa: PTH109  # a string is all that is needed
    return path.removeprefix(here)
