"""Turns of units of work on the test's one connection, on every backend and driver."""

from __future__ import annotations

import pytest
from fix_project import Project
from fix_servers import Servers, Target

from pytest_asyncdb.isolation.rollback import Rollback

pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")

#: The next test, which finds nothing of the one before, and can work.
AFTER = """
async def test_next(asyncdb_session):
    assert await names(asyncdb_session) == []
    await add(asyncdb_session, "next")
    await asyncdb_session.commit()
    assert await names(asyncdb_session) == ["next"]
"""


@pytest.fixture
def short_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn lasts at most 0.2 s."""
    monkeypatch.setattr(Rollback, "turn", 0.2)


WAITS = """
async def hold(sessions, release):
    async with sessions() as session:
        await add(session, "held")
        await release.wait()
        await session.commit()


async def wait(sessions):
    async with sessions() as session:
        return await names(session)


async def test_it(asyncdb_sessionmaker):
    release = asyncio.Event()
    holder = asyncio.create_task(hold(asyncdb_sessionmaker, release), name="holder")
    await asyncio.sleep(0)
    await asyncio.create_task(wait(asyncdb_sessionmaker), name="waiter")
"""


INSERT = 'await session.execute(insert(User), [{"name": word} for word in words])'
SELECT = "return list((await session.scalars(select(User.name).order_by(User.name))).all())"


@pytest.mark.usefixtures("short_turn")
def test_who_waits_in_vain_sees_both_stacks(project: Project, target: Target) -> None:
    """The error says where the holder opened its unit, and where the waiter stands."""
    project.tests(WAITS, AFTER)
    outcome = project.run(target)
    assert outcome.result.parseoutcomes()["passed"] == 1
    outcome.untouched().shows(
        f"""
        waited 0.2 s for another unit of work on the test's one connection

        test: test_it.py::test_it[{target.id}]
        It is held by: holder (hold), which opened its unit
        at {project.place('await add(session, "held")', "hold")}
        at {project.place(INSERT, "add")}
        It was waited for by: waiter (wait)
        at {project.place("return await names(session)", "wait")}
        at {project.place(SELECT, "names")}

        To fix this: end the other session first (commit, rollback or close), \
or mark the test @pytest.mark.asyncdb(isolation="reset")
        """
    )


@pytest.mark.usefixtures("short_turn")
def test_tasks_that_wait_for_each_other_end_with_the_error(
    project: Project, target: Target
) -> None:
    """One holds the connection and waits for the other: that one gets the error, no more."""
    project.tests(
        """
        from pytest_asyncdb.errors import IsolationConflict

        async def test_it(asyncdb_sessionmaker):
            done = asyncio.Event()

            async def first():
                async with asyncdb_sessionmaker() as session:
                    await add(session, "first")
                    await done.wait()
                    await session.commit()

            async def second():
                try:
                    async with asyncdb_sessionmaker() as session:
                        await add(session, "second")
                        await session.commit()
                finally:
                    done.set()

            one, other = await asyncio.gather(first(), second(), return_exceptions=True)
            assert one is None
            assert isinstance(other, IsolationConflict)
            async with asyncdb_sessionmaker() as session:
                assert await names(session) == ["first"]
        """,
        AFTER,
    )
    project.run(target).had(passed=2, errors=1)  # the test has kept the error to itself


def test_many_sessions_in_a_gather_do_what_they_do_on_a_pool(
    project: Project, target: Target
) -> None:
    """Fifty sessions that read, write and commit leave fifty rows; each sees its own."""
    project.tests(
        """
        async def one(sessions, number):
            async with sessions() as session:
                before = await names(session)
                await add(session, f"user {number:02}")
                await asyncio.sleep(0)
                found = await names(session)
                assert set(before) < set(found)
                assert f"user {number:02}" in found
                await session.commit()
                return number

        async def test_it(asyncdb_sessionmaker):
            done = await asyncio.gather(*(one(asyncdb_sessionmaker, n) for n in range(50)))
            assert done == list(range(50))
            async with asyncdb_sessionmaker() as session:
                assert await names(session) == [f"user {n:02}" for n in range(50)]
        """,
        AFTER,
    )
    project.run(target).passed(2)


def test_a_unit_that_a_helper_task_began_belongs_to_who_uses_it(
    project: Project, target: Target
) -> None:
    """asyncio.wait_for runs its coroutine in a task of its own on Python 3.11."""
    project.tests(
        """
        async def test_it(asyncdb_sessionmaker):
            async with asyncdb_sessionmaker() as outer:
                await asyncio.wait_for(add(outer, "ada"), 5)
                assert await names(outer) == ["ada"]
                async with asyncdb_sessionmaker() as inner:
                    await add(inner, "bob")
                    await inner.commit()
                await outer.commit()
            async with asyncdb_sessionmaker() as session:
                assert await names(session) == ["ada", "bob"]
        """,
        AFTER,
    )
    project.run(target).passed(2)


#: A statement that runs until somebody ends it.
SLOW = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
    " WHERE i < 100000000000) SELECT count(*) FROM n",
    "postgres": "SELECT pg_sleep(600)",
    "mysql": "SELECT SLEEP(600)",
    "mariadb": "SELECT SLEEP(600)",
}


def test_a_conflict_that_the_code_swallows_fails_the_test(project: Project, target: Target) -> None:
    """A cancelled statement rolls its unit back, which undoes an inner commit. The next statement
    fails, wherever it is, and the test at its end. Where nothing follows, nothing is wrong."""
    project.tests(
        f"SLOW = {SLOW[target.backend]!r}",
        """
        from pytest_asyncdb import IsolationConflict

        async def test_it(asyncdb_sessionmaker, request):
            async with asyncdb_sessionmaker() as outer:
                await add(outer, "ada")
                async with asyncdb_sessionmaker() as inner:
                    await add(inner, "bob")
                    await inner.commit()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await outer.execute(text(SLOW))
                if request.node.originalname == "test_it":
                    with pytest.raises(IsolationConflict):
                        await names(inner)

        test_nothing_follows = test_it
        """,
        AFTER,
    )
    project.run(target).had(passed=3, errors=1).shows(
        f"""
        units of work overlap in a way that one connection cannot keep apart

        test: test_it.py::test_it[{target.id}]
        at {project.place("await outer.execute(text(SLOW))", "test_it")}
        This rollback also undid what another session committed while this one was open; \
on connections of their own it would have survived.

        To fix this{
            ": commit" if target.backend == "sqlite" else ", do one of:" + chr(10) + "  - commit"
        } or roll back the outer session before the inner one begins, \
or do both in one session, asyncdb_session
        """
    )


SWALLOWED = """
async def test_a_race(asyncdb_sessionmaker):
    arrived, both = [], asyncio.Event()

    async def first_come(name):
        try:
            async with asyncdb_sessionmaker() as session:
                assert await names(session) == []
                arrived.append(name)
                if len(arrived) < 2:
                    await both.wait()
                both.set()
                await add(session, name)
                await session.commit()
        finally:
            both.set()

    await asyncio.gather(first_come("ada"), first_come("bob"), return_exceptions=True)
    async with asyncdb_sessionmaker() as session:
        assert len(await names(session)) < 2


async def test_best_effort(asyncdb_sessionmaker):
    async with asyncdb_sessionmaker() as outer, asyncdb_sessionmaker() as inner:
        await add(outer, "ada")
        await inner.scalar(text("SELECT 1"))
        try:
            async with outer.begin_nested():
                await add(outer, "bob")
        except Exception:
            pass
        await inner.close()
        assert await names(outer) == ["ada"]


async def test_another_level(asyncdb_engine):
    default = asyncdb_engine.dialect.default_isolation_level
    level = "READ UNCOMMITTED" if default == "SERIALIZABLE" else "SERIALIZABLE"
    changed = True
    try:
        async with asyncdb_engine.connect() as connection:
            await connection.execution_options(isolation_level=level)
    except Exception:
        changed = False
    assert not changed
"""


@pytest.mark.usefixtures("short_turn")
def test_a_refusal_that_only_one_connection_causes_fails_the_test(
    project: Project, target: Target
) -> None:
    """Each is green because the code swallows the error; on connections of their own each fails."""
    project.tests(SWALLOWED, AFTER)
    outcome = project.run(target).had(passed=4, errors=3)
    project.run(target, "--asyncdb-isolation=reset").had(passed=1, failed=3)
    outcome.shows("waited 0.2 s for another unit of work on the test's one connection")


@pytest.mark.usefixtures("short_turn")
def test_an_error_that_fails_the_test_in_a_task_group_is_not_told_twice(
    project: Project, target: Target
) -> None:
    project.tests(
        """
        async def test_it(asyncdb_sessionmaker):
            async def hold():
                async with asyncdb_sessionmaker() as session:
                    await names(session)
                    await asyncio.Event().wait()

            async def wait():
                async with asyncdb_sessionmaker() as session:
                    await names(session)

            async with asyncio.TaskGroup() as group:
                group.create_task(hold())
                group.create_task(wait())
        """,
        AFTER,
    )
    project.run(target).had(passed=1, failed=1)


FUNCTION = """
import threading


async def test_it(asyncdb_sessionmaker):
    began, go_on = threading.Event(), threading.Event()

    def wait():
        began.set()
        return go_on.wait(10)

    async def slow():
        async with asyncdb_sessionmaker() as session:
            raw = await (await session.connection()).get_raw_connection()
            await raw.driver_connection.create_function("wait", 0, wait)
            return await session.scalar(text("SELECT wait()"))

    async def quick():
        async with asyncdb_sessionmaker() as session:
            return await names(session)

    first = asyncio.create_task(slow())
    while not began.is_set():
        await asyncio.sleep(0)
    second = asyncio.create_task(quick())
    for _ in range(10):
        await asyncio.sleep(0)
    go_on.set()
    assert await first == 1
    assert await second == []
"""


@pytest.mark.parametrize("strategy", ["rollback", "reset", "copy"])
def test_sqlite_is_asked_nothing_while_it_runs_a_function_of_the_application(
    project: Project, servers: Servers, strategy: str
) -> None:
    """SQLite 3.53 answers whether it is in a transaction only after the statement, which waits for
    the GIL that the question holds."""
    project.tests(FUNCTION)
    project.run_apart(
        servers.target("sqlite"), f"--asyncdb-isolation={strategy}", timeout=60
    ).passed(1)


CLOSED_BEFORE = """
import asyncio
import sqlalchemy


@pytest.fixture
async def service(engine):
    # An application, which waits for its last unit of work before it stops.
    began, go_on = asyncio.Event(), asyncio.Event()

    async def work():
        await go_on.wait()
        async with engine.begin() as connection:
            await add(connection, "service")

    def note(*_):
        if go_on.is_set():
            began.set()

    async def start():
        go_on.set()
        await began.wait()
        for _ in range(10):
            await asyncio.sleep(0)  # now it waits

    sqlalchemy.event.listen(engine.sync_engine, "before_cursor_execute", note)
    task = asyncio.create_task(work())
    yield start
    go_on.set()
    await task


@pytest.mark.parametrize("waits", [True, False])
async def test_it(service, session, waits):
    await add(session, "service")  # not committed; it locks the name
    if waits:
        await service()
"""

OWN = """
@pytest.fixture
def engine(asyncdb_engine):
    return asyncdb_engine


@pytest.fixture
def session(asyncdb_session):
    return asyncdb_session
"""

PLAIN = """
@pytest.fixture
async def engine(asyncdb_url):
    from sqlalchemy.ext.asyncio import create_async_engine
    engine = create_async_engine(asyncdb_url)
    yield engine
    await engine.dispose()


@pytest.fixture
async def session(engine):
    async with AsyncSession(engine) as session:
        yield session
"""


@pytest.mark.parametrize("kind", ["rollback", "reset", "copy", "plain"])
def test_the_session_of_a_fixture_is_closed_when_its_fixture_ends(
    project: Project, target: Target, kind: str
) -> None:
    """What stops after it neither waits for its turn nor for its locks; plain: the control."""
    project.tests(PLAIN if kind == "plain" else OWN, CLOSED_BEFORE, AFTER)
    strategy = "reset" if kind == "plain" else kind
    project.run(target, f"--asyncdb-isolation={strategy}").passed(3)
