"""A forked child process shares the sockets of its parent's test; nothing it does reaches them.

The control is an engine of SQLAlchemy, whose connection a child takes away from its parent.
"""

from __future__ import annotations

import pytest
from fix_observer import observer_of
from fix_project import Project, naive_database
from fix_servers import Servers, Target

pytestmark = pytest.mark.everyday("sqlite", "postgres+asyncpg", "mariadb+asyncmy")

#: A statement that takes some time.
WAIT = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)"
    " SELECT count(*) FROM n",
    "postgres": "SELECT pg_sleep(0.2)",
    "mysql": "SELECT SLEEP(0.2)",
    "mariadb": "SELECT SLEEP(0.2)",
}

#: Forks inside of a transaction; the child ends in one of the ways in which children do.
CHILDREN = """
import gc
import os
import threading
import warnings

from app import db


def fork(work):
    \"\"\"What *work* has raised in a child, as text.\"\"\"
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: there are threads
        child = os.fork()
    if child == 0:
        said = "nothing"
        try:
            work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    said = b"".join(iter(lambda: os.read(read, 10_000), b"")).decode()
    os.close(read)
    assert os.waitpid(child, 0)[1] == 0
    return said


def in_a_loop(work):
    \"\"\"Run a coroutine in a thread of the child: its parent's loop still counts as running.\"\"\"
    raised = []

    def run():
        try:
            asyncio.run(work())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def using(engine):
    async def use():
        async with engine.begin() as connection:
            await add(connection, "child")
    return lambda: in_a_loop(use)


REFUSED = "IsolationConflict: a forked child process uses the connection of its parent's test"


async def check_fork(engine):
    async with AsyncSession(engine) as session, session.begin():
        await add(session, "parent")
        for one in (engine, db.engine):
            assert fork(using(one)).startswith(REFUSED)
        connection = await session.connection()
        raw = await connection.get_raw_connection()

        def end_everything():
            async def end():
                await raw.driver_connection.execute("SELECT 1")
            in_a_loop(session.rollback)
            in_a_loop(session.close)
            in_a_loop(engine.dispose)
            raw.dbapi_connection.close()
            gc.collect()
            in_a_loop(end)

        assert fork(end_everything).startswith((REFUSED, "AttributeError"))
        assert await names(session) == ["parent"]
    async with AsyncSession(engine) as session:
        assert await names(session) == ["parent"]
"""

TESTS = """
@pytest.mark.parametrize("n", range(2))
@pytest.mark.asyncdb(isolation="rollback")
async def test_rollback(asyncdb_engine, n):
    await check_fork(asyncdb_engine)


@pytest.mark.parametrize("n", range(2))
@pytest.mark.asyncdb(isolation="reset")
async def test_reset(asyncdb_engine, n):
    await check_fork(asyncdb_engine)


@pytest.mark.parametrize("isolation", [pytest.param(one, marks=pytest.mark.asyncdb(isolation=one))
    for one in ("rollback", "reset")])
async def test_a_statement_that_is_running_goes_on(asyncdb_engine, isolation):
    async with asyncdb_engine.connect() as connection:
        running = asyncio.create_task(connection.exec_driver_sql(WAIT))
        await asyncio.sleep(0.02)
        assert fork(using(asyncdb_engine)).startswith(REFUSED)
        await running
        assert await names(connection) == []
"""


@pytest.fixture
def app(project: Project) -> Project:
    project.write(
        "app/db.py",
        """
        from sqlalchemy.ext.asyncio import create_async_engine

        engine = create_async_engine("postgresql+asyncpg://app:secret@127.0.0.1:1/app")
        """,
    )
    project.ini(asyncdb_app_engines="app.db:engine")
    return project


def test_a_child_is_refused_and_its_parent_goes_on(app: Project, target: Target) -> None:
    """Of the engine and of a redirected one, within and outside of a transaction, whatever the
    child ends or collects."""
    app.tests(f"WAIT = {WAIT[target.backend]!r}", CHILDREN, TESTS)
    app.run(target).passed(6)


@pytest.mark.parametrize("target", ["postgres+asyncpg"], indirect=True, ids=["postgres-asyncpg"])
def test_a_child_can_open_an_engine_of_its_own(app: Project, target: Target) -> None:
    """The remedy that the error names."""
    app.tests(
        CHILDREN,
        """
        from sqlalchemy.ext.asyncio import create_async_engine

        @pytest.mark.asyncdb(isolation="reset")
        async def test_it(asyncdb_session, asyncdb_url):
            def work():
                using(create_async_engine(asyncdb_url))()
            assert fork(work) == "nothing"
            assert await names(asyncdb_session) == ["child"]
        """,
    )
    app.run(target).passed(1)


def test_a_child_that_goes_on_as_pytest_leaves_the_run_to_its_parent(
    app: Project, servers: Servers
) -> None:
    """An error in the child propagates to pytest: the child ends the run as well, but drops no
    database and stops no server."""
    app.tests(
        """
        import os

        PIDS = []

        @pytest.mark.filterwarnings("ignore::DeprecationWarning")
        async def test_fork(asyncdb_engine):
            PIDS.append(os.fork())
            if PIDS[0] == 0:
                async with asyncdb_engine.connect() as connection:
                    await connection.execute(text("SELECT 1"))

        async def test_next(asyncdb_session):
            if PIDS[0]:
                os.waitpid(PIDS[0], 0)  # it has run this test too, and ended the run
            assert await names(asyncdb_session) == []
            await add(asyncdb_session, "ada")
            await asyncdb_session.commit()
        """
    )
    servers.need("postgres", "local")
    target = Target("postgres+asyncpg", None, observer_of(None))
    outcome = app.run_apart(target, "--asyncdb-server=local")
    assert "a forked child process uses the connection" in outcome.text
    assert "2 passed in" in outcome.text


@pytest.mark.parametrize("target", ["postgres+asyncpg"], indirect=True, ids=["postgres-asyncpg"])
def test_a_plain_engine_loses_its_connection_to_a_child(app: Project, target: Target) -> None:
    """The control: the child's statement is sent over the connection of its parent."""
    app.tests(
        CHILDREN,
        """
        import os
        from sqlalchemy.ext.asyncio import create_async_engine

        async def test_it():
            engine = create_async_engine(os.environ["NAIVE"])
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
                raw = await connection.get_raw_connection()
                transport = raw.driver_connection._transport
                fork(lambda: os.write(transport.get_extra_info("socket").fileno(), b"X\\0\\0\\0\\4"))
                with pytest.raises(DBAPIError):
                    await connection.execute(text("SELECT 1"))
            await engine.dispose()
        """,
    )
    with naive_database(app, target) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAIVE", url)
        app.run(target).passed(1)
