"""What a test leaves behind: streams, sessions that something keeps alive, an end that cannot
be had. The next test is clean, and the teardown ends in time.
"""

from __future__ import annotations

import asyncio
import os
import time
import warnings
from importlib import metadata
from typing import Any

import pytest
from fix_project import Project
from fix_servers import Servers, Target
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb.isolation import backing_connection, restoring

#: The next test, which finds nothing of the one before, and can work.
AFTER = """
async def test_next(asyncdb_session):
    gc.collect()
    assert await names(asyncdb_session) == []
    await add(asyncdb_session, "next")
    await asyncdb_session.commit()
    assert await names(asyncdb_session) == ["next"]
"""


def test_streams_that_are_left_open_are_closed(project: Project, target: Target) -> None:
    """A server-side cursor in the middle of its rows, kept alive; its session, too."""
    project.tests(
        """
        import gc

        KEPT = []

        @pytest.mark.parametrize("way", ["session", "connection", "iterator"])
        async def test_it(asyncdb_sessionmaker, asyncdb_engine, way):
            async with asyncdb_sessionmaker() as session:
                await add(session, *(f"user {n}" for n in range(2000)))
                await session.commit()
            session = asyncdb_sessionmaker()
            if way == "connection":
                session = await asyncdb_engine.connect()
            stream = await session.stream(select(User.name).execution_options(yield_per=10))
            rows = stream.__aiter__()
            assert len(await stream.fetchmany(3)) == 3
            if way == "iterator":
                await rows.__anext__()
            KEPT.append((session, stream, rows))
        """,
        AFTER,
    )
    before = time.monotonic()
    project.run(target).passed(4)
    assert time.monotonic() - before < 10


def test_a_session_that_a_traceback_keeps_alive_harms_nobody(
    project: Project, target: Target
) -> None:
    """As that of a failed test, which pytest keeps to its end; filterwarnings is "error"."""
    project.tests(
        """
        import gc

        KEPT = []

        async def work(sessions):
            session = sessions()
            await add(session, "ada")
            stream = await session.stream(select(User))
            raise LookupError(stream)

        async def test_it(asyncdb_sessionmaker):
            await work(asyncdb_sessionmaker)

        async def test_kept(asyncdb_sessionmaker):
            with pytest.raises(LookupError) as caught:
                await work(asyncdb_sessionmaker)
            KEPT.append(caught)
        """,
        AFTER,
        """
        async def test_let_go(asyncdb_session):
            await add(asyncdb_session, "ada")
            KEPT.clear()
            gc.collect()
            await asyncdb_session.commit()
            assert await names(asyncdb_session) == ["ada"]
        """,
    )
    outcome = project.run(target, "-W", "error").had(failed=1, passed=3)
    assert "LookupError" in outcome.text
    assert "Warning" not in outcome.text


#: A connection that nobody closes, in the hands of the garbage collector.
LOST = """
import gc

from sqlalchemy.ext.asyncio import create_async_engine

warned = pytest.mark.filterwarnings("ignore")


async def lose(engine):
    connection = await engine.connect()
    await connection.execute(insert(User).values(name="lost"))


async def between_statements(engine):
    await lose(engine)
    gc.collect()
    async with engine.begin() as connection:
        assert (await connection.scalars(select(User.name))).all() == []
        await connection.execute(insert(User).values(name="kept"))


async def while_a_statement_runs(engine):
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        decode = {{"encoder": str, "decoder": lambda value: gc.collect()}}
        await driver.set_type_codec("date", schema="pg_catalog", **decode)
        gc.disable()
        await lose(engine)
        await connection.execute(text("SELECT date '2024-02-29'"))
        gc.enable()
        await connection.rollback()
        assert (await connection.scalars(select(User.name))).all() == []
        await connection.execute(insert(User).values(name="kept"))
        await connection.commit()


async def check(work, engine, log):
    await work(engine)
    async with engine.connect() as connection:
        assert (await connection.scalars(select(User.name))).all() == ["kept"]
    assert len(log.records) == 1, "SQLAlchemy's own"


@warned
async def test_it(asyncdb_engine, caplog):
    await check({work}, asyncdb_engine, caplog)


@warned
@pytest.mark.asyncdb(isolation="copy")
async def test_plain(asyncdb_url, caplog):
    engine = create_async_engine(asyncdb_url)
    if engine.name == "sqlite" and not engine.dialect.has_terminate:
        return  # an older SQLAlchemy: the connection keeps its lock
    await check({work}, engine, caplog)
    await engine.dispose()
"""


@pytest.mark.everyday(
    *(("postgres+psycopg", "rollback"), ("mariadb+asyncmy", "rollback")),
    *(("sqlite", "reset"), ("postgres+asyncpg", "reset")),
)
@pytest.mark.parametrize("strategy", ["rollback", "reset", "copy"])
def test_a_connection_that_the_garbage_collector_finds_is_rolled_back(
    project: Project, target: Target, strategy: str
) -> None:
    """Its changes are not seen then, and its locks stop nobody."""
    project.tests(LOST.format(work="between_statements"), AFTER)
    project.run(target, f"--asyncdb-isolation={strategy}").passed(3)


@pytest.mark.parametrize("target", ["postgres+asyncpg"], indirect=True)
@pytest.mark.parametrize("strategy", ["rollback", "reset", "copy"])
def test_the_garbage_collector_may_find_it_while_a_statement_runs(
    project: Project, target: Target, strategy: str
) -> None:
    """It sends nothing then: the plugin's loop is running."""
    project.tests(LOST.format(work="while_a_statement_runs"), AFTER)
    project.run(target, f"--asyncdb-isolation={strategy}").passed(3)


@pytest.mark.everyday(
    *("postgres+asyncpg", ("sqlite", "statement")),
    *(("mysql+aiomysql", "commit"), ("mariadb+asyncmy", "driver")),
)
@pytest.mark.parametrize("use", ["statement", "commit", "driver"])
def test_a_session_of_an_earlier_test_is_told_so(
    project: Project, target: Target, use: str
) -> None:
    """It reaches nothing of the next test, which sees what to do, and where."""
    lines = {
        "statement": 'await session.execute(text("SELECT 1"))',
        "commit": "await session.commit()",
        "driver": "await connection.driver_connection.cursor()",
    }
    project.tests(
        f"""
        KEPT = []

        async def test_it(asyncdb_session, asyncdb_engine):
            raw = await asyncdb_engine.raw_connection()
            KEPT.extend((asyncdb_session, raw.dbapi_connection, raw))
            await add(asyncdb_session, "ada")

        class Holder:
            def __init__(self, branch):
                self.driver_connection = branch._connection

        async def test_late(asyncdb_sessionmaker):
            session, connection = KEPT[0], Holder(KEPT[1])
            async with asyncdb_sessionmaker() as own:
                assert await names(own) == []
            {lines[use]}
        """,
        "import gc",
        AFTER,
    )
    if use == "commit":  # it was closed with its test, and has nothing to commit
        project.run(target).passed(3)
        return
    line = lines[use]
    project.run(target).had(passed=2, failed=1).shows(
        f"""
        this connection belongs to a test that has ended

        test: test_it.py::test_it[{target.id}]
        at {project.place(line, "test_late")}
        Nothing was sent to the database.

        To fix this: take sessions and engines from the fixtures in each test, \
and await or cancel every task of a test before it ends
        """
    )


#: The server's process for this connection stands still until the test's end is over.
FROZEN = """
import gc
import os
import signal


async def test_it(asyncdb_session, request):
    await add(asyncdb_session, "ada")
    pid = await asyncdb_session.scalar(text("SELECT pg_backend_pid()"))
    request.config.frozen = pid
    os.kill(pid, signal.SIGSTOP)
"""
THAW = """
import os
import signal

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    try:
        return (yield)
    finally:
        if hasattr(item.config, "frozen"):
            os.kill(item.config.frozen, signal.SIGCONT)
            del item.config.frozen
"""


@pytest.mark.complete
@pytest.mark.parametrize("target", ["postgres+asyncpg", "postgres+psycopg"], indirect=True)
def test_an_end_that_the_server_does_not_answer_is_bounded(
    project: Project, target: Target, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process of this connection stands still; nothing but patience ends the wait."""
    if servers.server("postgres").provider not in ("local", "embedded") or os.name != "posix":
        pytest.skip("the server's processes are not of this machine")
    for module in (backing_connection, restoring):
        monkeypatch.setattr(module, "PATIENCE", 3.0)  # asyncpg itself waits for 2 s
    project.write("conftest.py", THAW)
    project.tests(FROZEN, AFTER)
    before = time.monotonic()
    outcome = project.run(target)
    # Before 0.32 asyncpg's close() waits without end, so the plugin lets go after half a minute.
    old = target.driver == "asyncpg" and metadata.version("asyncpg") < "0.32"
    assert time.monotonic() - before < (90 if old else 30)
    name = outcome.watch.urls[f"test_it.py::test_it[{target.id}]"].database
    said = {"asyncpg": "ObjectInUseError", "psycopg": "ObjectInUse"}[target.driver]
    outcome.had(passed=2, errors=1).shows(
        f"""
        the test's work could not be rolled back

        test: test_it.py::test_it[{target.id}]
        waited at most 3 s; the driver said: TimeoutError: no answer within 3 s
        The connection was thrown away and the database is rebuilt before the next test.

        To fix this: look for a statement of this test that still runs or holds locks

        the test's database could not be dropped

        test: test_it.py::test_it[{target.id}]
        database: {name}
        the driver said: {said}: database "{name}" is being accessed by other users
        The next test gets another one; the end of the run tries again.

        To fix this: look for a connection to it that the server cannot end
        """
    )


@pytest.mark.parametrize("word", ["mysql+asyncmy", "mysql+aiomysql"])
def test_what_mysql_warns_of_in_our_own_statements_is_not_handed_on(
    servers: Servers, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One driver logs it, the other one makes it a Python warning. Where the server can tell
    who is connected without a warning, that way is taken."""
    target = servers.target(word)
    backend = Registry().backend("mysql")
    (driver,) = (cls() for cls in backend.drivers if cls.name == target.driver)
    assert target.server is not None
    engine = create_async_engine(target.server, poolclass=NullPool)
    query = "SELECT id FROM information_schema.processlist"

    async def handed_on(ours: bool) -> list[str]:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            async with engine.connect() as connection:
                own: Any = (await connection.get_raw_connection()).driver_connection
                if ours:
                    assert len((await driver.run(own, [query]))[0]) > 0
                else:
                    async with own.cursor() as cursor:
                        await cursor.execute(query)
        said = [str(one.message) for one in seen] + [one.getMessage() for one in caplog.records]
        return [one for one in said if "is deprecated" in one]

    assert asyncio.run(handed_on(ours=True)) == []
    assert len(asyncio.run(handed_on(ours=False))) == 1  # the control
    with target.observer.connect() as connection:
        cursor = connection.cursor()
        for statements in (
            backend.sessions("a"),
            backend.end_connections("a"),
        ):
            for statement in statements:
                cursor.execute(statement)
                assert connection.show_warnings() == ()
