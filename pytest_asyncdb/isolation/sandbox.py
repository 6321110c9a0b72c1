"""An AsyncEngine whose every checkout is a branch of one outer transaction.

To SQLAlchemy it is an ordinary engine: its pool makes a :class:`SandboxConnection` where
another one would connect.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pytest_asyncdb.isolation.dbapi import SandboxConnection

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import ConnectionPoolEntry

    from pytest_asyncdb.isolation.backing_connection import Connector
    from pytest_asyncdb.isolation.outer_transaction import OuterTransaction


def sandboxed_engine(outer: OuterTransaction, dialect: Any) -> AsyncEngine:
    """An engine on *outer*, for one test; it costs no round trip."""
    numbers = itertools.count(1)

    def check_out(entry: ConnectionPoolEntry) -> SandboxConnection:
        outer.guard.check_alive("connect")  # else the pool would wait for it to come back
        outer.entries.append(entry)
        return SandboxConnection(outer, next(numbers))

    return engine_on(outer.link.connector, dialect, check_out)


def engine_on(
    connector: Connector, dialect: Any, check_out: Callable[[ConnectionPoolEntry], Any]
) -> AsyncEngine:
    """An engine for one test, whose pool gets its connections from *check_out*.

    SQLAlchemy's ``Engine`` is made directly, since ``create_engine`` would ask the server
    for what the connector's dialect knows already. The cache of compiled statements is the
    connector's, so that a test does not compile what an earlier one has.
    """
    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import NullPool

    pool: Any = NullPool(check_out, dialect=dialect)  # type: ignore[arg-type]
    options = {"compiled_cache": connector.compiled_cache, **connector.execution_options}
    return AsyncEngine(
        Engine(
            pool,
            dialect,
            connector.url,
            echo=connector.echo,
            hide_parameters=connector.hide_parameters,
            query_cache_size=0,
            execution_options=options,
        )
    )
