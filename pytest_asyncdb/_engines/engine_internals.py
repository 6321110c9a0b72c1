"""What the plugin needs of SQLAlchemy's ``Engine`` that is not public, and the only place where
a method of it is replaced. tests/unit/test_private_names.py fails if a name is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect, Engine
    from sqlalchemy.pool import PoolProxiedConnection


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
