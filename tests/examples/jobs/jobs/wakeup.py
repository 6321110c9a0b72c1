"""Workers that sleep until there is a job, by PostgreSQL's LISTEN and NOTIFY.

https://www.postgresql.org/docs/current/sql-notify.html
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text

from jobs.db import Session, engine
from jobs.models import Job


async def enqueue_and_notify(name: str) -> None:
    async with Session.begin() as session:
        session.add(Job(name=name))
        await session.execute(text("SELECT pg_notify('jobs', :name)"), {"name": name})


@asynccontextmanager
async def listening() -> AsyncIterator[asyncio.Queue[str]]:
    """The names of jobs as they come in, on a connection of the engine; asyncpg's way."""
    names: asyncio.Queue[str] = asyncio.Queue()

    def heard(connection: object, pid: int, channel: str, payload: str) -> None:
        names.put_nowait(payload)

    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        await raw.driver_connection.add_listener("jobs", heard)
        try:
            yield names
        finally:
            await raw.driver_connection.remove_listener("jobs", heard)
