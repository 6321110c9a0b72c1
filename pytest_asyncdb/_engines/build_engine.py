"""``build_engine``: an AsyncEngine with the pool and connection settings that its URL needs.

This is the only module that knows which settings the dialects need. It uses neither pytest nor a
server.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_asyncdb.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncEngine

#: Held while SQLAlchemy imports a dialect at its first use. If two threads import the dialects of
#: MySQL and MariaDB at the same time, one can see a package that is half imported.
DIALECTS = threading.RLock()

#: An execution option that marks the plugin's own engines.
OURS = "asyncdb_ours"


def without_pool(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return *options* of ``create_engine`` without those of the pool; listeners of the pool
    stay."""
    pool = ("pool", "max_overflow")
    return {
        name: value
        for name, value in options.items()
        if not name.startswith(pool) or name == "pool_events"
    }


def build_engine(url: str | URL, *, foreign_keys: bool = True, **options: Any) -> AsyncEngine:
    """Return an AsyncEngine with the right pool and connection settings for *url*.

    SQLite in memory keeps one connection (a second one would see an empty database), and
    every SQLite connection has real transactions and enforced foreign keys. MySQL and
    MariaDB use utf8mb4. Server connections are tested before use and replaced after half
    an hour, so that a server or load balancer that drops idle ones does no harm.

    Args:
        url: A SQLAlchemy URL with an async driver, such as
            ``postgresql+asyncpg://user:password@host/name``.
        foreign_keys: SQLite only: enforce foreign keys, as servers do.
        options: Arguments of :func:`sqlalchemy.ext.asyncio.create_async_engine`; they win.

    Raises:
        ConfigError: The URL's driver is not an async one.

    Source: https://docs.sqlalchemy.org/en/21/dialects/sqlite.html#sqlite-enabling-transactions
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import StaticPool

    parsed = make_url(url)
    with DIALECTS:
        dialect_class = parsed.get_dialect()
    if not dialect_class.get_async_dialect_cls(parsed).is_async:
        raise ConfigError(
            f"the driver of {parsed.render_as_string()!r} is not an async one",
            [],
            ["name one of aiosqlite, asyncpg, psycopg, asyncmy, aiomysql in the URL"],
        )
    dialect = parsed.get_backend_name()
    if dialect == "sqlite":
        memory = parsed.database in (None, "", ":memory:")
        if memory and "poolclass" not in options:
            options["poolclass"] = StaticPool
        engine = create_async_engine(parsed, **options)
        _prepare_sqlite(engine, foreign_keys, "BEGIN" if memory else "BEGIN IMMEDIATE")
        return engine
    if dialect in ("mysql", "mariadb") and "charset" not in parsed.query:
        parsed = parsed.update_query_dict({"charset": "utf8mb4"})
    if "poolclass" not in options and "pool" not in options:
        options = {"pool_pre_ping": True, "pool_recycle": 1800, **options}
    return create_async_engine(parsed, **options)


def _prepare_sqlite(engine: AsyncEngine, foreign_keys: bool, begin: str) -> None:
    """Give SQLite real transactions, because sqlite3 begins them late and ends them early.

    A file is locked from the beginning of a transaction (IMMEDIATE). If two transactions began
    without a lock and then both wrote, one would fail at once instead of waiting.
    """
    from sqlalchemy import event

    @event.listens_for(engine.sync_engine, "connect")
    def _connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        if foreign_keys:
            cursor = connection.cursor()
            cursor.execute("PRAGMA foreign_keys = ON")
            cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)
