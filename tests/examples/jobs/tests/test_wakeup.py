from __future__ import annotations

import asyncio

import pytest
from jobs.wakeup import enqueue_and_notify, listening
from sqlalchemy import text

pytestmark = pytest.mark.asyncdb("postgres")


@pytest.mark.asyncdb("postgres+asyncpg")
async def test_a_sleeping_worker_wakes_up():
    async with listening() as names, asyncio.timeout(10):
        waiting = asyncio.create_task(names.get())
        await enqueue_and_notify("first")
        assert await waiting == "first"
        await enqueue_and_notify("second")
        assert await names.get() == "second"


@pytest.mark.asyncdb("postgres+psycopg")
async def test_with_psycopg(asyncdb_engine):
    async with asyncdb_engine.connect() as connection, asyncio.timeout(10):
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("LISTEN jobs"))
        raw = await connection.get_raw_connection()
        await enqueue_and_notify("first")
        async for notice in raw.driver_connection.notifies(stop_after=1):
            assert notice.payload == "first"


@pytest.mark.asyncdb("postgres+asyncpg")
async def test_on_a_connection_of_the_driver_alone(asyncdb_url):
    import asyncpg

    heard = asyncio.Queue()
    url = asyncdb_url.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(url)
    await connection.add_listener("jobs", lambda *found: heard.put_nowait(found[-1]))
    await enqueue_and_notify("first")
    async with asyncio.timeout(10):
        assert await heard.get() == "first"
    await connection.close()


@pytest.mark.asyncdb("postgres+psycopg")
async def test_on_a_connection_of_psycopg_alone(asyncdb_url):
    import psycopg

    url = asyncdb_url.set(drivername="postgresql").render_as_string(hide_password=False)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("LISTEN jobs")
        await enqueue_and_notify("first")
        async for notice in connection.notifies(timeout=10, stop_after=1):
            assert notice.payload == "first"
