"""What docs/drivers.md says about drivers and backends holds, on plain engines of SQLAlchemy.

Nothing here is the plugin's work, except the servers. A test that fails after an upgrade of a driver
or of SQLAlchemy means that a sentence of the page is out of date.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime, timedelta, timezone
from inspect import signature
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from fix_servers import Target
from fix_suite import EACH_DRIVER, WORDS
from pymysql.connections import Connection
from sqlalchemy import exc, func, insert, select, text
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, StaticPool
from sqlalchemy.schema import CreateTable

each_driver = pytest.mark.everyday(*EACH_DRIVER)

MEMORY = "sqlite+aiosqlite://"
NEW = sa.__version__ >= "2.1"
#: The MySQL drivers of SQLAlchemy before 2.0.50 cannot ping with PyMySQL 1.2, where ping() does not
#: reconnect unless told to.
PINGS = sa.__version__ >= "2.0.50" or signature(Connection.ping).parameters["reconnect"].default
POSTGRES, MYSQL, SERVERS = WORDS[1:3], WORDS[3:5], WORDS[1:]

TABLES = sa.MetaData()
KINDS = sa.Table(
    "kinds",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("flag", sa.Boolean),
    sa.Column("naive", sa.DateTime),
    sa.Column("aware", sa.DateTime(timezone=True)),
    sa.Column("uuid", sa.Uuid),
    sa.Column("json", sa.JSON),
    sa.Column("short", sa.String(5)),
)
CHILDREN = sa.Table("children", TABLES, sa.Column("kind_id", sa.ForeignKey("kinds.id")))

Work = Callable[[AsyncEngine], Awaitable[None]]


def on(*words: str) -> Callable[[Any], Any]:
    """Run the test on these words only, every day."""
    ids = [word.replace("+", "-") for word in words]
    parametrize = pytest.mark.parametrize("target", words, ids=ids, indirect=True)
    return lambda test: pytest.mark.everyday(*words)(parametrize(test))


@pytest.fixture
def url(target: Target) -> Iterator[URL]:
    """An empty database."""
    if target.server is None:
        yield make_url(MEMORY)
        return
    name = f"driver_guide_{os.getpid()}"
    drivername = f"{target.backend.replace('postgres', 'postgresql')}+{target.driver}"
    with target.observer.throw_away(name):
        yield target.server.set(drivername=drivername, database=name)


@asynccontextmanager
async def engine_on(url: URL | str, **options: Any) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url, **options)
    try:
        yield engine
    finally:
        await engine.dispose()


@pytest.fixture
def run(url: URL) -> Callable[[Work], None]:
    """Call a coroutine function with an engine, on a database that has the tables."""

    async def main(work: Work) -> None:
        async with engine_on(url) as engine:
            async with engine.begin() as connection:
                await connection.run_sync(TABLES.create_all)
            await work(engine)

    return lambda work: asyncio.run(main(work))


async def execute(engine: AsyncEngine, statement: Any, **parameters: Any) -> Any:
    """Run one statement in a transaction of its own; its first value, if it has rows."""
    async with engine.begin() as connection:
        result = await connection.execute(statement, parameters)
        return result.scalar() if result.returns_rows else None


@each_driver
def test_what_sqlalchemy_says_about_a_url(target: Target, url: URL, run: Any) -> None:
    """Dialect, pool, parameters, isolation level, RETURNING: the table of the page."""
    name, pool, style, level, returning = {
        "sqlite": ("sqlite", StaticPool, "qmark", "SERIALIZABLE", (True, True, True)),
        "asyncpg": ("postgresql", ..., "numeric_dollar", "READ COMMITTED", (True, True, True)),
        "psycopg": ("postgresql", ..., "pyformat", "READ COMMITTED", (True, True, True)),
        "mysql": ("mysql", ..., "format", "REPEATABLE READ", (False, False, False)),
        "mariadb": ("mariadb", ..., "format", "REPEATABLE READ", (True, False, True)),
    }[target.driver if target.backend == "postgres" else target.backend]

    async def work(engine: AsyncEngine) -> None:
        dialect = engine.dialect
        assert (dialect.name, dialect.driver) == (name, target.driver)
        assert type(engine.pool) is (AsyncAdaptedQueuePool if pool is ... else pool)
        assert dialect.paramstyle == style
        async with engine.connect() as connection:
            assert await connection.get_isolation_level() == level
        found = (dialect.insert_returning, dialect.update_returning, dialect.delete_returning)
        assert found == returning

    run(work)


def test_the_types_of_columns(target: Target, run: Any) -> None:
    """One model, four schemas."""
    flag, naive, aware, uuid = {
        "sqlite": ("BOOLEAN", "DATETIME", "DATETIME", "CHAR(32)"),
        "postgres": ("BOOLEAN", "TIMESTAMP WITHOUT TIME ZONE", "TIMESTAMP WITH TIME ZONE", "UUID"),
        "mysql": ("BOOL", "DATETIME", "DATETIME", "CHAR(32)"),
        "mariadb": ("BOOL", "DATETIME", "DATETIME", "UUID" if NEW else "CHAR(32)"),
    }[target.backend]

    async def work(engine: AsyncEngine) -> None:
        lines = str(CreateTable(KINDS).compile(dialect=engine.dialect)).split("\n")
        found = [line.strip(" \t,") for line in lines]
        for column in (f"flag {flag}", f"naive {naive}", f"aware {aware}", f"uuid {uuid}"):
            assert column in found
        value = uuid4()
        await execute(engine, insert(KINDS).values(flag=True, uuid=value, json={"a": [1]}))
        async with engine.connect() as connection:
            row = (await connection.execute(select(KINDS))).one()
        assert (row.flag, row.uuid, row.json) == (True, value, {"a": [1]})
        assert isinstance(row.uuid, UUID)

    run(work)


def test_time_zones_and_fractions_of_a_second(target: Target, run: Any) -> None:
    """Only PostgreSQL keeps the instant; MySQL rounds to seconds, MariaDB cuts them off."""
    local = datetime(2026, 1, 2, 3, 4, 5, 678901, timezone(timedelta(hours=2)))
    stored = {
        "sqlite": local.replace(tzinfo=None),
        "postgres": local.astimezone(UTC),
        "mysql": local.replace(tzinfo=None, second=6, microsecond=0),
        "mariadb": local.replace(tzinfo=None, microsecond=0),
    }[target.backend]

    async def work(engine: AsyncEngine) -> None:
        await execute(engine, insert(KINDS).values(aware=local))
        assert await execute(engine, select(KINDS.c.aware)) == stored

    run(work)


@on(*POSTGRES)
def test_asyncpg_takes_no_other_types_than_the_servers(target: Target, run: Any) -> None:
    """psycopg lets the server convert."""
    aware = insert(KINDS).values(naive=datetime.now(UTC))

    async def work(engine: AsyncEngine) -> None:
        if target.driver == "psycopg":
            await execute(engine, aware)
            assert await execute(engine, text("SELECT :x"), x=1) == 1
            return
        with pytest.raises(exc.DBAPIError, match="can't subtract offset-naive and offset-aware"):
            await execute(engine, aware)
        with pytest.raises(exc.DBAPIError, match="expected str, got int"):
            await execute(engine, text("SELECT :x"), x=1)

    run(work)


@each_driver
def test_a_text_that_is_too_long(target: Target, run: Any) -> None:
    """SQLite takes it; on asyncpg the error is not a DataError."""

    async def work(engine: AsyncEngine) -> None:
        statement = insert(KINDS).values(short="too long")
        if target.backend == "sqlite":
            await execute(engine, statement)
            return
        with pytest.raises(exc.DBAPIError) as caught:
            await execute(engine, statement)
        assert isinstance(caught.value, exc.DataError) is (target.driver != "asyncpg")

    run(work)


def test_a_text_column_without_a_length(target: Target, run: Any) -> None:
    """CREATE TABLE fails on MySQL and MariaDB."""
    table = sa.Table("texts", sa.MetaData(), sa.Column("text", sa.String))
    fails = pytest.raises(exc.CompileError, match="VARCHAR requires a length")

    async def work(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            with fails if target.backend in ("mysql", "mariadb") else nullcontext():
                await connection.run_sync(table.create)

    run(work)


def test_upserts_and_functions(target: Target, run: Any) -> None:
    """ON CONFLICT exists on PostgreSQL and SQLite, with a construct of each dialect."""
    builder: Any = {"sqlite": sqlite, "postgres": postgresql}.get(target.backend, mysql)

    async def work(engine: AsyncEngine) -> None:
        await execute(engine, insert(KINDS).values(id=1))
        again = builder.insert(KINDS).values(id=1, short="a")
        if builder is mysql:
            with pytest.raises(exc.UnsupportedCompilationError):
                await execute(engine, postgresql.insert(KINDS).on_conflict_do_nothing())
            await execute(engine, again.on_duplicate_key_update(short="a"))
        else:
            await execute(
                engine, again.on_conflict_do_update(index_elements=["id"], set_={"short": "a"})
            )
        assert await execute(engine, select(KINDS.c.short)) == "a"
        ranked = select(func.row_number().over(order_by=KINDS.c.id))
        assert await execute(engine, ranked) == 1
        arrays = execute(engine, select(func.array_agg(KINDS.c.id)))
        if target.backend == "postgres":
            assert await arrays == [1]
        else:
            with pytest.raises(exc.OperationalError, match="array_agg"):
                await arrays

    run(work)


def test_foreign_keys(target: Target, run: Any) -> None:
    """SQLite does not check them unless each connection asks for it."""

    async def work(engine: AsyncEngine) -> None:
        orphan = execute(engine, insert(CHILDREN).values(kind_id=99))
        with nullcontext() if target.backend == "sqlite" else pytest.raises(exc.IntegrityError):
            await orphan

    run(work)


def test_ddl_and_a_rollback(target: Target, run: Any) -> None:
    """CREATE TABLE is undone on PostgreSQL only; on SQLite sqlite3 does not begin a transaction for it."""

    async def work(engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            await connection.execute(text("CREATE TABLE made (i INTEGER)"))
            await connection.rollback()
        async with engine.connect() as connection:
            names = await connection.run_sync(lambda c: sa.inspect(c).get_table_names())
        assert ("made" in names) is (target.backend != "postgres")

    run(work)


@on(*SERVERS)
def test_what_a_transaction_sees_of_a_later_commit(target: Target, url: URL, run: Any) -> None:
    """READ COMMITTED sees it, REPEATABLE READ does not; isolation_level changes that."""
    number = select(func.count()).select_from(KINDS)

    async def second_look(engine: AsyncEngine) -> int:
        async with engine.connect() as connection:
            before = await connection.scalar(number)
            await execute(engine, insert(KINDS))
            return (await connection.scalar(number)) - before

    async def work(engine: AsyncEngine) -> None:
        assert await second_look(engine) == (1 if target.backend == "postgres" else 0)
        async with engine_on(url, isolation_level="READ COMMITTED") as other:
            assert await second_look(other) == 1

    run(work)


@on(*SERVERS)
@pytest.mark.filterwarnings("ignore:coroutine 'Connection.cursor' was never awaited")
@pytest.mark.parametrize("ping", [False, True], ids=["plain", "pre-ping"])
def test_a_connection_that_the_server_has_closed(target: Target, url: URL, ping: bool) -> None:
    """The first statement fails, with pool_pre_ping none does. Two drivers have two errors: one if they
    have noticed it before the statement."""
    terminated = "terminating connection due to administrator command"
    lost = "(2013, 'Lost connection to MySQL server during query')"
    if ping and target.driver in ("asyncmy", "aiomysql") and not PINGS:
        pytest.skip("before 2.0.50 SQLAlchemy cannot ping if PyMySQL 1.2 is installed")
    errors = {
        "asyncpg": ("connection is closed", "connection was closed in the middle", terminated),
        "psycopg": (terminated,),
        "asyncmy": ("(2006, 'MySQL server has gone away')", lost),
        "aiomysql": (lost,),
    }[target.driver]

    async def main() -> None:
        async with engine_on(url, pool_pre_ping=ping) as engine:
            await execute(engine, text("SELECT 1"))  # connects
            for connection in target.observer.connections(str(url.database)):
                target.observer.kill(connection)
            if not ping:
                with pytest.raises(exc.DBAPIError) as caught:
                    await execute(engine, text("SELECT 1"))
                assert any(error in str(caught.value) for error in errors), caught.value
                assert caught.value.connection_invalidated
            assert await execute(engine, text("SELECT 1")) == 1

    asyncio.run(main())


@on(*POSTGRES)
def test_a_column_that_is_added_while_statements_are_prepared(target: Target, run: Any) -> None:
    """asyncpg fails once; psycopg does not."""

    async def work(engine: AsyncEngine) -> None:
        rows = text("SELECT * FROM kinds")
        async with engine.connect() as connection:
            for _ in range(7):  # psycopg prepares a statement that has run five times
                await connection.execute(rows)
            await connection.rollback()
            await execute(engine, text("ALTER TABLE kinds ADD COLUMN later INTEGER"))
            if target.driver == "asyncpg":
                with pytest.raises(exc.NotSupportedError, match="cached statement plan is invalid"):
                    await connection.execute(rows)
                await connection.rollback()
            assert len((await connection.execute(rows)).keys()) == len(KINDS.columns) + 1

    run(work)


@on(*POSTGRES)
def test_copy_is_there_in_both_drivers(target: Target, run: Any) -> None:
    """By methods of the driver's own connection."""

    async def work(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            if target.driver == "asyncpg":
                await driver.copy_records_to_table("kinds", records=[(1,), (2,)], columns=["id"])
            else:
                async with (
                    driver.cursor() as cursor,
                    cursor.copy("COPY kinds (id) FROM STDIN") as to,
                ):
                    await to.write_row((1,))
                    await to.write_row((2,))
        assert await execute(engine, select(func.count()).select_from(KINDS)) == 2

    run(work)


@each_driver
def test_two_statements_in_one_text(target: Target, run: Any) -> None:
    """aiosqlite and asyncpg refuse them; the others return the first result."""

    async def work(engine: AsyncEngine) -> None:
        both = execute(engine, text("SELECT 1; SELECT 2"))
        if target.driver in ("aiosqlite", "asyncpg"):
            with pytest.raises(exc.ProgrammingError):
                await both
        else:
            assert await both == 1

    run(work)


@on(*WORDS[3:])
def test_mysql_drivers_send_text_in_utf8mb4(run: Any) -> None:
    """Without charset in the URL; values are put into the text, no statement is prepared."""

    async def work(engine: AsyncEngine) -> None:
        assert await execute(engine, text("SELECT @@character_set_client")) == "utf8mb4"
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT :x"), {"x": "🙂"}) == "🙂"
            status = await connection.execute(text("SHOW SESSION STATUS LIKE 'Com_stmt_prepare'"))
            assert status.one()[1] == "0"

    run(work)


@on(*MYSQL)
def test_both_drivers_log_in_with_caching_sha2_password(target: Target) -> None:
    """Which is what accounts of MySQL 8 and newer have by default."""
    observer, name, server = target.observer, f"guide_{os.getpid()}", target.server
    assert server is not None
    observer.query(f"CREATE USER {name} IDENTIFIED WITH caching_sha2_password BY 'secret'")
    try:

        async def main() -> None:
            url = server.set(username=name, password="secret", database="information_schema")
            async with engine_on(url) as engine:
                assert await execute(engine, text("SELECT 1")) == 1

        asyncio.run(main())
    finally:
        observer.query(f"DROP USER {name}")
