"""The contract of ``rollback``, on every backend and driver, watched from outside.

Each test runs pytest in a downstream project. The observer, which uses none of our code,
looks at every table after every inner test; see ``fix_project.py``.
"""

from __future__ import annotations

import time

import pytest
from fix_project import QUIET, Project, naive_database
from fix_servers import Servers, Target
from fix_suite import EACH_BACKEND, EACH_DRIVER

pytestmark = [
    pytest.mark.filterwarnings("default::ResourceWarning"),
    pytest.mark.everyday(*EACH_DRIVER),
]

LABELS = {"sqlite": "SQLite", "postgres": "PostgreSQL", "mysql": "MySQL", "mariadb": "MariaDB"}

#: A statement that runs until somebody ends it.
SLOW = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
    " WHERE i < 100000000000) SELECT count(*) FROM n",
    "postgres": "SELECT pg_sleep(600)",
    "mysql": "SELECT SLEEP(600)",
    "mariadb": "SELECT SLEEP(600)",
}

#: The next test, which finds nothing of the one before, and can work.
AFTER = """
async def test_next(asyncdb_session):
    assert await names(asyncdb_session) == []
    await add(asyncdb_session, "next")
    await asyncdb_session.commit()
    assert await names(asyncdb_session) == ["next"]
"""

#: Bodies of a test that does what applications do; all of it is undone. What the other strategies
#: promise as well is in ``test_strategies.py``.
BODIES = {
    "rollback": """
async def test_it(asyncdb_session):
    await add(asyncdb_session, "ada")
    await asyncdb_session.commit()
    await add(asyncdb_session, "bob")
    await asyncdb_session.rollback()
    assert await names(asyncdb_session) == ["ada"]
    await add(asyncdb_session, "cyd")
    await asyncdb_session.commit()
    assert await names(asyncdb_session) == ["ada", "cyd"]
""",
    "integrity_error": """
async def test_it(asyncdb_session):
    await add(asyncdb_session, "ada")
    await asyncdb_session.commit()
    with pytest.raises(IntegrityError):
        await add(asyncdb_session, "ada")
    await asyncdb_session.rollback()
    await add(asyncdb_session, "bob")
    await asyncdb_session.commit()
    assert await names(asyncdb_session) == ["ada", "bob"]
""",
    "sessions_after_each_other": """
async def test_it(asyncdb_sessionmaker):
    for number in range(5):
        async with asyncdb_sessionmaker() as session, session.begin():
            assert len(await names(session)) == number
            await add(session, f"user {number}")
    with pytest.raises(ZeroDivisionError):
        async with asyncdb_sessionmaker() as session, session.begin():
            await add(session, "never")
            raise ZeroDivisionError
    async with asyncdb_sessionmaker() as session:
        assert len(await names(session)) == 5
""",
    "sessions_inside_each_other": """
async def test_it(asyncdb_session, asyncdb_sessionmaker):
    await add(asyncdb_session, "ada")
    await asyncdb_session.commit()
    assert await names(asyncdb_session) == ["ada"]      # a transaction is open again
    async with asyncdb_sessionmaker() as inner:
        await add(inner, "bob")
        await inner.commit()
        async with asyncdb_sessionmaker() as innermost:
            await add(innermost, "cyd")
            await innermost.rollback()
            await add(innermost, "dan")
            await innermost.commit()
    await asyncdb_session.rollback()
    assert await names(asyncdb_session) == ["ada", "bob", "dan"]
""",
    "connection": """
async def test_it(asyncdb_connection, asyncdb_engine):
    await add(asyncdb_connection, "ada")
    await asyncdb_connection.commit()
    await add(asyncdb_connection, "bob")
    await asyncdb_connection.rollback()
    async with asyncdb_engine.connect() as other:
        assert await names(other) == ["ada"]
""",
    "gather_with_failures": """
async def test_it(asyncdb_sessionmaker):
    async def one(number):
        async with asyncdb_sessionmaker() as session, session.begin():
            await add(session, f"user {number // 2}")

    done = await asyncio.gather(*map(one, range(10)), return_exceptions=True)
    assert [type(error) for error in done if error] == [IntegrityError] * 5
    async with asyncdb_sessionmaker() as session:
        assert await names(session) == [f"user {number}" for number in range(5)]
""",
    "sessionmaker_of_the_application": """
async def test_it(asyncdb_engine):
    sessions = async_sessionmaker(asyncdb_engine, expire_on_commit=False)
    async with sessions() as session:
        user = User(name="ada")
        session.add(user)
        await session.flush()
        session.add(Post(user_id=user.id, text="hello"))
        await session.commit()
    async with AsyncSession(asyncdb_engine) as session:
        assert await session.scalar(select(func.count()).select_from(Post)) == 1
""",
    "streaming": """
async def test_it(asyncdb_sessionmaker):
    async with asyncdb_sessionmaker() as session, session.begin():
        await add(session, *(f"user {number:03}" for number in range(300)))
    async with asyncdb_sessionmaker() as session:
        result = await session.stream(select(User.name).order_by(User.name))
        async for (name,) in result:
            if name == "user 150":
                break
        await result.close()
        await add(session, "ada")
        await session.commit()
        assert len(await names(session)) == 301
""",
    "left_open": """
async def test_it(asyncdb_sessionmaker):
    forgotten = asyncdb_sessionmaker()
    await add(forgotten, "ada")
    assert await names(forgotten) == ["ada"]
""",
    "failing_test": """
@pytest.mark.xfail(raises=IntegrityError, strict=True)
async def test_it(asyncdb_session):
    await add(asyncdb_session, "ada")
    await asyncdb_session.commit()
    await add(asyncdb_session, "ada")
""",
}


def test_what_applications_do_is_undone_in_any_order(project: Project, target: Target) -> None:
    """All bodies, forwards and backwards, on one kept connection.

    Before each the tables are empty, and after each the observer finds them so.
    """
    bodies = [text.replace("test_it", f"test_{name}") for name, text in BODIES.items()]
    empty = """
@pytest.fixture(autouse=True)
async def empty(asyncdb_sessionmaker):
    async with asyncdb_sessionmaker() as session:
        assert await names(session) == []
"""
    backwards = "\n".join(reversed(bodies)).replace("test_", "test_b_")
    project.tests(empty, "\n".join(bodies), backwards)
    outcome = project.run(target).had(passed=2 * len(bodies) - 2, xfailed=2)
    assert len(outcome.watch.looked) == 2 * len(bodies)


def test_a_seed_is_there_in_every_test(project: Project, target: Target) -> None:
    """What the template holds comes back whatever a test does to it."""
    project.write(
        "conftest.py",
        """
        import pytest
        from app.models import User


        @pytest.fixture(scope="session")
        def asyncdb_seed():
            async def seed(session):
                session.add(User(id=1, name="root"))
            return seed
        """,
    )
    project.tests(
        """
        @pytest.mark.parametrize("round", [1, 2])
        async def test_delete(asyncdb_session, round):
            (root,) = await asyncdb_session.scalars(select(User))
            assert root.name == "root"
            await asyncdb_session.delete(root)
            await asyncdb_session.commit()
            assert await names(asyncdb_session) == []
        """
    )
    project.run(target, expected={"posts": [], "users": [(1, "root")]}).passed(2)


def refused(statement: str, node: str, place: str, label: str, why: str) -> str:
    """The whole text of a refusal."""
    return f"""
        refused before it ran: {statement}

        test: {node}
        at {place}
        On {label} {why}, and what the test wrote could not be undone.

        To fix this: use session.commit() and session.rollback() rather than their SQL text, \
keep DDL out of the test, or mark it @pytest.mark.asyncdb(isolation="reset")
        """


@pytest.mark.everyday("COMMIT", "postgres+asyncpg")
@pytest.mark.parametrize("statement", ["COMMIT", "/* now */ rollback"])
def test_the_text_of_a_commit_is_refused(project: Project, target: Target, statement: str) -> None:
    """A literal COMMIT does not reach the server, and the test that sent it fails."""
    project.tests(
        f"""
        async def test_it(asyncdb_session):
            await add(asyncdb_session, "ada")
            await asyncdb_session.execute(text("{statement}"))
        """,
        AFTER,
    )
    outcome = project.run(target)
    assert outcome.result.parseoutcomes()["passed"] == 1
    node = f"test_it.py::test_it[{target.id}]"
    outcome.untouched().shows(
        refused(
            statement,
            node,
            project.place(f'await asyncdb_session.execute(text("{statement}"))', "test_it"),
            LABELS[target.backend],
            "it ends or begins a transaction itself",
        )
    )


def test_a_refusal_that_the_code_swallows_is_reported(project: Project, target: Target) -> None:
    """Code that catches every error does not hide a breach."""
    project.tests(
        """
        async def test_it(asyncdb_session):
            try:
                await asyncdb_session.execute(text("COMMIT"))
            except Exception:
                pass
        """,
        AFTER,
    )
    outcome = project.run(target)
    assert outcome.result.parseoutcomes()["passed"] >= 1
    assert outcome.result.ret == pytest.ExitCode.TESTS_FAILED
    outcome.untouched().shows("refused before it ran: COMMIT")


def test_ddl_is_undone_or_refused(project: Project, target: Target) -> None:
    """Where the server can undo DDL it is undone; where it commits, it never runs."""
    project.tests(
        """
        async def test_it(asyncdb_session):
            await add(asyncdb_session, "ada")
            await asyncdb_session.execute(text("CREATE TABLE extra (id INTEGER)"))
            await asyncdb_session.execute(text("INSERT INTO extra VALUES (1)"))
            await asyncdb_session.commit()
            await asyncdb_session.execute(text("DROP TABLE posts"))
            await asyncdb_session.commit()
        """,
        AFTER,
    )
    outcome = project.run(target)
    if target.backend in ("sqlite", "postgres"):
        outcome.passed(2)
        return
    assert outcome.result.parseoutcomes()["passed"] == 1
    outcome.untouched().shows(
        refused(
            "CREATE TABLE extra (id INTEGER)",
            f"test_it.py::test_it[{target.id}]",
            project.place(
                'await asyncdb_session.execute(text("CREATE TABLE extra (id INTEGER)"))', "test_it"
            ),
            LABELS[target.backend],
            "it commits by itself",
        )
    )


LEFT_RUNNING = """
async def test_it(asyncdb_sessionmaker):
    async def forgotten():
        async with asyncdb_sessionmaker() as session:
            await add(session, "ada")
            await session.execute(text(SLOW))

    task = asyncio.create_task(forgotten(), name="forgotten work")
    tasks.append(task)
    await asyncio.wait([task], timeout=0.2)      # its statement is under way
    assert not task.done()
"""


def test_a_task_left_running_is_reported_by_name(project: Project, target: Target) -> None:
    """A task that outlives its test fails that test, soon, and harms no other one."""
    project.ini(asyncio_default_test_loop_scope="session")
    project.tests(f"SLOW = {SLOW[target.backend]!r}\ntasks = []\n" + LEFT_RUNNING + AFTER)
    before = time.monotonic()
    outcome = project.run(target)
    assert time.monotonic() - before < 20
    outcome.had(passed=2, errors=1).shows(
        f"""
        the test ended while a task was still using its connection

        test: test_it.py::test_it[{target.id}]
        task: forgotten work (test_it.<locals>.forgotten)
        at {project.place("await session.execute(text(SLOW))", "forgotten")}

        To fix this: await or cancel the task before the test ends
        """
    )


def test_a_task_that_ends_with_the_loop_harms_nobody(project: Project, target: Target) -> None:
    """pytest-asyncio cancels what a test left on its own loop; the next test is clean."""
    project.tests(f"SLOW = {SLOW[target.backend]!r}\ntasks = []\n" + LEFT_RUNNING + AFTER)
    before = time.monotonic()
    outcome = project.run(target).untouched()
    assert time.monotonic() - before < 20
    assert f"test_it.py::test_next[{target.id}]" not in outcome.text.partition("summary")[2]


def test_a_task_of_an_earlier_test_gets_nothing_through(project: Project, target: Target) -> None:
    """A session that lives on does not write into the next test."""
    project.ini(asyncio_default_test_loop_scope="session")
    project.tests(
        """
        kept = {}

        async def test_it(asyncdb_sessionmaker):
            kept["sessions"] = asyncdb_sessionmaker
            kept["session"] = asyncdb_sessionmaker()
            assert await names(kept["session"]) == []

        async def test_late(asyncdb_session):
            assert await names(asyncdb_session) == []
            with pytest.raises(Exception, match="belongs to a test that has ended"):
                async with kept["sessions"]() as session:
                    await add(session, "late")
                    await session.commit()
            with pytest.raises(Exception, match="belongs to a test that has ended"):
                await add(kept["session"], "late")
            assert await names(asyncdb_session) == []
        """
    )
    project.run(target).passed(2)


# The controls: the recipe that everybody writes first, with the same bodies.

NAIVE = """
import pytest
from app.models import Base
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine


@pytest.fixture
async def asyncdb_engine():
    engine = create_async_engine({url!r})
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()


@pytest.fixture
async def asyncdb_session(asyncdb_engine):
    async with asyncdb_engine.connect() as connection:
        transaction = await connection.begin()
        session = AsyncSession(bind=connection)
        yield session
        await session.close()
        if transaction.is_active:
            await transaction.rollback()
"""


@pytest.mark.everyday(*EACH_BACKEND)
@pytest.mark.parametrize("body", ["rollback", "integrity_error", "ddl"])
def test_control_the_usual_recipe_leaks(
    project: Project, target: Target, body: str, servers: Servers
) -> None:
    """A session on a connection, with SQLAlchemy's default join mode, keeps less apart."""
    ddl = """
async def test_it(asyncdb_session):
    await add(asyncdb_session, "ada")
    await asyncdb_session.execute(text("CREATE TABLE extra (id INTEGER)"))
    await asyncdb_session.rollback()
"""
    # PostgreSQL and SQLite undo DDL, and SQLAlchemy's default mode forgets what was committed before
    # a rollback rather than leak it: the recipe then fails in the test itself.
    with naive_database(project, target) as url:
        project.ini(asyncdb_metadata=None)
        project.write("conftest.py", NAIVE.format(url=url))
        project.tests((ddl if body == "ddl" else BODIES[body]) + AFTER)
        result = project.pytester.runpytest_inprocess(*QUIET, "-p", "no:asyncdb")
    outcomes = result.parseoutcomes()
    if body == "ddl" and target.backend in ("sqlite", "postgres"):
        assert outcomes == {"passed": 2}
    else:
        assert outcomes.get("passed", 0) < 2
