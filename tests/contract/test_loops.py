"""Event loops are the plugin's business: every way to run a test, on every driver.

A test or fixture may use the session and the engine on whatever loop, and in whatever
thread, it runs. Each test here runs pytest in a downstream project, with the outside
observer looking on; the controls show that the plain recipe fails the same tests.
"""

from __future__ import annotations

import pytest
from fix_project import QUIET, Project, naive_database
from fix_servers import WORDS, Servers, Target
from fix_suite import EACH_BACKEND, EACH_DRIVER

pytestmark = pytest.mark.everyday(*EACH_DRIVER)

SCOPES = ("function", "class", "module", "package", "session")

#: Drivers whose connections die when the loop changes (MECHANICS: aiosqlite and psycopg live).
BOUND_TO_A_LOOP = ("asyncpg", "asyncmy", "aiomysql")

SLOW = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
    " WHERE i < 100000000000) SELECT count(*) FROM n",
    "postgres": "SELECT pg_sleep(600)",
    "mysql": "SELECT SLEEP(600)",
    "mariadb": "SELECT SLEEP(600)",
}

#: A piece of work that needs a session, an engine and a second session.
WORK = """
async def work(session, engine):
    assert await names(session) == []
    await add(session, "ada")
    await session.commit()
    async with engine.begin() as connection:
        await add(connection, "bob")
    async with AsyncSession(engine) as other:
        await add(other, "cyd")
        await other.rollback()
    assert await names(session) == ["ada", "bob"]
    await session.rollback()
"""

MIXED = (
    WORK
    + "\n".join(
        f"""
@pytest.mark.asyncio(loop_scope="{scope}")
async def test_{number}_{scope}(asyncdb_session, asyncdb_engine):
    await work(asyncdb_session, asyncdb_engine)
"""
        for number in (1, 2)
        for scope in SCOPES
    )
    + """

@pytest.mark.asyncio(loop_scope="class")
class TestClass:
    async def test_first(self, asyncdb_session, asyncdb_engine):
        await work(asyncdb_session, asyncdb_engine)

    async def test_second(self, asyncdb_session, asyncdb_engine):
        await work(asyncdb_session, asyncdb_engine)

    @pytest.mark.asyncio(loop_scope="session")
    async def test_elsewhere(self, asyncdb_session, asyncdb_engine):
        await work(asyncdb_session, asyncdb_engine)
"""
)
MIXED_TESTS = 13


@pytest.mark.everyday("postgres+asyncpg", "session")
@pytest.mark.parametrize(
    ("default", "mode"),
    [("function", "auto"), ("session", "strict"), (None, "auto"), (None, "strict")],
)
def test_loop_scopes_mix_by_marker(
    project: Project, target: Target, mode: str, default: str | None
) -> None:
    """All five loop scopes in one file, whatever the ini says."""
    project.ini(
        asyncio_mode=mode,
        asyncio_default_test_loop_scope=default,
        asyncio_default_fixture_loop_scope=default or "function",
    )
    project.tests(MIXED)
    project.run(target).passed(MIXED_TESTS)


@pytest.mark.everyday("postgres+asyncpg", "session")
@pytest.mark.parametrize("scope", SCOPES)
def test_each_loop_scope_as_default(project: Project, target: Target, scope: str) -> None:
    """Tests without a marker run where the ini says, in several files and folders."""
    project.ini(asyncio_default_test_loop_scope=scope, asyncio_default_fixture_loop_scope=scope)
    body = (
        WORK
        + """
async def test_first(asyncdb_session, asyncdb_engine):
    await work(asyncdb_session, asyncdb_engine)

class TestIt:
    async def test_second(self, asyncdb_session, asyncdb_engine):
        await work(asyncdb_session, asyncdb_engine)
"""
    )
    for folder in ("one", "two"):
        project.write(f"{folder}/__init__.py", "")
        project.tests(body, name=f"{folder}/test_it.py")
    project.run(target).passed(4)


def test_fixtures_of_the_user_on_another_loop(project: Project, target: Target) -> None:
    """A user's async fixture may run on one loop and the test on another."""
    project.ini(asyncio_mode="strict")
    fixtures = "\n".join(
        f"""
@pytest_asyncio.fixture(loop_scope="{scope}")
async def {scope}_user(asyncdb_session, asyncdb_engine):
    await add(asyncdb_session, "{scope}")
    await asyncdb_session.commit()
    async with asyncdb_engine.begin() as connection:
        await add(connection, "{scope} engine")
    yield "{scope}"
    assert "{scope}" in await names(asyncdb_session)
    await add(asyncdb_session, "{scope} teardown")
    await asyncdb_session.commit()
"""
        for scope in SCOPES
    )
    users = ", ".join(f"{scope}_user" for scope in SCOPES)
    tests = "\n".join(
        f"""
@pytest.mark.asyncio(loop_scope="{scope}")
async def test_{scope}({users}, asyncdb_session):
    assert len(await names(asyncdb_session)) == 10
    await add(asyncdb_session, "test")
    await asyncdb_session.commit()
"""
        for scope in SCOPES
    )
    project.tests("import pytest_asyncio\n" + fixtures + tests)
    project.run(target).passed(5)


ANYIO = """
import anyio

@pytest.fixture(params=[
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
])
def anyio_backend(request):
    return request.param


@pytest.fixture
async def ada(anyio_backend, asyncdb_session):
    await add(asyncdb_session, "ada")
    await asyncdb_session.commit()
    yield "ada"
    assert "ada" in await names(asyncdb_session)


@pytest.mark.anyio
async def test_fixture(ada, asyncdb_session):
    assert await names(asyncdb_session) == ["ada"]


@pytest.mark.anyio
async def test_task_group(asyncdb_sessionmaker):
    async def one(number):
        async with asyncdb_sessionmaker() as session, session.begin():
            await add(session, f"user {number}")

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(one, number)
    async with asyncdb_sessionmaker() as session:
        assert len(await names(session)) == 5


@pytest.mark.anyio
async def test_cancel_scope(asyncdb_session):
    await add(asyncdb_session, "before")
    await asyncdb_session.commit()
    with anyio.move_on_after(0.2) as scope:
        await asyncdb_session.execute(text(SLOW))
    assert scope.cancelled_caught
    await asyncdb_session.rollback()
    assert await names(asyncdb_session) == ["before"]
"""


@pytest.mark.everyday("postgres+asyncpg", "with")
@pytest.mark.parametrize("asyncio_plugin", ["with", "without"])
def test_anyio_with_and_without_pytest_asyncio(
    project: Project, target: Target, asyncio_plugin: str
) -> None:
    """anyio's plugin on asyncio and on uvloop; no pytest-asyncio needed."""
    project.tests(f"SLOW = {SLOW[target.backend]!r}\n" + ANYIO)
    if asyncio_plugin == "with":
        project.ini(asyncio_mode="strict")
        project.run(target, "-p", "anyio").passed(6)
    else:
        project.ini(asyncio_mode=None, asyncio_default_fixture_loop_scope=None)
        project.run(target, "-p", "anyio", "-p", "no:asyncio").passed(6)


def test_loops_by_loop_factories(
    project: Project, target: Target, pytestconfig: pytest.Config
) -> None:
    """pytest-asyncio's own way to choose loops: asyncio's, uvloop's, and one in debug mode whose
    tasks begin at once (Python 3.12 and newer)."""
    if not hasattr(pytestconfig.hook, "pytest_asyncio_loop_factories"):
        pytest.skip("this pytest-asyncio has no loop factories")
    project.write(
        "conftest.py",
        """
        import asyncio
        import uvloop


        def eager():
            loop = asyncio.new_event_loop()
            loop.set_debug(True)
            loop.set_task_factory(getattr(asyncio, "eager_task_factory", None))
            return loop


        def pytest_asyncio_loop_factories(config, item):
            new = asyncio.new_event_loop
            return {"plain": new, "uvloop": uvloop.new_event_loop, "eager": eager}
        """,
    )
    project.tests(
        WORK
        + """
async def test_function(asyncdb_session, asyncdb_engine):
    await work(asyncdb_session, asyncdb_engine)

@pytest.mark.asyncio(loop_scope="session")
async def test_session(asyncdb_session, asyncdb_engine, request):
    assert (type(asyncio.get_running_loop()).__module__ == "uvloop") == ("uvloop" in request.node.name)
    await work(asyncdb_session, asyncdb_engine)

async def test_tasks(asyncdb_sessionmaker):
    async def one(name):
        async with asyncdb_sessionmaker() as session, session.begin():
            await add(session, name)
            return await names(session)

    found = await asyncio.gather(*map(one, "abcde"))
    assert all(name in seen for name, seen in zip("abcde", found))
    async with asyncdb_sessionmaker() as session:
        assert sorted(await names(session)) == [*"abcde"]
"""
    )
    project.run(target).passed(9)


def test_isolated_asyncio_test_case(project: Project, target: Target) -> None:
    """unittest's own async tests, by an autouse fixture."""
    project.tests(
        WORK
        + """
import unittest


class TestCase(unittest.IsolatedAsyncioTestCase):
    @pytest.fixture(autouse=True)
    def database(self, asyncdb_session, asyncdb_engine):
        self.session, self.engine = asyncdb_session, asyncdb_engine

    async def asyncSetUp(self):
        assert await names(self.session) == []
        await self.session.rollback()

    async def asyncTearDown(self):
        await add(self.session, "teardown")
        await self.session.commit()

    async def test_one(self):
        await work(self.session, self.engine)

    async def test_two(self):
        await work(self.session, self.engine)
"""
    )
    outcome = project.run(target)
    outcome.passed(2)


def test_other_threads_with_loops_of_their_own(project: Project, target: Target) -> None:
    """What a TestClient does: the application runs on a loop in another thread."""
    project.tests(
        """
        async def handler(sessions, word):
            async with sessions() as session:
                await add(session, word)
                await session.commit()
                return await names(session)

        def test_sync_with_thread(asyncdb_sessionmaker):
            found = []
            thread = threading.Thread(
                target=lambda: found.extend(asyncio.run(handler(asyncdb_sessionmaker, "ada")))
            )
            thread.start()
            thread.join(20)
            assert found == ["ada"]

        def test_sync_with_run(asyncdb_sessionmaker):
            assert asyncio.run(handler(asyncdb_sessionmaker, "ada")) == ["ada"]
            assert asyncio.run(handler(asyncdb_sessionmaker, "bob")) == ["ada", "bob"]

        async def test_async_with_to_thread(asyncdb_sessionmaker, asyncdb_session):
            await add(asyncdb_session, "test")
            await asyncdb_session.commit()
            found = await asyncio.to_thread(
                lambda: asyncio.run(handler(asyncdb_sessionmaker, "ada"))
            )
            assert found == ["ada", "test"]
            assert await names(asyncdb_session) == ["ada", "test"]

        async def test_several_threads(asyncdb_sessionmaker, asyncdb_session):
            await asyncio.gather(*(
                asyncio.to_thread(lambda n=n: asyncio.run(handler(asyncdb_sessionmaker, f"{n}")))
                for n in range(4)
            ))
            assert await names(asyncdb_session) == ["0", "1", "2", "3"]

        async def test_a_loop_that_stays(asyncdb_sessionmaker, asyncdb_session):
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=loop.run_forever)
            thread.start()
            try:
                for n in range(3):
                    call = asyncio.run_coroutine_threadsafe(
                        handler(asyncdb_sessionmaker, f"{n}"), loop
                    )
                    await asyncio.wrap_future(call)
                    assert len(await names(asyncdb_session)) == n + 1
                    await asyncdb_session.rollback()
            finally:
                loop.call_soon_threadsafe(loop.stop)
                thread.join(20)
                loop.close()
        """
    )
    project.run(target).passed(5)


CANCELLED = """
async def test_wait_for(asyncdb_session):
    await add(asyncdb_session, "before")
    await asyncdb_session.commit()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncdb_session.execute(text(SLOW)), 0.2)
    await asyncdb_session.rollback()
    assert await names(asyncdb_session) == ["before"]
    await add(asyncdb_session, "after")
    await asyncdb_session.commit()
    assert await names(asyncdb_session) == ["after", "before"]
"""

MORE_CANCELLED = """
async def test_next(asyncdb_session):
    assert await names(asyncdb_session) == []


async def test_cancelled_task(asyncdb_sessionmaker):
    async def one():
        async with asyncdb_sessionmaker() as session, session.begin():
            await add(session, "never")
            await session.execute(text(SLOW))

    async with asyncdb_sessionmaker() as session, session.begin():
        await add(session, "before")
    task = asyncio.create_task(one())
    await asyncio.wait([task], timeout=0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncdb_sessionmaker() as session:
        assert await names(session) == ["before"]


async def test_timeout_block(asyncdb_engine):
    async with asyncdb_engine.begin() as connection:
        await add(connection, "before")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2), asyncdb_engine.begin() as connection:
            await add(connection, "never")
            await connection.execute(text(SLOW))
    async with asyncdb_engine.connect() as connection:
        assert await names(connection) == ["before"]


async def test_others_go_on_meanwhile(asyncdb_session):
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    task = asyncio.create_task(tick())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncdb_session.execute(text(SLOW)), 0.3)
    task.cancel()
    assert ticks >= 5
"""


def test_a_cancelled_statement_costs_its_own_branch(project: Project, target: Target) -> None:
    """After a time-out the session rolls back; what was committed before is still there."""
    project.tests(f"SLOW = {SLOW[target.backend]!r}\n" + CANCELLED + MORE_CANCELLED)
    project.run(target).passed(5)


# The controls: an engine made once, as everybody writes it first.

NAIVE = """
import pytest
import pytest_asyncio
from app.models import Base
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.pool import {pool}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def asyncdb_engine():
    engine = create_async_engine({url!r}, poolclass={pool})
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture(loop_scope={loop_scope!r})
async def asyncdb_session(asyncdb_engine):
    async with asyncdb_engine.connect() as connection:
        transaction = await connection.begin()
        session = AsyncSession(bind=connection, join_transaction_mode="create_savepoint")
        yield session
        await session.close()
        if transaction.is_active:
            await transaction.rollback()
"""


def naive(project: Project, target: Target, loop_scope: str, tests: str) -> str:
    """Run *tests* on the usual recipe and return the output."""
    pool = "AsyncAdaptedQueuePool"
    with naive_database(project, target) as url:
        project.ini(asyncdb_metadata=None, filterwarnings=None)
        project.write("conftest.py", NAIVE.format(url=url, loop_scope=loop_scope, pool=pool))
        project.tests(tests)
        # Apart, since what it leaves open would warn in our own process.
        result = project.pytester.runpytest_subprocess(*(*QUIET, "-p", "no:asyncdb"), timeout=60)
    return str(result.stdout)


@pytest.mark.everyday(*EACH_BACKEND)
def test_control_one_engine_and_several_loops(project: Project, target: Target) -> None:
    """The plain recipe fails where a driver's connection is bound to its loop."""
    output = naive(
        project,
        target,
        "function",
        """
        async def test_it(asyncdb_session):
            await add(asyncdb_session, "ada")
            await asyncdb_session.commit()

        async def test_next(asyncdb_session):
            assert await names(asyncdb_session) == []
        """,
    )
    if target.driver in BOUND_TO_A_LOOP:
        assert "2 passed" not in output
        assert "different loop" in output or "Event loop is closed" in output
    elif target.backend == "postgres":
        assert "2 passed" in output
    else:
        assert "assert ['ada'] == []" in output  # no change of loop, but no real BEGIN either


@pytest.mark.everyday(*EACH_BACKEND)
@pytest.mark.parametrize("word", WORDS[1:])
def test_control_a_cancelled_statement(project: Project, servers: Servers, word: str) -> None:
    """The plain recipe loses the test's transaction when a statement is cancelled.

    On SQLite it waits for the statement for ever, so there is nothing to run.
    """
    target = servers.target(word)
    tests = f"SLOW = {SLOW[target.backend]!r}\n" + CANCELLED
    project.ini(asyncio_default_test_loop_scope="session")
    assert "1 passed" not in naive(project, target, "session", tests)


#: freezegun replaces the clock of all event loops like this.
FROZEN = """
import time

from sqlalchemy import update


async def wait(engine, monkeypatch):
    sessions = async_sessionmaker(engine)
    async with sessions.begin() as session:
        await add(session, "ada")

    async def other():
        async with sessions.begin() as session:
            await session.execute(update(User).values(name="other"))

    with monkeypatch.context() as frozen:
        frozen.setattr(time, "monotonic", lambda: 1e9)
        async with sessions() as session:
            await session.execute(update(User).values(name="first"))
            task = asyncio.create_task(other())
            for _ in range(100):
                await asyncio.sleep(0)
            assert not task.done()
            await session.commit()
        await task
    async with sessions() as session:
        assert await names(session) == ["other"]


@pytest.mark.parametrize("n", [
    pytest.param(n, marks=pytest.mark.asyncdb(isolation=how))
    for n, how in enumerate(("reset", "copy"))
])
async def test_it(asyncdb_engine, monkeypatch, n):
    await wait(asyncdb_engine, monkeypatch)


@pytest.mark.asyncdb(isolation="copy")
async def test_plain(asyncdb_url, monkeypatch):
    engine = create_async_engine(asyncdb_url)
    await wait(engine, monkeypatch)
    await engine.dispose()
"""


@pytest.mark.everyday("postgres+asyncpg", "postgres+psycopg", "mariadb+asyncmy")
@pytest.mark.parametrize("word", [word for word in WORDS if word != "sqlite"])
def test_a_statement_waits_for_another_task_in_a_frozen_time(
    project: Project, servers: Servers, word: str
) -> None:
    """The loop of the test stood still until the server ended the wait for the lock.

    Control: a plain engine.
    """
    project.tests(FROZEN, "from sqlalchemy.ext.asyncio import create_async_engine")
    project.run(servers.target(word)).passed(3)
