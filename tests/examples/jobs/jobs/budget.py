"""Spending from a budget in SERIALIZABLE transactions, which may fail and are tried again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sqlalchemy.exc import DBAPIError

from jobs import db
from jobs.models import Budget

#: PostgreSQL's SQLSTATEs for a serialization failure and a deadlock; MySQL's and MariaDB's
#: numbers for a deadlock, and MariaDB's for a row that has changed since it was read.
_AGAIN = {"40001", "40P01", 1213, 1020}


async def spend(name: str, amount: int, between: Callable[[], Awaitable[None]]) -> int:
    """Take *amount* from a budget; *between* looking and taking something else may happen.

    Returns:
        How many attempts it took.
    """
    attempts = 0
    while True:
        attempts += 1
        try:
            async with db.Session() as session:
                await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
                budget = await session.get_one(Budget, name)
                await between()
                budget.left -= amount
                await session.commit()
                return attempts
        except DBAPIError as error:
            if code(error) not in _AGAIN:
                raise


def code(error: DBAPIError) -> str | int | None:
    """The server's own code of an error."""
    sqlstate = getattr(error.orig, "sqlstate", None)
    return sqlstate if sqlstate is not None else error.orig.args[0]
