"""``Driver.cancel`` ends a statement also if the driver has not begun it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import aiosqlite
import pytest

from pytest_asyncdb.backends.sqlite import Aiosqlite

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


def test_a_statement_that_waits_for_its_thread_is_cancelled() -> None:
    """aiosqlite's thread is still busy with another statement, which one interruption would end."""
    blocking, free = threading.Event(), threading.Event()

    def block() -> None:
        blocking.set()
        free.wait(30)

    async def check() -> None:
        async with aiosqlite.connect(":memory:") as connection:
            await connection.create_function("block", 0, block)
            first = asyncio.create_task(connection.execute_fetchall("SELECT block()"))
            await asyncio.to_thread(blocking.wait, 30)
            second = asyncio.create_task(connection.execute_fetchall(ENDLESS))
            await asyncio.sleep(0)  # it is in the queue of the thread
            cancelling = asyncio.create_task(Aiosqlite().cancel(connection, second, _no_side))
            await asyncio.sleep(0)
            free.set()
            try:
                async with asyncio.timeout(10):
                    await cancelling
                    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
                        await second
            finally:
                await connection.interrupt()  # else its thread would not end
            await asyncio.wait([first])
            first.exception()
            assert await connection.execute_fetchall("SELECT 1") == [(1,)]

    asyncio.run(check())


async def _no_side(statement: str) -> None:
    raise AssertionError(statement)
