"""SQLite as data: named in-memory databases of this process, and files for several connections.

The ``memdb`` VFS gives an in-memory database a name, so that several connections of one process may
open it (https://www.sqlite.org/src/file/src/memdb.c). The database exists as long as one of them is
open. This needs SQLite 3.36.
"""

from __future__ import annotations

import contextlib
import re
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pytest_asyncdb import abc

if TYPE_CHECKING:
    import asyncio
    import sqlite3

    from sqlalchemy.engine import URL

    from pytest_asyncdb.abc import Server


#: Actions about which SQLite asks its authorizer, and which change a connection, not the database:
#: SQLITE_CREATE_TEMP_INDEX, _TABLE, _TRIGGER and _VIEW, SQLITE_ATTACH and SQLITE_DETACH.
_ON_THE_CONNECTION = frozenset({3, 4, 5, 6, 24, 25})
_PRAGMA, _CREATE_VTABLE = 19, 29
#: PRAGMAs with an argument that set nothing, and one that the plugin sets back.
_READING = r"(?is)(.*_(x?info|list)|(foreign_key|integrity|quick)_check) .*|defer_foreign_keys off"


class Aiosqlite(abc.Driver):
    """https://aiosqlite.omnilib.dev: sqlite3 in a thread of its own."""

    name = "aiosqlite"
    module = "aiosqlite"
    extra = "test"

    def __init__(self) -> None:
        #: What has changed each connection.
        self._changes: weakref.WeakKeyDictionary[Any, list[str | None]] = (
            weakref.WeakKeyDictionary()
        )

    def adapt(self, adapted: Any, begin: str | None = None) -> None:
        """Make sqlite3 begin transactions by *begin*, or never.

        Otherwise sqlite3 begins transactions late and commits them before DDL:
        https://docs.sqlalchemy.org/en/21/dialects/sqlite.html#sqlite-enabling-transactions
        """
        adapted.isolation_level = begin and begin.partition(" ")[2]

    async def run(self, connection: Any, statements: Sequence[str]) -> Sequence[Any]:
        for statement in statements:
            await (await connection.execute(statement)).close()
        return ()

    async def watch_session(self, connection: Any) -> None:
        # SQLite asks when it compiles a statement, so this costs nothing when the statement runs
        # again.
        changes = self._changes[connection] = []

        def note(
            action: int, name: str | None, value: str | None, schema: str | None, _: str | None
        ) -> int:
            sets = action == _PRAGMA and value is not None
            sets = sets and not re.fullmatch(_READING, f"{name} {value}")
            temporary = action == _CREATE_VTABLE and schema == "temp"
            if sets or temporary or action in _ON_THE_CONNECTION:
                changes.append(name)
            return 0  # SQLITE_OK

        if hasattr(connection, "set_authorizer"):
            await connection.set_authorizer(note)
        else:  # aiosqlite before 0.22 has no public name for it
            await connection._execute(connection._conn.set_authorizer, note)

    async def reset_session(
        self, connection: Any, first: Sequence[str], then: Sequence[str]
    ) -> bool:
        await self.run(connection, first)
        await connection.rollback()
        return not self._changes.get(connection)

    def split(self, script: str) -> Sequence[str]:
        from sqlite3 import complete_statement

        parts, text = [], ""
        for piece in re.split("(?<=;)", script):
            text += piece
            if complete_statement(text):  # knows strings, comments and triggers
                parts.append(text)
                text = ""
        return [*parts, text] if text.strip() else parts

    def close_cursor(self, cursor: Any) -> bool:
        return True  # SQLite has reset the statement after its last row

    def in_transaction(self, connection: Any) -> bool | None:
        try:
            return connection.in_transaction  # type: ignore[no-any-return]
        except ValueError:  # "no active connection"
            return None

    def is_closed(self, connection: Any) -> bool:
        # Not by in_transaction(), because then SQLite waits while a statement runs.
        try:
            connection.isolation_level  # noqa: B018
        except ValueError:  # "no active connection"
            return True
        return False

    async def cancel(self, connection: Any, statement: asyncio.Future[Any], side: abc.Side) -> None:
        from asyncio import wait

        # The thread of aiosqlite may not have begun the statement yet. So interrupt it until it has
        # ended.
        while not statement.done():
            await connection.interrupt()
            await wait([statement], timeout=0.02)

    def error_code(self, error: BaseException) -> int | str | None:
        code = getattr(error, "sqlite_errorcode", None)
        return None if code is None else code & 0xFF  # the higher bits have details


def _connect(url: URL) -> sqlite3.Connection:
    """Open a connection to a named in-memory database or to a file, for any thread."""
    import sqlite3

    if url.query:
        return sqlite3.connect(f"{url.database}?vfs=memdb", uri=True, check_same_thread=False)
    connection = sqlite3.connect(url.database or "", check_same_thread=False)
    # Its work need not be undone, and need not survive a crash of the machine.
    connection.execute("PRAGMA journal_mode = OFF").close()
    connection.execute("PRAGMA synchronous = OFF").close()
    return connection


class SQLiteRestorer(abc.Restorer):
    """Copies the template over the database, which costs less than finding what changed.

    Args:
        keeper: A connection to the database.
        template: A connection to its template.
    """

    def __init__(self, keeper: sqlite3.Connection, template: sqlite3.Connection) -> None:
        self._keeper = keeper
        self._template = template
        self._version = self._schema = 0

    async def remember(self) -> None:
        # Called after the test, when no statement of the test runs any more.
        self._keeper.execute("PRAGMA busy_timeout = 100")
        self._version = self._number("data_version")
        self._schema = self._number("schema_version")

    async def changed(self) -> Sequence[str]:
        import sqlite3

        try:
            self._keeper.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            return [f"{abc.LEFT_OPEN}of this process: {error}"]
        self._keeper.rollback()
        if self._number("data_version") == self._version:
            return []
        return ["schema" if self._number("schema_version") != self._schema else "database"]

    async def restore(self, changed: Sequence[str]) -> bool:
        if any(word.startswith(abc.LEFT_OPEN) for word in changed):
            return False  # it cannot be ended, and backup() would wait for it
        self._template.backup(self._keeper)
        await self.remember()
        return True

    def _number(self, pragma: str) -> int:
        """Return the value of a PRAGMA.

        ``data_version`` changes when another connection commits, not when the keeper does.
        """
        (number,) = self._keeper.execute(f"PRAGMA {pragma}").fetchone()
        return int(number)


class SQLite(abc.Backend):
    """SQLite, from Python's own ``sqlite3``."""

    name = "sqlite"
    label = "SQLite"
    dialect = "sqlite"
    #: Otherwise, if two transactions begin and then both write, one fails at once.
    begin_at_write = "BEGIN IMMEDIATE"
    outside_transactions = r"(within|inside) a transaction$|database (?!table )\S+ is locked$"
    lock_timeout_codes = frozenset({5, 6})  # SQLITE_BUSY, SQLITE_LOCKED
    restores_whole = True
    in_process = True
    file_suffix = ".sqlite"
    schemes = ("sqlite",)
    drivers = (Aiosqlite,)
    capabilities = abc.Capabilities(
        transactional_ddl=True, several_connections=False, sequences_roll_back=True, schemas=False
    )

    deferred_query = (
        "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE sql LIKE '%initially%deferred%')"
    )
    # Only COMMIT checks deferred constraints. This turns their violation into a violation of an
    # immediate foreign key, with the same error, if foreign keys are switched on.
    deferred_prepare = (
        "CREATE TEMPORARY TABLE IF NOT EXISTS asyncdb_deferred"
        " (id INTEGER PRIMARY KEY, missing INTEGER REFERENCES asyncdb_deferred)",
    )
    deferred_check = (
        "PRAGMA defer_foreign_keys = OFF",  # as COMMIT does
        "INSERT INTO temp.asyncdb_deferred (missing)"
        " SELECT -1 FROM pragma_foreign_key_check LIMIT 1",
    )

    def url(self, server: Server, driver: str, database: str | None) -> URL:
        from sqlalchemy.engine import URL

        if database is None or database.endswith(self.file_suffix):
            return URL.create(f"sqlite+{driver}", database=database)
        query = {"vfs": "memdb", "uri": "true"}
        return URL.create(f"sqlite+{driver}", database=f"file:/{database}", query=query)

    def hold(self, url: URL, source: URL | None = None) -> abc.Closing | None:
        keeper = _connect(url)
        if source is not None:
            with contextlib.closing(_connect(source)) as template:
                template.backup(keeper)
        return keeper

    def client_command(self, server: Server, file: str, database: str) -> tuple[Sequence[str], str]:
        return ("sqlite3", file), ""

    def save(self, database: abc.DatabaseRef, path: str) -> None:
        import sqlite3

        with contextlib.closing(sqlite3.connect(path)) as file:
            database.keeper.backup(file)

    def restorer(
        self, sql: abc.Sql, database: abc.DatabaseRef, template: abc.DatabaseRef
    ) -> abc.Restorer:
        return SQLiteRestorer(database.keeper, template.keeper)

    def create_database(self, name: str) -> Sequence[str]:
        return ()

    def drop_database(self, name: str, server: Server) -> Sequence[str]:
        return ()

    def at_connect(self) -> Sequence[str]:
        return ("PRAGMA synchronous = OFF",)  # a file need not survive a crash of the machine

    def lock_timeout(self, seconds: float) -> Sequence[str]:
        return (f"PRAGMA busy_timeout = {round(seconds * 1000)}",)

    def list_databases(self) -> str:
        return "SELECT name FROM pragma_database_list WHERE false"

    def library_version(self) -> str:
        from sqlite3 import sqlite_version

        return sqlite_version

    def version_query(self) -> str:
        return "SELECT sqlite_version()"
