"""The private names of SQLAlchemy, all of them, and the only place that replaces a method of it.

tests/unit/test_internals.py and tests/unit/test_private_names.py fail if a name is gone.
``_connection`` and ``_async_soft_close`` are also names that SQLAlchemy calls on our DBAPI
connections and cursors (``isolation/dbapi.py``), because its dialects do so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect, Engine
    from sqlalchemy.pool import PoolProxiedConnection

#: Marks the greenlets in which SQLAlchemy may await. Without it every statement that runs in a
#: pooled greenlet raises MissingGreenlet, and finalizers cannot be told from calls.
GREENLET_MARK = "__sqlalchemy_greenlet_provider__"


def in_greenlet() -> bool:
    """Can the caller await in the way of SQLAlchemy? False in a finalizer and in sync code."""
    import greenlet

    return getattr(greenlet.getcurrent(), GREENLET_MARK, False) is True


def execution_lock(adapted: Any) -> contextlib.AbstractAsyncContextManager[Any]:
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


def buffered_rows(cursor: Any) -> list[Any]:
    """The rows of a stream that the adapter has fetched, and SQLAlchemy has not.

    Without it they are lost when the stream's transaction ends.
    """
    return list(getattr(cursor, "_rowbuffer", ()))


def watch_checkouts(callback: Callable[[Engine], object]) -> Callable[[], None]:
    """Call *callback* before any engine of this process checks out a connection.

    The events of SQLAlchemy come too late, when there is a connection already, or do not know
    the engine. ``raw_connection`` is public; that every checkout calls it is not documented.

    Returns:
        A function that ends it.
    """
    from sqlalchemy.engine import Engine

    original = Engine.raw_connection

    def raw_connection(engine: Engine) -> PoolProxiedConnection:
        callback(engine)
        return original(engine)

    def stop() -> None:
        Engine.raw_connection = original  # type: ignore[method-assign]

    Engine.raw_connection = raw_connection  # type: ignore[method-assign,assignment]
    return stop


def root_engine(engine: Engine) -> Engine:
    """The engine from which *engine* was derived by ``execution_options()``, or itself.

    Without ``_proxied`` a derived engine counts as an engine that is not named.
    """
    while (parent := getattr(engine, "_proxied", None)) is not None:
        engine = parent
    return engine


def connect_isolation_level(dialect: Dialect) -> Any:
    """The argument ``isolation_level`` of ``create_engine``.

    Without ``_on_connect_isolation_level`` an engine in AUTOCOMMIT loses it during a test.
    """
    return getattr(dialect, "_on_connect_isolation_level", None)
