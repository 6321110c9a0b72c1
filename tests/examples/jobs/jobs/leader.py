"""One leader among the workers, by a lock that the server keeps for a connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text

from jobs import db

_TRY = {
    "postgresql": "SELECT pg_try_advisory_lock(4711)",
    "mysql": "SELECT GET_LOCK('jobs.leader', 0)",
    "mariadb": "SELECT GET_LOCK('jobs.leader', 0)",
}
_RELEASE = {
    "postgresql": "SELECT pg_advisory_unlock(4711)",
    "mysql": "SELECT RELEASE_LOCK('jobs.leader')",
    "mariadb": "SELECT RELEASE_LOCK('jobs.leader')",
}


@asynccontextmanager
async def leadership() -> AsyncIterator[bool]:
    """Am I the leader? As long as it is entered, nobody else is."""
    async with db.engine.connect() as connection:
        got = bool(await connection.scalar(text(_TRY[connection.dialect.name])))
        try:
            yield got
        finally:
            if got:
                await connection.execute(text(_RELEASE[connection.dialect.name]))
