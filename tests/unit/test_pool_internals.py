"""The private names of SQLAlchemy's pools are there, and do what ``_engines/pool_internals.py`` needs.

Each text says what breaks without the name.
"""

from __future__ import annotations

import gc
import sqlite3
import weakref
from typing import Any

import pytest
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, Pool

from pytest_asyncdb._engines.pool_internals import (
    CheckoutPool,
    connect_listeners,
    entry_of,
    keep_listeners,
)

URLS = [
    "sqlite+aiosqlite://",
    "postgresql+asyncpg://app@127.0.0.1:1/app",
    "postgresql+psycopg://app@127.0.0.1:1/app",
    "mysql+asyncmy://app@127.0.0.1:1/app",
    "mariadb+aiomysql://app@127.0.0.1:1/app",
]


def first(connection: Any, record: Any) -> None:
    """A listener."""


def second(**found: Any) -> None:
    """A listener that takes its arguments by name."""


def a_pool(family: list[Pool] | None = None) -> CheckoutPool:
    return CheckoutPool(
        lambda *_: sqlite3.connect(":memory:"),
        [] if family is None else family,
        dialect=create_engine("sqlite://").dialect,
    )


@pytest.mark.parametrize("name", ["connect", "first_connect"])
def test_a_checkout_is_no_event_connect(name: str) -> None:
    """``_create_connection`` and ``_ConnectionRecord.__connect``: without them listeners run at
    each checkout, on an object that is no connection yet."""
    seen: list[object] = []

    def listener(*found: object) -> None:
        seen.append(found)

    event.listen(Engine, name, listener)
    try:
        for pool in (one := a_pool(), one.recreate()):
            event.listen(pool, name, listener)
            for _ in range(2):
                connection = pool.connect()
                assert connection.cursor().execute("SELECT 1").fetchone() == (1,)
                connection.close()
        assert seen == []
        NullPool(lambda: sqlite3.connect(":memory:")).connect().close()
        assert len(seen) == 1, "the control: a pool of SQLAlchemy"
    finally:
        event.remove(Engine, name, listener)


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("options", [{}, {"isolation_level": "AUTOCOMMIT"}])
def test_the_listeners_of_create_engine_are_left_out(url: str, options: dict[str, Any]) -> None:
    """They have no names: they are known by their module, and by the wrapper that calls a listener
    once. If that fails, an engine of the application is prepared for the test's server."""
    pool = create_async_engine(url, **options).sync_engine.pool
    assert list(pool.dispatch.connect), "there are some"
    assert connect_listeners([pool]) == []
    event.listen(pool, "connect", first)
    event.listen(pool, "first_connect", second, named=True)
    event.listen(pool, "connect", first_once := lambda *_: None, once=True)
    found = connect_listeners([pool, pool])
    assert len(found) == 3
    assert found[1] is first
    assert first_once in [cell.cell_contents for cell in found[2].__closure__ or ()]  # type: ignore[attr-defined]


def test_a_redirected_engine_keeps_its_listeners() -> None:
    """``Pool(_dispatch=…)`` and ``dispatch._update``, which ``Engine.dispose()`` uses as well."""
    family: list[Pool] = []
    engine = create_engine("sqlite://")
    other = create_engine("sqlite://").pool
    event.listen(engine, "connect", first)
    beside = a_pool(family).beside(engine)
    assert connect_listeners([beside]) == [first]
    assert connect_listeners([beside.recreate()]) == [first]
    assert len(family) == 3
    event.listen(beside, "connect", second, named=True)
    keep_listeners(other, beside)
    assert len(connect_listeners([other])) == 2
    event.remove(engine, "connect", first)
    assert len(connect_listeners([other])) == len(connect_listeners([beside])) == 1


def test_listeners_for_another_dbms_are_left_out() -> None:
    """MySQL and MariaDB count as one."""
    engine = create_async_engine(URLS[1]).sync_engine
    event.listen(engine, "connect", first)
    assert connect_listeners([a_pool().beside(engine)]) == []
    maria, mysql = (create_async_engine(one).sync_engine for one in (URLS[4], URLS[3]))
    event.listen(maria, "connect", first)
    pool = CheckoutPool(lambda *_: None, [], dialect=mysql.dialect)
    assert connect_listeners([pool.beside(maria)]) == [first]


def test_the_entry_of_a_connection_is_found() -> None:
    """``PoolProxiedConnection._connection_record``, which listeners of "connect" get."""
    entries: list[object] = []
    engine = create_engine("sqlite://")
    event.listen(engine, "connect", lambda connection, entry: entries.append(entry))
    connection = engine.raw_connection()
    assert entries == [entry_of(connection)]
    connection.close()
    engine.dispose()


def test_the_pools_of_a_test_are_freed_with_it() -> None:
    """Also those that share the listeners of an engine which lives on."""
    engine = create_engine("sqlite://")
    event.listen(engine, "connect", first)
    family: list[Pool] = []
    pool = a_pool(family).beside(engine)
    keep_listeners(engine.pool, pool)
    found = weakref.ref(pool)
    gc.disable()
    try:
        family.clear()
        del pool
        assert found() is None
    finally:
        gc.enable()
