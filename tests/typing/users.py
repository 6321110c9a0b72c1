"""What a user's test and conftest look like to a type checker. Never run: ``mypy tests/typing``."""

from __future__ import annotations

from typing import assert_type

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from pytest_asyncdb import Asyncdb, AsyncdbBackend, Capabilities, IsolationBreach, build_engine


async def uses_the_handle(asyncdb: Asyncdb) -> None:
    assert_type(asyncdb.engine, AsyncEngine)
    assert_type(asyncdb.url, URL)
    assert_type(asyncdb.backend, AsyncdbBackend)
    assert_type(asyncdb.backend.capabilities, Capabilities)
    assert_type(asyncdb.backend.name, str)
    assert_type(await asyncdb.schema_differences(ignore=["notes"]), list[str])
    async with asyncdb.connections(2) as connections:
        assert_type(connections, tuple[AsyncConnection, ...])
    async with asyncdb.checkpoint():
        pass
    with asyncdb.count(max=2):
        pass
    for changes in (await asyncdb.changes()).values():
        print(changes)


async def builds_an_engine(url: str | URL) -> None:
    engine = build_engine(url, echo=True, foreign_keys=False)
    assert_type(engine, AsyncEngine)
    await engine.dispose()


def reads_an_error(error: IsolationBreach) -> str:
    return str(error)


def is_told_of_mistakes(asyncdb: Asyncdb) -> None:
    asyncdb.engine = None  # type: ignore[misc, assignment]
    build_engine(3)  # type: ignore[arg-type]
