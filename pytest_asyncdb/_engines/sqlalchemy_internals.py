"""The private names of SQLAlchemy's asyncio adapters, all of them.

``_connection`` and ``_async_soft_close`` are also names that SQLAlchemy calls on our DBAPI
connections and cursors (``isolation/dbapi.py``), because its dialects do so.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

#: Marks the greenlets in which SQLAlchemy may await. Without it every statement that runs in a
#: pooled greenlet raises MissingGreenlet, and finalizers cannot be told from calls.
GREENLET_MARK = "__sqlalchemy_greenlet_provider__"


def in_greenlet() -> bool:
    """Can the caller await in the way of SQLAlchemy? False in a finalizer and in sync code."""
    import greenlet

    return getattr(greenlet.getcurrent(), GREENLET_MARK, False) is True


def execution_lock(adapted: Any) -> AbstractAsyncContextManager[Any]:
    """The lock that lets one statement at a time run on a connection.

    Without it a savepoint of the plugin meets a statement that is still running, and the driver
    raises "another operation is in progress". SQLAlchemy 2.0 has no such lock for aiosqlite and
    psycopg, which serialise statements themselves.
    """
    return getattr(adapted, "_execute_mutex", None) or contextlib.nullcontext()


def raise_as_dbapi_error(adapted: Any, error: Exception) -> None:
    """Raise *error* of a driver as the adapter's cursors would, if they translate it.

    Without it a failed COMMIT on asyncpg raises the driver's error in place of IntegrityError.
    """
    translate = getattr(adapted, "_handle_exception", None)
    if translate is not None:
        translate(error)


async def soft_close(cursor: Any) -> None:
    """Close the driver's cursor and keep the rows that were fetched.

    SQLAlchemy calls this on the cursor of a result that sync code will read.
    """
    await cursor._async_soft_close()
