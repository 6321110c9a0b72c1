"""SQLite as data: in memory, in this process, one named database for each use.

The ``memdb`` VFS gives an in-memory database a name, so that several connections of one
process may open it (https://www.sqlite.org/src/file/src/memdb.c); it exists as long as
one of them is open, and needs SQLite 3.36.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from pytest_asyncdb._types import Capabilities, Server
from pytest_asyncdb.abc import Backend, Closing, Driver

if TYPE_CHECKING:
    import asyncio

    from sqlalchemy.engine import URL


class Aiosqlite(Driver):
    """https://aiosqlite.omnilib.dev: sqlite3 in a thread of its own."""

    name = "aiosqlite"
    module = "aiosqlite"
    extra = "test"

    def adapt(self, adapted: Any) -> None:
        """sqlite3 begins transactions late and commits them before DDL unless told not to:
        https://docs.sqlalchemy.org/en/21/dialects/sqlite.html#pysqlite-serializable"""
        adapted.isolation_level = None

    async def run(self, connection: Any, statements: Sequence[str]) -> None:
        for statement in statements:
            await (await connection.execute(statement)).close()

    def in_transaction(self, connection: Any) -> bool | None:
        return bool(connection.in_transaction)

    def is_closed(self, connection: Any) -> bool:
        try:
            return connection.in_transaction is None
        except ValueError:  # "no active connection"
            return True

    async def cancel(
        self,
        connection: Any,
        statement: asyncio.Future[Any],
        side: Callable[[str], Coroutine[Any, Any, None]],
    ) -> None:
        await connection.interrupt()


class SQLite(Backend):
    """SQLite, from Python's own ``sqlite3``."""

    name = "sqlite"
    label = "SQLite"
    dialect = "sqlite"
    schemes = ("sqlite",)
    drivers = (Aiosqlite,)
    capabilities = Capabilities(
        transactional_ddl=True,
        several_connections=False,
        sequences_roll_back=True,
        schemas=False,
    )

    deferred_exist = (
        "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE sql LIKE '%initially%deferred%')"
    )
    # Nothing but COMMIT asks for the violations that are deferred; what is listed here becomes
    # a violation of an immediate foreign key, with the same error, where they are switched on.
    deferred_prepare = (
        "CREATE TEMPORARY TABLE asyncdb_deferred"
        " (id INTEGER PRIMARY KEY, missing INTEGER REFERENCES asyncdb_deferred)",
    )
    deferred_check = (
        "INSERT INTO temp.asyncdb_deferred (missing)"
        " SELECT -1 FROM pragma_foreign_key_check LIMIT 1",
    )

    def url(self, server: Server, driver: str, database: str | None) -> URL:
        from sqlalchemy.engine import URL

        return URL.create(
            f"sqlite+{driver}",
            database=f"file:/{database}" if database else None,
            query={"vfs": "memdb", "uri": "true"} if database else {},
        )

    def hold(self, url: URL) -> Closing | None:
        import sqlite3

        assert url.database is not None
        # Without check_same_thread the last test's thread could not close it.
        return sqlite3.connect(f"{url.database}?vfs=memdb", uri=True, check_same_thread=False)

    def create_database(self, name: str) -> Sequence[str]:
        return ()

    def drop_database(self, name: str, server: Server) -> Sequence[str]:
        return ()

    def list_databases(self) -> str:
        return "SELECT name FROM pragma_database_list WHERE false"

    def version_query(self) -> str:
        return "SELECT sqlite_version()"
