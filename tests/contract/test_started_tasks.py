"""Tasks that a test starts and leaves: the test that did it is told, and no other test sees them."""

from __future__ import annotations

import pytest
from fix_project import Project, naive_database
from fix_servers import Servers, Target

#: An application that does something after it has answered.
APP = """
import asyncio
from app.models import User
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine("postgresql+asyncpg://app:secret@127.0.0.1:1/app")
Session = async_sessionmaker(engine)
tasks = []


async def audit(go, sessions=Session, used=None):
    async with sessions.begin() as session:
        session.add(User(name="late"))
        if used is None:
            await go.wait()
            return
    used.set()
    await go.wait()
"""

#: Tests of every loop scope that leave a task.
SCOPES = ("function", "module", "session")


@pytest.fixture
def app(project: Project) -> Project:
    project.write("app/db.py", APP)
    project.ini(asyncdb_app_engines="app.db:Session")
    return project


@pytest.fixture
def sqlite(servers: Servers) -> Target:
    return servers.target("sqlite")


# Pending at the end of the test.


@pytest.mark.parametrize("isolation", ["rollback", "reset"])
def test_a_pending_task_that_has_used_the_database_is_reported(
    app: Project, target: Target, isolation: str
) -> None:
    """Whatever the scope of its loop, with the line where it stands; the next test is clean."""
    app.ini(asyncdb_isolation=isolation)
    app.tests(
        """
        from app.db import Session, audit, tasks

        async def leave(sessions):
            used = asyncio.Event()
            tasks.append(asyncio.create_task(audit(asyncio.Event(), sessions, used)))
            await used.wait()
        """,
        *(
            f"""
            @pytest.mark.asyncio(loop_scope="{scope}")
            @pytest.mark.parametrize("whose", ["application", "fixture"])
            async def test_{scope}(asyncdb_sessionmaker, whose):
                await leave(Session if whose == "application" else asyncdb_sessionmaker)

            @pytest.mark.asyncio(loop_scope="{scope}")
            async def test_after_{scope}(asyncdb_session):
                assert await names(asyncdb_session) == []
            """
            for scope in SCOPES
        ),
    )
    outcome = app.run(target).had(passed=9, errors=6)
    line = app.place("await go.wait()", "audit", "app/db.py", after="    await go.wait()")
    outcome.shows(
        f"""
        the test ended while a task that had used its database was pending

        test: test_it.py::test_function[{target.id}-application]
        task: {_task(outcome.text, "test_function")} (audit)
        at {line}

        To fix this: await or cancel the task before the test ends
        """
    )
    assert outcome.text.count(f"\n  at {line}\n") == 6


def _task(text: str, test: str) -> str:
    """The name that asyncio gave the task in the report of *test*."""
    section = text.partition(f"ERROR at teardown of {test}[")[2]
    return section.partition("task: ")[2].partition(" ")[0]


def test_a_task_that_swallows_its_cancellation_is_reported_too(
    app: Project, sqlite: Target
) -> None:
    """pytest-asyncio cancels it with its loop, before the fixtures of the plugin end."""
    app.tests(
        """
        async def work(sessions, started):
            async with sessions.begin() as session:
                await add(session, "ada")
            started.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass

        async def test_it(asyncdb_sessionmaker):
            started = asyncio.Event()
            task = asyncio.create_task(work(asyncdb_sessionmaker, started))
            await started.wait()
        """
    )
    outcome = app.run(sqlite).had(passed=1, errors=1)
    assert "the test ended while a task that had used its database was pending" in outcome.text


@pytest.mark.parametrize("scope", ["function", "module"])
def test_a_task_without_code_of_the_user_is_reported_too(
    app: Project, sqlite: Target, scope: str
) -> None:
    """As that of a statement which waits for its turn."""
    app.ini(asyncio_default_test_loop_scope=scope)
    app.tests(
        """
        from app.db import tasks

        async def test_it(asyncdb_sessionmaker):
            async def hold():
                tasks.append(asyncdb_sessionmaker())
                await names(tasks[0])
            await asyncio.create_task(hold())
            tasks.append(asyncdb_sessionmaker())
            tasks.append(asyncio.create_task(tasks[1].execute(select(User))))
            for _ in range(5):
                await asyncio.sleep(0)
            assert not tasks[2].done()
        """
    )
    outcome = app.run(sqlite).had(passed=1, errors=1)
    assert "the test ended while a task that had used its database was pending" in outcome.text
    assert "(AsyncSession.execute)" in outcome.text


def test_tasks_that_are_nobodys_business_are_not_reported(app: Project, target: Target) -> None:
    """Those that use no database or have ended, whoever ended them, and those of a fixture of a
    wider scope, which use the database of each test."""
    app.ini(asyncio_default_fixture_loop_scope="module", asyncio_default_test_loop_scope="module")
    app.tests(
        """
        import contextlib
        import pytest_asyncio
        from app.db import Session, audit, tasks

        async def worker(jobs):
            while True:
                job, done = await jobs.get()
                async with Session.begin() as session:
                    await add(session, job)
                done.set()

        @contextlib.asynccontextmanager
        async def working():
            jobs = asyncio.Queue()
            task = asyncio.create_task(worker(jobs))
            yield jobs
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        async def send(jobs, job):
            done = asyncio.Event()
            await jobs.put((job, done))
            await done.wait()

        @pytest.fixture(scope="module")
        async def of_the_module():
            async with working() as jobs:
                yield jobs

        @pytest_asyncio.fixture(loop_scope="function")
        async def of_the_test(asyncdb_engine):
            async with working() as jobs:
                yield jobs

        @pytest.mark.parametrize("n", [1, 2])
        async def test_of_the_module(of_the_module, asyncdb_session, n):
            await send(of_the_module, "ada")
            assert await names(asyncdb_session) == ["ada"]

        @pytest.mark.asyncio(loop_scope="function")
        async def test_of_the_test(of_the_test, asyncdb_session):
            await send(of_the_test, "ada")
            assert await names(asyncdb_session) == ["ada"]

        async def test_that_uses_none(asyncdb_session):
            asyncio.create_task(asyncio.sleep(60))
            await asyncio.sleep(0)
            assert await names(asyncdb_session) == []

        async def test_that_have_ended(asyncdb_sessionmaker):
            go = asyncio.Event()
            go.set()
            await asyncio.gather(audit(go, asyncdb_sessionmaker))

        def test_that_ends_its_own_loop(asyncdb_sessionmaker):
            async def main():
                used = asyncio.Event()
                tasks.append(asyncio.create_task(audit(used, asyncdb_sessionmaker, used)))
                await used.wait()
                tasks.append(asyncio.create_task(audit(asyncio.Event(), Session, asyncio.Event())))
                await asyncio.sleep(0)
            asyncio.run(main())
        """
    )
    app.run(target).passed(6)


# After the end of the test.


@pytest.mark.parametrize("isolation", ["rollback", "reset"])
def test_a_task_of_an_earlier_test_reaches_no_database(
    app: Project, target: Target, isolation: str
) -> None:
    """It is refused, named in the summary, and the test that runs meanwhile is clean."""
    app.ini(asyncio_default_test_loop_scope="module", asyncdb_isolation=isolation)
    app.tests(
        """
        from app.db import Session, audit, tasks

        go = []

        @pytest.mark.parametrize("whose", ["application", "fixture"])
        async def test_first(asyncdb_sessionmaker, whose):
            go.append(asyncio.Event())
            sessions = Session if whose == "application" else asyncdb_sessionmaker
            tasks.append(asyncio.create_task(audit(go[-1], sessions)))

        async def test_then(asyncdb_session):
            for one in go:
                one.set()
            refused = await asyncio.gather(*tasks, return_exceptions=True)
            assert "a task of a test that has ended" in str(refused[0])
            assert "belongs to a test that has ended" in str(refused[1]) or (
                "a task of a test that has ended" in str(refused[1])
            )
            assert await names(asyncdb_session) == []
        """
    )
    outcome = app.run(target).passed(3)
    for whose in ("application", "fixture"):
        assert (
            f"asyncdb: a task of test_it.py::test_first[{target.id}-{whose}] used a database "
            "after its test; it was refused"
        ) in outcome.text
    assert " (audit), at app/db.py:" in outcome.text


#: Sync code that runs all its async code with one Runner, and tests of it.
WORKER = """
import asyncio
from app.db import Session
from app.models import User
from sqlalchemy import text

runner = asyncio.Runner()
pending = []


async def signup(name):
    async with Session() as session, Session.begin() as other:
        session.add(User(name=name))
        await session.commit()
        await other.execute(text("SELECT 1"))


async def wait(go, used=None):
    if used is not None:
        await signup("before")
        used.set()
    await go.wait()
    await signup("after")


async def several():
    await asyncio.gather(signup("b"), signup("c"))


async def leave():
    used = asyncio.Event()
    pending.append((go := asyncio.Event(), asyncio.create_task(wait(go, used))))
    await used.wait()


async def go_on():
    pending[0][0].set()
    try:
        await pending[0][1]
    except Exception as error:
        return str(error)
"""


@pytest.mark.parametrize("isolation", ["rollback", "reset"])
def test_a_runner_that_the_application_keeps_serves_all_tests(
    app: Project, target: Target, isolation: str
) -> None:
    """It copies the context at its first use, here in the first test. A task that this test leaves
    on its loop is refused nevertheless."""
    app.write("app/worker.py", WORKER)
    app.ini(asyncdb_isolation=isolation)
    app.tests(
        """
        from app.worker import go_on, leave, pending, runner, several, signup

        def teardown_module():
            runner.close()

        @pytest.mark.parametrize("number", range(3))
        def test_first(asyncdb_sync_session, number):
            runner.run(signup("a"))
            runner.run(several())
            found = asyncdb_sync_session.scalars(select(User.name).order_by(User.name))
            assert [*found] == ["a", "b", "c"]
        """
    )
    app.run(target).passed(3)
    app.tests(
        """
        from app.worker import go_on, leave, pending, runner, several, signup

        def teardown_module():
            runner.close()

        @pytest.mark.asyncdb
        def test_first():
            runner.run(leave())

        @pytest.mark.asyncdb
        def test_then():
            assert "a task of a test that has ended" in runner.run(go_on())
            runner.run(signup("a"))
        """
    )
    app.run(target).had(passed=2, errors=1)


def test_a_runner_on_a_plain_engine(project: Project, target: Target) -> None:
    """The control: one engine, one Runner; the task of the first test goes on in the second."""
    with naive_database(project, target) as url:
        plain = APP.replace("postgresql+asyncpg://app:secret@127.0.0.1:1/app", url)
        project.write("app/db.py", plain)
        project.write("app/worker.py", WORKER)
        project.tests(
            """
            from app.db import engine
            from app.worker import go_on, leave, pending, runner, several, signup

            def teardown_module():
                runner.close()

            async def create():
                async with engine.begin() as connection:
                    await connection.run_sync(Base.metadata.drop_all)
                    await connection.run_sync(Base.metadata.create_all)

            @pytest.mark.parametrize("number", range(3))
            def test_first(number):
                runner.run(create())
                runner.run(signup("a"))
                runner.run(several())

            def test_then():
                runner.run(leave())

            def test_last():
                assert runner.run(go_on()) is None
                runner.run(engine.dispose())
            """
        )
        project.run(target).passed(5)


def test_on_a_plain_engine_it_reaches_the_next_test(project: Project, target: Target) -> None:
    """The control: one engine and one database for all tests, emptied between them."""
    with naive_database(project, target) as url:
        project.write(
            "app/db.py", APP.replace("postgresql+asyncpg://app:secret@127.0.0.1:1/app", url)
        )
        project.ini(asyncio_default_test_loop_scope="module")
        project.tests(
            """
            from app.db import Session, audit, engine, tasks
            from sqlalchemy import delete

            go = asyncio.Event()

            async def test_first():
                async with engine.begin() as connection:
                    await connection.run_sync(Base.metadata.drop_all)
                    await connection.run_sync(Base.metadata.create_all)
                tasks.append(asyncio.create_task(audit(go)))

            async def test_then():
                async with Session.begin() as session:
                    await session.execute(delete(User))
                go.set()
                await asyncio.gather(*tasks)
                async with Session() as session:
                    assert await names(session) == ["late"]
                await engine.dispose()
            """
        )
        project.run(target).passed(2)


def test_a_late_task_is_refused_the_applications_own_database_too(
    app: Project, sqlite: Target
) -> None:
    """And the error is about the test that has started it, not about the one that runs."""
    app.ini(asyncio_default_test_loop_scope="module")
    app.tests(
        """
        from app.db import audit, tasks

        go = asyncio.Event()

        async def test_first(asyncdb_engine):
            tasks.append(asyncio.create_task(audit(go)))

        async def test_of_no_database():
            go.set()
            refused, = await asyncio.gather(*tasks, return_exceptions=True)
            assert "test: test_it.py::test_first[sqlite]" in str(refused)
            raise refused
        """
    )
    outcome = app.run(sqlite).had(passed=1, failed=1)
    outcome.shows(
        f"""
        a task of a test that has ended connects to a database

        test: test_it.py::test_first[sqlite]
        task: {outcome.text.partition("task: ")[2].partition(" ")[0]} (audit)
        at {app.place("async with sessions.begin() as session:", "audit", "app/db.py")}
        Nothing was sent to the database.

        To fix this: await or cancel every task of a test before it ends
        """
    )


def test_a_late_task_with_an_engine_of_its_own_is_refused_too(app: Project, target: Target) -> None:
    """The tests of a worker share a database, so ``asyncdb_url`` is the next test's as well."""
    app.ini(asyncio_default_test_loop_scope="module", asyncdb_isolation="reset")
    app.tests(
        """
        from app.db import audit, tasks
        from pytest_asyncdb import build_engine

        go = asyncio.Event()
        go.set()
        start = asyncio.Event()

        async def work(engine):
            await start.wait()
            await audit(go, async_sessionmaker(engine))

        async def test_first(asyncdb_url):
            tasks.append(asyncio.create_task(work(build_engine(asyncdb_url))))

        async def test_then(asyncdb_session):
            start.set()
            refused, = await asyncio.gather(*tasks, return_exceptions=True)
            assert "a task of a test that has ended" in str(refused)
            assert await names(asyncdb_session) == []
        """
    )
    app.run(target).passed(2)


def test_threads_of_an_earlier_test_are_refused_too(app: Project, sqlite: Target) -> None:
    """``asyncio.to_thread`` copies the context to its thread."""
    app.ini(asyncio_default_test_loop_scope="module")
    app.tests(
        """
        import threading
        from app.db import audit, tasks

        go, open_ = threading.Event(), asyncio.Event()
        open_.set()

        def work():
            go.wait()
            asyncio.run(audit(open_))

        async def test_first(asyncdb_engine):
            tasks.append(asyncio.create_task(asyncio.to_thread(work)))
            await asyncio.sleep(0)

        async def test_then(asyncdb_session):
            go.set()
            refused, = await asyncio.gather(*tasks, return_exceptions=True)
            assert "a task of a test that has ended" in str(refused)
            assert await names(asyncdb_session) == []
        """
    )
    app.run(sqlite).passed(2)


@pytest.mark.parametrize("scope", ["function", "module"])
def test_anyio_tests_are_told_the_same(app: Project, sqlite: Target, scope: str) -> None:
    """Also where anyio runs all tests in one task, which is older than they are."""
    app.ini(asyncio_mode="strict")
    app.tests(
        f"""
        from app.db import Session, audit, tasks

        pytestmark = pytest.mark.anyio
        go = []

        @pytest.fixture(scope="module")
        def anyio_backend():
            return "asyncio"

        @pytest.fixture(scope="{scope}", autouse=True)
        async def something(anyio_backend):
            pass
            yield

        @pytest.fixture
        async def ada(asyncdb_sessionmaker):
            async with asyncdb_sessionmaker.begin() as session:
                await add(session, "ada")
            yield
            async with asyncdb_sessionmaker.begin() as session:
                await add(session, "grace")

        @pytest.mark.parametrize("use", [True, False])
        async def test_first(ada, asyncdb_sessionmaker, use):
            go.append(asyncio.Event())
            used = asyncio.Event() if use else None
            tasks.append(asyncio.create_task(audit(go[-1], used=used)))
            if use:
                await used.wait()

        async def test_then(ada, asyncdb_session):
            for one in go:
                one.set()
            if {scope == "module"}:
                await asyncio.gather(*tasks, return_exceptions=True)
            assert await names(asyncdb_session) == ["ada"]
        """
    )
    outcome = app.run(sqlite, "-p", "anyio").had(passed=3, errors=1)
    assert "pending" in outcome.text
    late = "a task of test_it.py::test_first[sqlite-False] used a database after its test"
    assert (late in outcome.text) is (scope == "module"), outcome.text
