"""All private names of SQLAlchemy that the plugin uses. Only this module replaces a method of
SQLAlchemy.

tests/unit/test_internals.py and tests/unit/test_private_names.py fail if a name is gone.
SQLAlchemy's dialects also use the names ``_connection`` and ``_async_soft_close`` on the plugin's
DBAPI connections and cursors (``isolation/dbapi.py``).
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
#: pooled greenlet raises MissingGreenlet, and finalizers cannot be distinguished from calls.
GREENLET_MARK = "__sqlalchemy_greenlet_provider__"
#: The attribute of a mapped object that holds its state. Without it, objects that a module creates
#: at import are missing in the databases of further backends.
_STATE = "_sa_instance_state"


def in_greenlet() -> bool:
    """Return whether the caller can await as SQLAlchemy does. False in a finalizer and in sync
    code."""
    import greenlet

    return getattr(greenlet.getcurrent(), GREENLET_MARK, False) is True


def cursor_awaits(driver: str) -> bool:
    """Return whether the adapter awaits when it creates a cursor, not when the cursor executes."""
    import sqlalchemy

    if sqlalchemy.__version__ < "2.1":
        return driver in ("aiomysql", "asyncmy")
    return driver != "asyncpg"


def ends_first(driver: str) -> bool:
    """Return whether the end of a transaction comes before statements that wait for their turn.

    For aiosqlite, a lock of SQLAlchemy's adapter orders the statements, and the ends of
    transactions do not wait for that lock. SQLAlchemy 2.0 has no such lock.
    """
    return driver == "aiosqlite" and cursor_awaits(driver)


def execution_lock(adapted: Any) -> contextlib.AbstractAsyncContextManager[Any]:
    """Return the lock that lets one statement at a time run on a connection.

    Without it a savepoint of the plugin meets a statement that is still running, and the driver
    raises "another operation is in progress". SQLAlchemy 2.0 has no such lock for aiosqlite and
    psycopg, which serialise statements themselves.
    """
    return getattr(adapted, "_execute_mutex", None) or contextlib.nullcontext()


def raise_as_dbapi_error(adapted: Any, error: Exception) -> None:
    """Raise a driver's *error* as the adapter's cursors would, if they translate it.

    Without ``_handle_exception`` a failed COMMIT on asyncpg raises the driver's error instead of
    IntegrityError.
    """
    translate = getattr(adapted, "_handle_exception", None)
    if translate is not None:
        translate(error)


def forget_transaction(adapted: Any) -> None:
    """Make the adapter notice that the plugin has rolled back its transaction.

    Without these names the adapter for asyncpg believes that the transaction is open. Other
    adapters ask the driver.
    """
    for name, value in (("_transaction", None), ("_started", False)):  # _started: SQLAlchemy 2.0
        if hasattr(adapted, name):
            setattr(adapted, name, value)


async def soft_close(cursor: Any) -> None:
    """Close the driver's cursor and keep the rows that were fetched.

    SQLAlchemy calls this on the cursor of a result that sync code will read.
    """
    await cursor._async_soft_close()


def buffered_rows(cursor: Any) -> list[Any]:
    """Return the rows of a stream that the adapter has fetched and SQLAlchemy has not.

    Without ``_rowbuffer`` they are lost when the stream's transaction ends.
    """
    return list(getattr(cursor, "_rowbuffer", ()))


#: The callbacks. The last one belongs to the innermost pytest run in this process.
_watchers: list[Callable[[Engine], object]] = []


def watch_checkouts(callback: Callable[[Engine], object]) -> Callable[[], None]:
    """Call *callback* before any engine of this process checks out a connection.

    SQLAlchemy need not be imported yet. If there are several callbacks, only the last one is
    called.

    SQLAlchemy's events come too late, when there is a connection already, or do not know the
    engine. ``raw_connection`` is public, but SQLAlchemy does not document that every checkout calls
    it.

    Returns:
        A function that ends this. It may be called twice.
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
    """An import finder that finds nothing. It replaces ``raw_connection`` when SQLAlchemy is there.

    Every import asks it, also the import of the first engine's dialect. By then SQLAlchemy is
    imported.
    """

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
    """Return the state of a mapped object; None: *value* is not one.

    ``inspect()`` would connect if *value* is an engine.
    """
    return getattr(value, _STATE, None)


def mapped_values(instance: Any) -> dict[str, Any]:
    """Return the values of a mapped object, without its state."""
    return {name: value for name, value in vars(instance).items() if name != _STATE}


def replace_values(instance: Any, values: Mapping[str, Any]) -> None:
    """Replace all values of a mapped object by *values*, without events."""
    for name in mapped_values(instance):
        del vars(instance)[name]
    vars(instance).update(values)


def without_events(value: Any) -> Any:
    """Return a collection of related objects as a plain list, set or dict; any other *value* as it
    is."""
    for kind in (list, set, dict):
        if isinstance(value, kind) and hasattr(value, "_sa_adapter"):
            return kind(value)
    return value


def root_engine(engine: Engine) -> Engine:
    """Return the engine from which ``execution_options()`` has derived *engine*, or *engine*
    itself.

    Without ``_proxied`` a derived engine counts as an engine that is not named.
    """
    while (parent := getattr(engine, "_proxied", None)) is not None:
        engine = parent
    return engine


def connect_isolation_level(dialect: Dialect) -> Any:
    """Return the argument ``isolation_level`` of ``create_engine``, in SQLAlchemy's spelling.

    Without ``_on_connect_isolation_level`` an engine in AUTOCOMMIT loses that level during a test.
    """
    level = getattr(dialect, "_on_connect_isolation_level", None)
    return level and level.replace("_", " ").upper()


def with_listeners_of(own: Dialect, dialect: Dialect) -> Any:
    """Return a copy of *dialect* with the listeners of *own*, and with those that *own* gets later.

    The copy is kept for later tests, because keys of compiled statements contain the dialect.
    Without ``_has_events`` no listener is called.
    """
    copies = vars(own).setdefault("asyncdb_copies", weakref.WeakKeyDictionary())
    found = copies.get(dialect) or copies.setdefault(dialect, copy.copy(dialect))
    found.dispatch, found._has_events = own.dispatch, True
    found.default_schema_name = dialect.default_schema_name
    return found


def drop_listeners(dialect: Any) -> None:
    """Remove all listeners of *dialect* except those of its class.

    Without ``dispatch`` and ``_has_events`` a listener of one test is called in the next one.
    """
    for name in ("dispatch", "_has_events"):
        vars(dialect).pop(name, None)


def json_arguments(dialect: Dialect) -> dict[str, Any]:
    """Return the arguments ``json_serializer`` and ``json_deserializer`` of ``create_engine``.

    Without ``_json_serializer`` the test's engine fails for values that only the application's
    function can serialise.
    """
    names = ("json_serializer", "json_deserializer")
    return {name: value for name in names if (value := getattr(dialect, f"_{name}", None))}
