"""What reaches the database past SQLAlchemy, or past the schema."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from jobs.models import Job
from jobs.queue import enqueue
from sqlalchemy import inspect, select, text

WRITER = """
import asyncio, sys
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

async def main():
    engine = create_async_engine(sys.argv[1])
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO jobs (name) VALUES ('from outside')"))
    await engine.dispose()

asyncio.run(main())
"""


@pytest.mark.asyncdb(exclude="sqlite", reason="it lives in this process")
@pytest.mark.parametrize("number", [1, 2])
async def test_another_process_writes(asyncdb_session, asyncdb_url, number):
    url = asyncdb_url.render_as_string(hide_password=False)
    arguments = [sys.executable, "-c", WRITER, url]
    await asyncio.to_thread(subprocess.run, arguments, check=True)
    assert (await asyncdb_session.scalars(select(Job.name))).all() == ["from outside"]


@pytest.mark.asyncdb
@pytest.mark.parametrize("number", [1, 2])
async def test_a_table_is_dropped(asyncdb_engine, number):
    await enqueue("lost")
    async with asyncdb_engine.begin() as connection:
        await connection.execute(text("DROP TABLE jobs"))
    async with asyncdb_engine.connect() as connection:
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    assert names == ["budgets"]
