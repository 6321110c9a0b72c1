"""The lines of the user's code that led to a statement, also across SQLAlchemy's greenlets."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

from pytest_asyncdb._record.statement_log import Place, line_of

if TYPE_CHECKING:
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


def user_places(limit: int = 3) -> list[Place]:
    """The innermost lines of the user's code in the current task, the innermost first.

    SQLAlchemy runs its sync code in a greenlet; the coroutine that awaits it is in that
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
                places.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
                if len(places) == limit:
                    return places
            frame = frame.f_back
        current = current.parent
        frame = current.gr_frame if current is not None else None
    return places


def lines_of(places: Sequence[Place]) -> list[str]:
    """Places as text, the innermost last."""
    return [line_of(place) for place in reversed(places)]


@functools.cache
def _kind(name: str) -> str:
    if name in _ENDS:
        return "end"
    return "foreign" if name.partition(".")[0] in _FOREIGN else "user"
