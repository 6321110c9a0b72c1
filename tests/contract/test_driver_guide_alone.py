"""What docs/drivers.md says about SQLite, SQLAlchemy and the packages, for which no server is needed."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
from collections.abc import Awaitable, Callable
from importlib.metadata import metadata, requires
from pathlib import Path

import aiomysql.connection
import aiosqlite
import asyncmy.connection
import pytest
import sqlalchemy
from fix_project import WITHOUT
from sqlalchemy import MetaData, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, QueuePool, StaticPool

MEMORY = "sqlite+aiosqlite://"
NEW = sqlalchemy.__version__ >= "2.1"
#: Before 2.0.38 SQLAlchemy kept no connection to a file.
OF_A_FILE = AsyncAdaptedQueuePool if sqlalchemy.__version__ >= "2.0.38" else NullPool

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "drivers.md"

Work = Callable[[AsyncEngine], Awaitable[None]]


def run(work: Work, url: str = MEMORY, **options: object) -> None:
    """Call *work* with an engine whose database has an empty table ``t``."""

    async def main() -> None:
        engine = create_async_engine(url, **options)
        try:
            async with engine.begin() as connection:
                await connection.execute(text("CREATE TABLE t (i INTEGER)"))
            await work(engine)
        finally:
            await engine.dispose()

    asyncio.run(main())


async def number_of_rows(connection: AsyncConnection) -> int:
    return (await connection.execute(text("SELECT count(*) FROM t"))).scalar_one()


def test_each_test_that_the_page_names_exists() -> None:
    """And each test of the two files is named."""
    comments = re.findall(r"<!--.*?-->", PAGE.read_text("utf-8"), re.DOTALL)
    named = set(re.findall(r"\b(test_\w+)\b(?!\.py)", " ".join(comments)))
    found = {
        path.name: set(re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE))
        for path in TESTS.rglob("test_*.py")
    }
    assert named <= set().union(*found.values())
    own = found["test_driver_guide.py"] | found["test_driver_guide_alone.py"]
    assert own - named == {"test_each_test_that_the_page_names_exists"}


@pytest.mark.parametrize(
    ("url", "pool"),
    [
        ("sqlite+aiosqlite://", StaticPool),
        ("sqlite+aiosqlite:///:memory:", StaticPool),
        ("sqlite+aiosqlite:///test.db", OF_A_FILE),
    ],
)
def test_the_pool_of_sqlite(url: str, pool: type) -> None:
    """One connection in memory, without any argument; a queue of them on a file."""
    assert type(create_async_engine(url).pool) is pool


def test_a_queue_pool_is_refused() -> None:
    """SQLAlchemy takes its async variant only."""
    with pytest.raises(ArgumentError, match="cannot be used with asyncio engine"):
        create_async_engine(MEMORY, poolclass=QueuePool)


def test_sizes_of_a_pool_are_refused_in_memory() -> None:
    """So swapping the URL is not all, if the engine has these arguments."""
    with pytest.raises(TypeError, match="pool_size"):
        create_async_engine(MEMORY, pool_size=5)


def test_an_explicit_null_pool_loses_the_tables() -> None:
    """Each connection in memory is a database."""

    async def main() -> None:
        engine = create_async_engine(MEMORY, poolclass=NullPool)
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE t (i INTEGER)"))
        with pytest.raises(OperationalError, match="no such table: t"):
            async with engine.connect() as connection:
                await number_of_rows(connection)

    asyncio.run(main())


def test_sessions_in_memory_share_one_transaction() -> None:
    """A rollback of one undoes what the other has written."""

    async def work(engine: AsyncEngine) -> None:
        async with engine.connect() as one, engine.connect() as other:
            await one.execute(text("INSERT INTO t VALUES (1)"))
            assert await number_of_rows(other) == 1
            await other.rollback()
            await one.commit()
        async with engine.connect() as connection:
            assert await number_of_rows(connection) == 0

    run(work)


def test_a_released_savepoint_is_committed_on_sqlite() -> None:
    """A plain engine does not begin a transaction before it."""

    async def work(engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            async with connection.begin_nested():
                await connection.execute(text("INSERT INTO t VALUES (1)"))
            await connection.rollback()
        async with engine.connect() as connection:
            assert await number_of_rows(connection) == 1
            assert (await connection.execute(text("PRAGMA foreign_keys"))).scalar() == 0

    run(work)


def test_a_text_in_a_column_of_numbers() -> None:
    """SQLite stores it."""

    async def work(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            await connection.execute(text("INSERT INTO t VALUES ('ada')"))
            assert (await connection.execute(text("SELECT i FROM t"))).scalar() == "ada"

    run(work)


def test_two_writers_of_a_file(tmp_path: Path) -> None:
    """The second one waits, here for no time, and fails; it is no deadlock."""

    async def work(engine: AsyncEngine) -> None:
        async with engine.connect() as one, engine.connect() as other:
            await one.execute(text("INSERT INTO t VALUES (1)"))
            with pytest.raises(OperationalError, match="database is locked"):
                await other.execute(text("INSERT INTO t VALUES (2)"))

    run(work, f"sqlite+aiosqlite:///{tmp_path / 'test.db'}", connect_args={"timeout": 0})


@pytest.mark.skipif(
    sqlalchemy.__version__ < "2.0.46" and not issubclass(aiosqlite.Connection, threading.Thread),
    reason="before 2.0.46 SQLAlchemy makes no daemons of the threads of aiosqlite 0.22",
)
def test_the_threads_of_aiosqlite() -> None:
    """That of a connection of SQLAlchemy does not keep the process alive, another one does."""

    async def work(engine: AsyncEngine) -> None:
        before = {*threading.enumerate()}
        async with aiosqlite.connect(":memory:"):
            assert [thread.daemon for thread in {*threading.enumerate()} - before] == [False]

    async def work_of_sqlalchemy(engine: AsyncEngine) -> None:
        assert [thread.daemon for thread in {*threading.enumerate()} - at_first] == [True]

    at_first = {*threading.enumerate()}
    run(work_of_sqlalchemy)
    run(work)


def test_create_all_wants_run_sync() -> None:
    """It is a sync function, and an async engine has not what it calls."""
    with pytest.raises(AttributeError, match="'AsyncEngine' object has no attribute"):
        MetaData().create_all(create_async_engine(MEMORY))  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_an_attribute_that_has_to_be_loaded() -> None:
    """MissingGreenlet, where a sync session would send a SELECT."""

    class Base(DeclarativeBase):
        pass

    class User(Base):
        __tablename__ = "users"
        id: Mapped[int] = mapped_column(primary_key=True)

    async def work(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            user = User(id=1)
            session.add(user)
            await session.commit()
            with pytest.raises(SQLAlchemyError, match="greenlet_spawn has not been called"):
                _ = user.id  # expired by the commit
            gc.collect()  # the statement that was not awaited

    run(work)


def test_the_driver_of_a_url_without_one() -> None:
    """None of them is async, but psycopg, SQLAlchemy 2.1's default, is both."""
    drivers = {
        url: make_url(url).get_driver_name() for url in ("postgresql://", "mysql://", "sqlite://")
    }
    assert drivers == {
        "postgresql://": "psycopg" if NEW else "psycopg2",
        "mysql://": "mysqldb",
        "sqlite://": "pysqlite",
    }


def test_extras_of_packages() -> None:
    """psycopg has none named async; SQLAlchemy's asyncio brings greenlet, in 2.1 nothing else does."""
    extras = metadata("psycopg").get_all("Provides-Extra") or []
    assert "binary" in extras
    assert "async" not in extras
    greenlet = [line for line in requires("sqlalchemy") or [] if line.startswith("greenlet")]
    assert any("asyncio" in line for line in greenlet)
    if NEW:
        assert all("extra ==" in line for line in greenlet)


def test_asyncmy_is_compiled_and_aiomysql_is_not() -> None:
    """asyncmy needs a wheel for your platform, or a C compiler."""
    assert not asyncmy.connection.__file__.endswith(".py")
    assert aiomysql.connection.__file__.endswith(".py")


def test_the_fixture_event_loop_is_gone(pytester: pytest.Pytester) -> None:
    """pytest-asyncio 1.0 removed it."""
    pytester.makepyfile("def test_it(event_loop): ...")
    result = pytester.runpytest_inprocess(*WITHOUT)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'event_loop' not found*"])


def test_a_rollback_after_the_test_does_not_undo_a_commit() -> None:
    """A session fixture that ends with rollback() keeps no tests apart."""

    async def work(engine: AsyncEngine) -> None:
        async with AsyncSession(engine) as session:
            await session.execute(text("INSERT INTO t VALUES (1)"))
            await session.commit()  # the code under test
            await session.rollback()  # the fixture
        async with engine.connect() as connection:
            assert await number_of_rows(connection) == 1

    run(work)
