"""The drivers asyncpg and psycopg.

Here are the private names of both that the plugin needs, each with what needs it.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pytest_asyncdb.abc import Driver, Rows, Side


class _PostgresDriver(Driver):
    """What asyncpg and psycopg have in common."""

    def adapt(self, adapted: Any, begin: str | None = None) -> None:
        adapted.autocommit = True

    def close_cursor(self, cursor: Any) -> bool:
        cursor.close()
        return True

    async def run(self, connection: Any, statements: Sequence[str]) -> Sequence[Any]:
        await connection.execute("; ".join(statements))
        return ()

    async def cancel(self, connection: Any, statement: asyncio.Future[Any], side: Side) -> None:
        statement.cancel()  # both drivers cancel it on the server, and wait for that

    def error_code(self, error: BaseException) -> int | str | None:
        return getattr(error, "sqlstate", None)


#: Stands for asyncpg's transaction object if the plugin has begun the transaction by a statement.
_BEGUN_AS_TEXT = types.SimpleNamespace(_isolation=None, _managed=False)
#: Keeps prepared statements of any length for any time. A timer would cost something in each turn
#: of the loop.
_UNLIMITED = {"max_cacheable_statement_size": 0, "max_cached_statement_lifetime": 0}


class Asyncpg(_PostgresDriver):
    """https://magicstack.github.io/asyncpg/."""

    name = "asyncpg"
    module = "asyncpg"
    extra = "asyncpg"
    # Without a name, asyncpg sends a statement again with each execution. By default SQLAlchemy
    # gives it a name.
    pooler_arguments: ClassVar[Mapping[str, Any]] = {
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": lambda: "",
    }
    own_arguments = _UNLIMITED
    takes_turns = False
    begins = False
    keeps_columns = True

    def adapt(self, adapted: Any, begin: str | None = None) -> None:
        super().adapt(adapted, begin)
        # ``_top_xact`` has no public name. Without it asyncpg before 0.32 opens no cursor in the
        # outer transaction.
        adapted.driver_connection._top_xact = _BEGUN_AS_TEXT

    def session_id(self, connection: Any) -> int | None:
        return connection.get_server_pid() or None

    def in_progress(self, begun: bool) -> Exception | None:
        from asyncpg import InterfaceError

        said = "cannot perform operation: another operation is in progress"
        return InterfaceError(said) if begun else None

    def ended_stream(self) -> Exception | None:
        from asyncpg import NoActiveSQLTransactionError

        said = "cursor cannot be used outside of a transaction"
        return NoActiveSQLTransactionError(said)  # type: ignore[no-any-return]

    async def ask(self, connection: Any, query: str) -> Rows:
        return [tuple(row) for row in await connection.fetch(query)]

    async def reset_session(
        self, connection: Any, first: Sequence[str], then: Sequence[str]
    ) -> bool | None:
        # ``_top_xact`` has no public name. Without this the next transaction would be a savepoint.
        if connection._top_xact is not _BEGUN_AS_TEXT:
            connection._top_xact = None
        return await super().reset_session(connection, first, then)

    def in_transaction(self, connection: Any) -> bool | None:
        return bool(connection.is_in_transaction())

    def is_closed(self, connection: Any) -> bool:
        return bool(connection.is_closed())

    def socket(self, connection: Any) -> Any:
        # No public name. Without it, a connection that the server has closed is noticed only when
        # it is used, and the test fails.
        return connection._transport.get_extra_info("socket")


#: libpq's PQTRANS_ACTIVE, PQTRANS_INTRANS, and PQTRANS_INERROR.
_IN_TRANSACTION = (1, 2, 3)


class Psycopg(_PostgresDriver):
    """https://www.psycopg.org/psycopg3/docs/."""

    name = "psycopg"
    module = "psycopg"
    extra = "psycopg"
    pooler_arguments: ClassVar[Mapping[str, Any]] = {"prepare_threshold": None}

    def session_id(self, connection: Any) -> int | None:
        return connection.info.backend_pid or None

    def ended_stream(self) -> Exception | None:
        from psycopg.errors import InvalidCursorName

        return InvalidCursorName("the cursor does not exist: its transaction has ended")

    async def run(self, connection: Any, statements: Sequence[str]) -> Sequence[Any]:
        await super().run(connection, statements)
        if "ROLLBACK" in statements and hasattr(connection, "_prepared"):
            # No public name. psycopg's own rollback() does this, too. Without it, statements that
            # come in every test are prepared again and again, which costs a round trip each.
            connection._prepared.clear()
        return ()

    async def reset_session(
        self, connection: Any, first: Sequence[str], then: Sequence[str]
    ) -> bool | None:
        if not (connection.autocommit or self.in_transaction(connection)):
            then = ["ROLLBACK", *then]  # ends the transaction that run() begins
        return await super().reset_session(connection, first, then)

    async def ask(self, connection: Any, query: str) -> Rows:
        return await (await connection.execute(query)).fetchall()  # type: ignore[no-any-return]

    def in_transaction(self, connection: Any) -> bool | None:
        # By number, because ``info`` creates an object and a member of an enum for each question.
        return connection.pgconn.transaction_status in _IN_TRANSACTION

    def is_closed(self, connection: Any) -> bool:
        return bool(connection.closed)

    def socket(self, connection: Any) -> Any:
        return connection.fileno()
