"""No session state leaks, however a test has left it: by a statement, by a function or procedure of
the database, through the driver's own connection.

One inner run has a test for each kind of ``session_kinds.py``: it looks for what the one before
has left, and leaves something itself. What it leaves must be there after its commit, also on its next
connection, as with SQLAlchemy's pool. The judge is the state of a new connection.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fix_project import QUIET, Project, naive_database
from fix_servers import Servers, Target
from fix_suite import COMPLETE

#: At the top of the inner file: what the schema needs.
SCHEMA = """
import pytest
from session_kinds import KINDS, OF_THE_DRIVER, OF_THE_SERVER, Kind, rows
from sqlalchemy import text

TABLES = ("CREATE TABLE thing (id INTEGER)", "CREATE TABLE other (id INTEGER)")
COUNTER = '''CREATE SEQUENCE counter;
CREATE FUNCTION look_lastval() RETURNS bigint LANGUAGE plpgsql AS
$$ BEGIN RETURN lastval(); EXCEPTION WHEN OTHERS THEN RETURN NULL; END $$'''


async def build(connection, backend):
    statements = [*TABLES, *(COUNTER.split(";\\n") if backend == "postgres" else ())]
    for name, kind in KINDS[backend].items() if backend != "sqlite" else ():
        if backend == "postgres":
            statements.append(
                f"CREATE FUNCTION leave_{name}() RETURNS void LANGUAGE plpgsql AS"
                f" $f$ BEGIN EXECUTE $x${kind.leave}$x$; END $f$"
            )
        elif "routine" not in kind.but:
            body = kind.leave.replace("SELECT", "DO") if "SELECT" in kind.leave[:6] else kind.leave
            statements.append(f"CREATE PROCEDURE leave_{name}() {body}")
    for statement in statements:
        await connection.exec_driver_sql(statement)
"""

STEPS = """
BACKEND, DRIVER, COMPLETE = {backend!r}, {driver!r}, {complete!r}
CALL = "SELECT leave_{{}}()" if BACKEND == "postgres" else "CALL leave_{{}}()"
RUN = "query" if DRIVER in ("asyncmy", "aiomysql") else "execute"
WAYS = ["statement", *(["routine"] if BACKEND != "sqlite" else []), "driver"]
WAYS = WAYS if COMPLETE else WAYS[-2:-1]
STRATEGIES = ("rollback", "reset", "copy") if COMPLETE else ("rollback", "reset")
SQL, CODE = KINDS[BACKEND], OF_THE_DRIVER[DRIVER]

#: By kind: how it looks on a new connection.
fresh = {{}}
#: What was left by the test before.
left = []
#: What the next test has seen, and what had an effect at all.
leaks, effective = [], set()


def steps(strategy):
    everything = strategy != "copy" or BACKEND == "sqlite"
    for way in WAYS:
        for name, kind in SQL.items():
            if way not in kind.but and strategy not in kind.but:
                if everything or name in OF_THE_SERVER:
                    yield strategy, way, name
    for name, kind in CODE.items():
        if strategy not in kind.but and everything:
            yield strategy, "code", name
    yield strategy, "nothing", ""


async def look(connection, way, name):
    if way == "code":
        raw = await connection.get_raw_connection()
        return await CODE[name].look(connection, raw.driver_connection)
    return await rows(connection, SQL[name].look)


async def leave(connection, way, name):
    if way == "statement":
        await connection.exec_driver_sql(SQL[name].leave)
    elif way == "routine":
        await connection.exec_driver_sql(CALL.format(name))
    else:
        driver = (await connection.get_raw_connection()).driver_connection
        if way == "code":
            await CODE[name].leave(connection, driver)
        else:
            await connection.exec_driver_sql("SELECT 1")
            await getattr(driver, RUN)(SQL[name].leave)


async def step(connect, strategy, way, name):
    async with connect() as connection:
        for before in left:
            if (seen := await look(connection, *before)) != fresh[before[1]]:
                leaks.append((strategy, *before, fresh[before[1]], seen))
        left.clear()
        if way == "nothing":
            return
        await connection.rollback()
        if name not in fresh:
            fresh[name] = await look(connection, way, name)
        await leave(connection, way, name)
        await connection.commit()
        there = await look(connection, way, name)
    async with connect() as connection:
        assert await look(connection, way, name) == there  # as SQLAlchemy's pool has it
    left.append((way, name))
    if there != fresh[name]:
        effective.add((way, name))
"""

TESTS = """
@pytest.fixture(scope="session")
def asyncdb_migrate(asyncdb_backend):
    async def migrate(connection):
        await build(connection, asyncdb_backend.name)

    return migrate


@pytest.mark.parametrize(("strategy", "way", "name"), [
    pytest.param(*one, marks=pytest.mark.asyncdb(isolation=strategy))
    for strategy in STRATEGIES for one in steps(strategy)
])
async def test_step(asyncdb_engine, strategy, way, name):
    await step(asyncdb_engine.connect, strategy, way, name)


def test_nothing_leaked():
    by_way = {way: len([one for one in effective if one[0] == way]) for way in (*WAYS, "code")}
    assert leaks == []
    assert min(by_way[way] for way in WAYS) >= 25
    assert by_way["code"] == len(CODE)
"""

#: A pool of SQLAlchemy's, which rolls back.
CONTROL = """
import contextlib
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool


async def test_most_kinds_leak():
    engine = create_async_engine({url!r}, poolclass=AsyncAdaptedQueuePool, pool_size=1, max_overflow=0)
    async with engine.begin() as connection:
        await build(connection, BACKEND)
    for strategy, way, name in [one for one in steps("reset") if one[1] == WAYS[0]]:
        with contextlib.suppress(DBAPIError):  # what has leaked is in its way
            await step(engine.connect, strategy, way, name)
    await engine.dispose()
    assert len(leaks) * 2 >= len(effective) > 15
"""


def run(project: Project, target: Target, *parts: str) -> pytest.RunResult:
    values = {"backend": target.backend, "driver": target.driver, "complete": COMPLETE}
    project.ini(asyncdb_metadata=None)
    project.pytester.syspathinsert(Path(__file__).parent)
    project.write("test_it.py", "\n".join([SCHEMA, STEPS.format(**values), *parts]))
    # Without the observer, which looks at databases that a thread is about to drop.
    return project.pytester.runpytest_inprocess(*QUIET, *target.arguments)


@pytest.mark.everyday("sqlite", "postgres+asyncpg")
def test_no_session_state_reaches_the_next_test(project: Project, target: Target) -> None:
    """In any strategy, however it was left; within its test it stays, also after a commit."""
    result = run(project, target, TESTS)
    assert result.parseoutcomes().keys() == {"passed"}, str(result.stdout)


@pytest.mark.everyday("sqlite")
def test_session_state_leaks_from_a_pool(project: Project, target: Target) -> None:
    """The control: at least half of the kinds."""
    with naive_database(project, target) as url:
        run(project, target, CONTROL.format(url=url)).assert_outcomes(passed=1)


#: What changes the columns of queries, and a test that has the schema as it was.
COLUMNS = """
@pytest.mark.parametrize("columns", ["a int", "a text, b int", ""])
async def test_it(asyncdb_session, columns):
    if columns:
        await asyncdb_session.execute(text(f"CREATE TEMP TABLE made ({columns})"))
        found = await asyncdb_session.execute(text("SELECT * FROM made"))
        assert len(found.keys()) == len(columns.split(", "))
        await asyncdb_session.execute(text("ALTER TABLE users ADD more int"))
    found = await asyncdb_session.execute(text("SELECT * FROM users"))
    assert ("more" in found.keys()) == bool(columns)
"""


@pytest.mark.everyday("asyncpg")
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_a_driver_forgets_the_columns_of_a_query(
    project: Project, servers: Servers, driver: str
) -> None:
    """asyncpg keeps them with what it has prepared; in ``rollback`` the next test has its connection."""
    project.tests(COLUMNS)
    project.run(servers.target(f"postgres+{driver}")).passed(3)


#: By driver: arguments of ``connect``, and a query for what they and the engine's level set.
CONNECT = {
    "asyncpg": (
        {"server_settings": {"application_name": "mine", "work_mem": "7MB"}},
        "SELECT current_setting('application_name'), current_setting('work_mem')",
    ),
    "psycopg": (
        {"application_name": "mine", "options": "-c work_mem=7MB"},
        "SELECT current_setting('application_name'), current_setting('work_mem')",
    ),
    "aiomysql": (
        {"init_command": "SET @mine = 7, time_zone = '+03:00'", "sql_mode": "'ANSI'"},
        "SELECT @mine, @@time_zone, @@sql_mode, @@autocommit, @@character_set_client,"
        " @@collation_connection, @@innodb_lock_wait_timeout, DATABASE() LIKE 'asyncdb%%'",
    ),
}
CONNECT["asyncmy"] = (
    {**CONNECT["aiomysql"][0], "stmt_cache_size": 10, "charset": "latin1"},
    CONNECT["aiomysql"][1],
)


def test_what_connecting_has_set_stays(project: Project, target: Target) -> None:
    """Also what the test itself has set to another value; the engine's isolation level as well."""
    if target.server is None:
        pytest.skip("a connection of SQLite is replaced")
    project.tests(
        f"OPTIONS, QUERY = {CONNECT[target.driver]!r}",
        """
        SEEN = {}

        @pytest.fixture(scope="session")
        def asyncdb_engine_options():
            return {"connect_args": OPTIONS, "isolation_level": "SERIALIZABLE"}

        @pytest.mark.parametrize(("strategy", "n"), [
            pytest.param(one, n, marks=pytest.mark.asyncdb(isolation=one))
            for one in ("rollback", "reset") for n in range(3)
        ])
        async def test_it(asyncdb_engine, asyncdb_session, strategy, n):
            async with asyncdb_engine.connect() as connection:
                found = (await connection.exec_driver_sql(QUERY)).all()
                level = await connection.get_isolation_level()
                assert (found, level) == SEEN.setdefault(strategy, (found, "SERIALIZABLE"))
                assert SEEN["rollback"] == SEEN[strategy]
                words = " ".join(map(str, found[0]))
                assert "mine 7MB" in words or "7 +03:00" in words
                other = "SET work_mem = '9MB'" if "MB" in words else "SET @mine = 9, sql_mode = ''"
                await connection.exec_driver_sql(other)
                await connection.commit()
            await add(asyncdb_session, f"a{n}")
            await asyncdb_session.commit()
            assert await names(asyncdb_session) == [f"a{n}"]
        """,
    )
    project.run(target).passed(6)


#: By backend: a lock of the whole server, how another connection sees it, and what takes long.
LOCKS = {
    "postgres": (
        f"SELECT pg_advisory_lock({os.getpid()}, 9)",
        f"SELECT count(*) FROM pg_locks WHERE classid = {os.getpid()} AND objid = 9",
        "SELECT pg_sleep(60)",
    ),
    "mysql": (
        f"SELECT get_lock('kept{os.getpid()}', 0)",
        f"SELECT is_used_lock('kept{os.getpid()}') IS NOT NULL",
        "SELECT sleep(60)",
    ),
}
LOCKS["mariadb"] = LOCKS["mysql"]


@pytest.mark.everyday("postgres+psycopg")
def test_a_connection_that_is_given_up_keeps_no_lock(project: Project, target: Target) -> None:
    """A server that is only told that a connection is closed keeps its locks for a while, as the
    control shows."""
    if target.server is None:
        pytest.skip("SQLite has no such locks")
    project.tests(
        f"LOCK, LOOK, _ = {LOCKS[target.backend]!r}",
        """
        from pytest_asyncdb import build_engine

        async def is_seen(engine, attempts):
            seen = 0
            async with engine.connect() as other:
                while attempts and not seen:
                    attempts -= 1
                    connection = await engine.connect()
                    await connection.execute(text(LOCK))
                    await connection.invalidate()
                    seen = await other.scalar(text(LOOK))
                    await connection.close()
                    while await other.scalar(text(LOOK)):
                        pass
            return bool(seen)

        async def test_it(asyncdb_engine):
            assert not await is_seen(asyncdb_engine, 50)

        async def test_control(asyncdb_url, asyncdb_backend):
            engine = build_engine(asyncdb_url)
            waits = asyncdb_backend.driver == "asyncpg"  # for the server
            # The server is often the faster one: on a busy machine nine times of ten.
            assert await is_seen(engine, 50 if waits else 5000) != waits
            await engine.dispose()
        """,
    )
    project.run(target, "--asyncdb-isolation=copy").passed(2)


@pytest.mark.everyday("postgres+asyncpg")
def test_a_lock_of_the_server_ends_with_its_test(project: Project, target: Target) -> None:
    """Before the next test of any worker, also if the test fails, times out, gives its connection up
    or leaves it open, alone or with a statement that runs."""
    if target.server is None:
        pytest.skip("SQLite has no such locks")
    project.tests(
        f"LOCK, LOOK, SLOW = {LOCKS[target.backend]!r}",
        """
        LEFT = []

        async def fails(connection):
            raise LookupError

        async def times_out(connection):
            async with asyncio.timeout(0.05):
                await connection.exec_driver_sql(SLOW)

        async def is_given_up(connection):
            await connection.invalidate()

        async def is_left_open(connection):
            LEFT.append(connection)

        async def is_left_running(connection):
            LEFT.append(asyncio.create_task(connection.exec_driver_sql(SLOW)))
            await asyncio.sleep(0.05)

        HOWS = [fails, times_out, is_given_up, is_left_open, is_left_running]

        @pytest.mark.parametrize(("strategy", "how"), [
            pytest.param(strategy, how, marks=pytest.mark.asyncdb(isolation=strategy))
            for strategy in ("rollback", "reset", "copy") for how in (*HOWS, None)
        ])
        async def test_it(asyncdb_engine, strategy, how):
            connection = asyncdb_engine.connect()
            await connection.start()
            assert await connection.scalar(text(LOOK)) == 0
            if how is not None:
                await connection.scalar(text(LOCK))
                await connection.commit()
                assert await connection.scalar(text(LOOK)) == 1
                await how(connection)
            if how not in (is_left_open, is_left_running):
                await connection.close()
        """,
    )
    project.ini(asyncio_default_test_loop_scope="session")
    result = project.pytester.runpytest_inprocess(*QUIET, *target.arguments)
    # Each strategy has a failure, a time-out, and an error for the task that is left.
    result.assert_outcomes(passed=12, failed=6, errors=3)
    assert "assert 1 == 0" not in str(result.stdout)


#: By word: what a test does, and what the next one sees in place of what a new connection has.
FORGOTTEN = {
    "postgres+asyncpg": {
        "SELECT current_setting('app.tenant', true)": ("SET app.tenant = 'acme'", "''"),
        "SELECT random()": ("SELECT setseed(0.5)", "0.9851677175347999"),
    },
    "sqlite": {
        "SELECT last_insert_rowid()": ("INSERT INTO users VALUES (7, 'ada')", "7"),
    },
}


@pytest.mark.parametrize("word", FORGOTTEN)
def test_only_a_new_connection_forgets(project: Project, servers: Servers, word: str) -> None:
    """A limit, which is the same in ``rollback`` and ``reset``."""
    project.tests(
        f"FORGOTTEN = {FORGOTTEN[word]!r}",
        """
        @pytest.mark.parametrize("query", FORGOTTEN)
        @pytest.mark.parametrize(("strategy", "n"), [
            pytest.param(one, n, marks=pytest.mark.asyncdb(isolation=one))
            for one in ("rollback", "reset") for n in range(2)
        ])
        async def test_it(asyncdb_connection, query, strategy, n):
            leave, seen = FORGOTTEN[query]
            found = repr(await asyncdb_connection.scalar(text(query)))
            assert found.startswith(seen) == (n == 1)
            await asyncdb_connection.execute(text(leave))
            await asyncdb_connection.commit()
        """,
    )
    project.run(servers.target(word)).passed(4 * len(FORGOTTEN[word]))
