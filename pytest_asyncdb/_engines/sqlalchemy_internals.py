"""The private names of SQLAlchemy, all of them, and the only place that replaces a method of it.

tests/unit/test_internals.py and tests/unit/test_private_names.py fail if a name is gone.
``_connection`` and ``_async_soft_close`` are also names that SQLAlchemy calls on our DBAPI
connections and cursors (``isolation/dbapi.py``), because its dialects do so.
"""

from __future__ import annotations

import contextlib
import copy
import sys
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect, Engine
    from sqlalchemy.pool import PoolProxiedConnection

#: Marks the greenlets in which SQLAlchemy may await. Without it every statement that runs in a
#: pooled greenlet raises MissingGreenlet, and finalizers cannot be told from calls.
GREENLET_MARK = "__sqlalchemy_greenlet_provider__"
#: The attribute of a mapped object with its state. Without it objects that a module makes at import
#: are missing in the databases of further backends.
_STATE = "_sa_instance_state"


def in_greenlet() -> bool:
    """Can the caller await in the way of SQLAlchemy? False in a finalizer and in sync code."""
    import greenlet

    return getattr(greenlet.getcurrent(), GREENLET_MARK, False) is True


def cursor_awaits(driver: str) -> bool:
    """Does the adapter await when it makes a cursor, rather than when that executes?"""
    import sqlalchemy

    if sqlalchemy.__version__ < "2.1":
        return driver in ("aiomysql", "asyncmy")
    return driver != "asyncpg"


def ends_first(driver: str) -> bool:
    """Does the end of a transaction come before the statements that wait for their turn?

    The lock of SQLAlchemy's adapter orders the statements of aiosqlite, and ends do not wait for
    it. SQLAlchemy 2.0 has no such lock.
    """
    return driver == "aiosqlite" and cursor_awaits(driver)


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


def forget_transaction(adapted: Any) -> None:
    """Let the adapter notice that its transaction was rolled back by the plugin.

    Without it the adapter of asyncpg takes it to be still open; others ask the driver.
    """
    for name, value in (("_transaction", None), ("_started", False)):  # the latter is 2.0's
        if hasattr(adapted, name):
            setattr(adapted, name, value)


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


#: Who watches; the last one is that of the innermost pytest run in this process.
_watchers: list[Callable[[Engine], object]] = []


def watch_checkouts(callback: Callable[[Engine], object]) -> Callable[[], None]:
    """Call *callback* before any engine of this process checks out a connection.

    SQLAlchemy need not be imported yet. Of several callbacks only the last one is called.

    The events of SQLAlchemy come too late, when there is a connection already, or do not know
    the engine. ``raw_connection`` is public; that every checkout calls it is not documented.

    Returns:
        A function that ends it; may be called twice.
    """

    def stop() -> None:
        if callback in _watchers:
            _watchers.remove(callback)
            sys.meta_path.remove(_Arming)

    _watchers.append(callback)
    sys.meta_path.insert(0, _Arming)
    _Arming.find_spec("")
    return stop


class _Arming:
    """A finder that finds nothing: every import asks it, also that of the first engine's
    dialect, and by then SQLAlchemy is there."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        engine: Any = getattr(sys.modules.get("sqlalchemy.engine"), "Engine", None)
        original = getattr(engine, "raw_connection", None)
        if original is None or hasattr(original, "asyncdb_watched"):
            return

        def raw_connection(engine: Engine) -> PoolProxiedConnection:
            if _watchers:
                _watchers[-1](engine)
            return original(engine)  # type: ignore[no-any-return]

        raw_connection.asyncdb_watched = True  # type: ignore[attr-defined]
        engine.raw_connection = raw_connection


def mapped_state(value: Any) -> Any:
    """The state of a mapped object; None: it is none. ``inspect()`` would connect for an engine."""
    return getattr(value, _STATE, None)


def mapped_values(instance: Any) -> dict[str, Any]:
    """What a mapped object holds, without its state."""
    return {name: value for name, value in vars(instance).items() if name != _STATE}


def replace_values(instance: Any, values: Mapping[str, Any]) -> None:
    """Let a mapped object hold *values* and nothing else, without events."""
    for name in mapped_values(instance):
        del vars(instance)[name]
    vars(instance).update(values)


def without_events(value: Any) -> Any:
    """A collection of related objects as the one that it is derived from; else *value*."""
    for kind in (list, set, dict):
        if isinstance(value, kind) and hasattr(value, "_sa_adapter"):
            return kind(value)
    return value


def root_engine(engine: Engine) -> Engine:
    """The engine from which *engine* was derived by ``execution_options()``, or itself.

    Without ``_proxied`` a derived engine counts as an engine that is not named.
    """
    while (parent := getattr(engine, "_proxied", None)) is not None:
        engine = parent
    return engine


def connect_isolation_level(dialect: Dialect) -> Any:
    """The argument ``isolation_level`` of ``create_engine``, in SQLAlchemy's spelling.

    Without ``_on_connect_isolation_level`` an engine in AUTOCOMMIT loses it during a test.
    """
    level = getattr(dialect, "_on_connect_isolation_level", None)
    return level and level.replace("_", " ").upper()


def with_listeners_of(own: Dialect, dialect: Dialect) -> Any:
    """A copy of *dialect* with the listeners of *own*, and with those that it gets later.

    The copy is kept for later tests, as keys of compiled statements contain the dialect. Without
    ``_has_events`` no listener is called.
    """
    copies = vars(own).setdefault("asyncdb_copies", weakref.WeakKeyDictionary())
    found = copies.get(dialect) or copies.setdefault(dialect, copy.copy(dialect))
    found.dispatch, found._has_events = own.dispatch, True
    found.default_schema_name = dialect.default_schema_name
    return found


def drop_listeners(dialect: Any) -> None:
    """Let *dialect* have the listeners of its class only.

    Without ``dispatch`` and ``_has_events`` a listener of one test is called in the next one.
    """
    for name in ("dispatch", "_has_events"):
        vars(dialect).pop(name, None)


def json_arguments(dialect: Dialect) -> dict[str, Any]:
    """The arguments ``json_serializer`` and ``json_deserializer`` of ``create_engine``.

    Without ``_json_serializer`` the test's engine fails for values that only the application's
    function knows.
    """
    names = ("json_serializer", "json_deserializer")
    return {name: value for name in names if (value := getattr(dialect, f"_{name}", None))}
