"""The drivers for MySQL and MariaDB.

Here are the private names of asyncmy and aiomysql, each with what needs it.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import re
from collections.abc import Sequence
from typing import Any

from pytest_asyncdb.abc import Driver, Rows, Side
from pytest_asyncdb.backends.mysql_dump import literal

#: ``SERVER_STATUS_IN_TRANS`` of the protocol.
_IN_TRANSACTION = 1
#: ``COM_QUERY`` and ``COM_RESET_CONNECTION``.
_QUERY, _RESET = 0x03, 0x1F

#: Is there a table that no rollback undoes, such as one of MyISAM?
_NOT_UNDONE = (
    "SELECT 1 FROM information_schema.tables JOIN information_schema.engines USING (engine) "
    "WHERE table_schema = database() AND transactions = 'NO' LIMIT 1"
)

#: Session variables to ignore, because connecting does not set them.
_VOLATILE = (
    *("timestamp", "rand_seed1", "rand_seed2", "statement_id"),
    *("character_set_database", "collation_database"),
    # The account's limit, which MariaDB shows until the session is reset.
    "max_user_connections",
)


def _value(value: str) -> str:
    """Return the value of a variable as SET takes it."""
    return value if re.fullmatch(r"-?\d+(\.\d+)?", value) else literal(value)


@functools.cache
def _silent(module: str) -> type:
    """Return a cursor class of the driver that ignores the server's warnings.

    ``_show_warnings`` has no public name. Without it the plugin's own statements cause log lines
    and Python warnings in the user's tests.
    """
    cursors: Any = importlib.import_module(f"{module}.cursors")

    async def show_none(self: Any, connection: Any) -> None:
        pass

    return type("Silent", (cursors.Cursor,), {"_show_warnings": show_none})


class _MySQLDriver(Driver):
    """What asyncmy and aiomysql have in common; both are derived from PyMySQL."""

    one_result = True
    takes_turns = False

    def in_progress(self, begun: bool) -> Exception | None:
        # asyncio raises this, because neither driver has a lock.
        return RuntimeError(
            "readexactly() called while another coroutine is already waiting for incoming data"
        )

    def close_cursor(self, cursor: Any) -> bool:
        # Closing only reads the results that are left. No public name shows whether there are any.
        result = cursor._cursor._result
        return result is None or not result.has_next

    async def run(self, connection: Any, statements: Sequence[str]) -> Sequence[Rows]:
        # Both drivers always allow several statements in one round trip.
        cursor = connection.cursor(_silent(self.module))
        if not hasattr(cursor, "execute"):
            cursor = await cursor  # aiomysql: a coroutine that is also a context manager
        try:
            await cursor.execute("; ".join(statements))
            answers = [await cursor.fetchall()]
            while await cursor.nextset():
                answers.append(await cursor.fetchall())
            return answers
        finally:
            await cursor.close()

    async def session_settings(self, connection: Any) -> Sequence[str]:
        variables = "SHOW SESSION VARIABLES"
        connected: dict[str, str] = dict(await self.ask(connection, variables))
        await self.reset_session(connection, [], [])
        after: dict[str, str] = dict(await self.ask(connection, variables))
        values = [
            f"{name} = {_value(value)}"
            for name, value in connected.items()
            if after.get(name) != value and name not in _VOLATILE
        ]
        # asyncmy has no public name for the command.
        command = getattr(connection, "init_command", getattr(connection, "_init_command", None))
        settings = [command] if command else []
        settings += [f"SET {', '.join(values)}"] if values else []
        await self.reset_session(connection, [], settings)
        return settings

    async def reset_session(
        self, connection: Any, first: Sequence[str], then: Sequence[str]
    ) -> bool | None:
        # COM_RESET_CONNECTION rolls back and resets everything but the database. No driver has a
        # method for it, and no driver sends several commands before it reads an answer.
        commands = [(_QUERY, "; ".join(first)), (_RESET, ""), (_QUERY, "; ".join(then))]
        commands = [one for one in commands if one[1] or one[0] == _RESET]
        for command, text in commands:
            await connection._execute_command(command, text.encode())
        warnings = []
        for _ in commands:
            connection._next_seq_id = 1
            await connection._read_query_result()
            warnings.append(connection._result.warning_count)
            while connection._result.has_next:
                await connection.next_result()
        getattr(connection, "_stmt_cache", {}).clear()  # asyncmy's cache of prepared statements
        # asyncmy ignores a status of zero, and would believe that autocommit is on.
        connection.server_status = connection._result.server_status
        # Temporary tables cause warnings, too.
        return None if first and warnings[0] and await self.ask(connection, _NOT_UNDONE) else True

    async def cancel(self, connection: Any, statement: asyncio.Future[Any], side: Side) -> None:
        # Cancelling the future would make the driver close the connection.
        await side(f"KILL QUERY {int(connection.thread_id())}")

    def error_code(self, error: BaseException) -> int | str | None:
        code = error.args[0] if error.args else None
        return code if isinstance(code, int) else None


class Asyncmy(_MySQLDriver):
    """https://github.com/long2ice/asyncmy."""

    name = "asyncmy"
    module = "asyncmy"
    extra = "asyncmy"

    def in_transaction(self, connection: Any) -> bool | None:
        # connection.server_status keeps the last status that was not zero, so it does not show the
        # end of a transaction. The last result, which has no public name, shows it.
        result = connection._result
        if result is None and connection.server_status & _IN_TRANSACTION:
            return True
        if result is None or result.unbuffered_active:
            return None  # an error has no status, and may have come after a begin
        return bool(result.server_status & _IN_TRANSACTION)

    def is_closed(self, connection: Any) -> bool:
        return not connection.connected

    def socket(self, connection: Any) -> Any:
        # No public name; see Asyncpg.socket.
        return connection._transport.get_extra_info("socket")


class Aiomysql(_MySQLDriver):
    """https://aiomysql.readthedocs.io."""

    name = "aiomysql"
    module = "aiomysql"
    extra = "aiomysql"

    def in_transaction(self, connection: Any) -> bool | None:
        if connection.server_status & _IN_TRANSACTION:
            return True
        # aiomysql ignores the status that comes with rows, although reading begins a transaction,
        # too. An error has no status. The last result has no public name.
        result = connection._result
        return None if result is None or result.server_status is None else False

    def is_closed(self, connection: Any) -> bool:
        return bool(connection.closed)

    def socket(self, connection: Any) -> Any:
        # No public name; see Asyncpg.socket.
        return connection._writer.transport.get_extra_info("socket")
