"""The sync side of the test's database, on every backend and driver and in every strategy: an
``Engine`` and a ``Session`` for sync code, in sync and async tests and in threads."""

from __future__ import annotations

import pytest
from fix_project import Project
from fix_servers import Target

pytestmark = [
    pytest.mark.filterwarnings("default::ResourceWarning"),
    pytest.mark.everyday("sqlite", "postgres+asyncpg", "mysql+aiomysql"),
]

HELP = """
import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy.orm import Session, sessionmaker

pytestmark = pytest.mark.parametrize(
    "strategy",
    [
        pytest.param(one, marks=pytest.mark.asyncdb(isolation=one))
        for one in ("rollback", "reset", "copy")
    ],
)


def sync_names(session):
    return list(session.scalars(select(User.name).order_by(User.name)))


def store(engine, *words):
    with Session(engine) as session:
        session.add_all([User(name=word) for word in words])
        session.commit()
        return sync_names(session)
"""

SYNC = """
@pytest.fixture(params=range(2))
def session(asyncdb_sync_session, request):
    "The second time there must be nothing of the first."
    assert sync_names(asyncdb_sync_session) == []
    asyncdb_sync_session.rollback()
    return asyncdb_sync_session


def test_commit(session, strategy):
    session.add(User(name="a"))
    session.commit()
    assert sync_names(session) == ["a"]


def test_rollback(session, strategy):
    session.add(User(name="a"))
    session.commit()
    session.add(User(name="b"))
    session.flush()
    session.rollback()
    assert sync_names(session) == ["a"]


def test_nested(session, strategy):
    with session.begin_nested():
        session.add(User(name="a"))
    with pytest.raises(ZeroDivisionError), session.begin_nested():
        session.add(User(name="b"))
        session.flush()
        1 / 0
    session.commit()
    assert sync_names(session) == ["a"]


def test_an_error(session, strategy):
    session.add(User(name="a"))
    session.commit()
    session.add(User(name="a"))
    with pytest.raises(IntegrityError):
        session.commit()
    session.rollback()
    assert sync_names(session) == ["a"]


def test_begin(session, asyncdb_sync_engine, strategy):
    make = sessionmaker(asyncdb_sync_engine)
    with make.begin() as other:
        other.add(User(name="a"))
    with pytest.raises(ZeroDivisionError), make.begin() as other:
        other.add(User(name="b"))
        1 / 0
    assert sync_names(session) == ["a"]


def test_left_open(session, strategy):
    session.add(User(name="a"))
    session.flush()


def test_connection(session, asyncdb_sync_engine, strategy):
    with asyncdb_sync_engine.begin() as connection:
        connection.execute(insert(User), [{"name": "a"}, {"name": "c"}])
        result = connection.execute(text("UPDATE users SET name = 'b' WHERE name = 'c'"))
        assert result.rowcount == 1
    with asyncdb_sync_engine.connect() as connection:
        connection.execute(insert(User), {"name": "c"})
    assert sync_names(session) == ["a", "b"]


def test_autocommit(session, asyncdb_sync_engine, strategy):
    engine = asyncdb_sync_engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(insert(User), {"name": "a"})
    assert sync_names(session) == ["a"]


def test_stream(session, strategy):
    session.add_all([User(name=f"{n:03}") for n in range(200)])
    session.commit()
    query = select(User.name).order_by(User.id).execution_options(yield_per=7)
    assert [*session.scalars(query)] == [f"{n:03}" for n in range(200)]
    partitions = session.scalars(query).partitions()
    assert next(partitions) == [f"{n:03}" for n in range(7)]


def test_lazy_load_and_relations(session, strategy):
    "A statement that nobody has written."
    session.add(User(name="a"))
    session.commit()
    user = session.scalars(select(User)).one()
    session.expire(user)
    assert user.name == "a"


def test_reflection(session, asyncdb_sync_engine, strategy):
    from sqlalchemy import inspect

    assert {"users", "posts"} <= {*inspect(asyncdb_sync_engine).get_table_names()}


def test_threads(session, asyncdb_sync_engine, strategy):
    with ThreadPoolExecutor(3) as pool:
        [*pool.map(lambda n: store(asyncdb_sync_engine, f"{n}"), range(6))]
    assert sync_names(session) == [f"{n}" for n in range(6)]


def test_a_thread_that_has_ended_holds_no_files(session, asyncdb_sync_engine, strategy):
    def files_after(*words):
        for word in words:
            thread = threading.Thread(target=store, args=(asyncdb_sync_engine, word))
            thread.start()
            thread.join()
        return len(os.listdir("/dev/fd"))

    before = files_after("first")
    assert files_after(*(f"{n}" for n in range(20))) < before + 20
    assert len(sync_names(session)) == 21


def test_what_is_forgotten(session, asyncdb_sync_engine, strategy):
    "The garbage collector rolls it back, as with a sync driver."
    connection = asyncdb_sync_engine.connect()
    connection.execute(insert(User), {"name": "a"})
    del connection
    gc.collect()
    assert sync_names(session) == []


def test_statements_are_shown(session, asyncdb, strategy):
    session.add(User(name="a"))
    with asyncdb.count(min=1, max=2):
        session.commit()
    assert any("INSERT INTO users" in one.sql for one in asyncdb.statements)


def test_a_loop_of_its_own(asyncdb_sync_engine, strategy):
    async def main():
        return store(asyncdb_sync_engine, "a")

    assert asyncio.run(main()) == ["a"]
"""

BOTH = """
@pytest.fixture(params=range(2))
async def session(asyncdb_session, request):
    assert await names(asyncdb_session) == []
    await asyncdb_session.rollback()
    return asyncdb_session


async def test_each_sees_what_the_other_commits(session, asyncdb_sync_engine, strategy):
    session.add(User(name="a"))
    await session.commit()
    assert store(asyncdb_sync_engine, "b") == ["a", "b"]
    assert await names(session) == ["a", "b"]


async def test_in_a_thread(session, asyncdb_sync_engine, strategy):
    session.add(User(name="a"))
    await session.commit()
    assert await asyncio.to_thread(store, asyncdb_sync_engine, "b") == ["a", "b"]
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(None, store, asyncdb_sync_engine, "c") == ["a", "b", "c"]
    assert await names(session) == ["a", "b", "c"]


async def test_threads_and_tasks_at_once(session, asyncdb_sync_engine, asyncdb_sessionmaker, strategy):
    async def task(n):
        async with asyncdb_sessionmaker() as session:
            session.add(User(name=f"task {n}"))
            await session.commit()

    threads = [asyncio.to_thread(store, asyncdb_sync_engine, f"thread {n}") for n in range(3)]
    await asyncio.gather(*threads, *[task(n) for n in range(3)])
    assert len(await names(session)) == 6


async def test_inside_run_sync(session, asyncdb_sync_engine, strategy):
    def work(sync):
        return store(asyncdb_sync_engine, "a")

    assert await session.run_sync(work) == ["a"]


async def test_a_fixture_that_is_sync(session, asyncdb_sync_session, strategy):
    asyncdb_sync_session.add(User(name="a"))
    asyncdb_sync_session.commit()
    assert await names(session) == ["a"]


async def test_a_failed_sync_transaction_leaves_the_async_one(session, asyncdb_sync_engine, strategy):
    session.add(User(name="a"))
    await session.commit()
    with pytest.raises(IntegrityError):
        store(asyncdb_sync_engine, "a")
    assert await names(session) == ["a"]


async def test_an_error_in_a_thread(session, asyncdb_sync_engine, strategy):
    session.add(User(name="a"))
    await session.commit()
    with pytest.raises(IntegrityError):
        await asyncio.to_thread(store, asyncdb_sync_engine, "a")
    assert await names(session) == ["a"]


async def test_the_next_statement_of_the_task_still_works(session, asyncdb_sync_engine, strategy):
    for n in range(5):
        store(asyncdb_sync_engine, f"{n}")
        session.add(User(name=f"async {n}"))
        await session.commit()
    assert len(await names(session)) == 10
    assert asyncio.current_task() is not None


async def test_tasks_go_on_while_a_thread_waits(session, asyncdb_sync_engine, strategy):
    began, go_on = threading.Event(), threading.Event()

    def slow():
        with asyncdb_sync_engine.begin() as connection:
            connection.execute(insert(User), {"name": "a"})
            began.set()
            assert go_on.wait(10)
            return connection.scalars(select(User.name)).all()

    task = asyncio.ensure_future(asyncio.to_thread(slow))
    while not began.is_set():
        await asyncio.sleep(0)
    go_on.set()
    assert await task == ["a"]
"""


@pytest.mark.everyday("sqlite", "postgres+asyncpg")
def test_sync_tests(project: Project, target: Target) -> None:
    project.tests(HELP, SYNC)
    project.run_apart(target).passed(3 * (2 * 15 + 1))


@pytest.mark.everyday("sqlite", "postgres+asyncpg")
def test_sync_code_in_async_tests(project: Project, target: Target) -> None:
    project.tests(HELP, BOTH)
    project.run_apart(target).passed(3 * 2 * 9)


UNCOMMITTED = """
async def test_the_sync_side_sees_it(asyncdb_session, asyncdb_sync_engine):
    asyncdb_session.add(User(name="a"))
    await asyncdb_session.flush()
    with Session(asyncdb_sync_engine) as session:
        assert sync_names(session) == ["a"]
        session.add(User(name="b"))
        session.commit()
    assert await names(asyncdb_session) == ["a", "b"]


async def test_and_is_seen(asyncdb_session, asyncdb_sync_session):
    asyncdb_sync_session.add(User(name="a"))
    asyncdb_sync_session.flush()
    assert await names(asyncdb_session) == ["a"]
"""


def test_in_rollback_each_side_sees_what_the_other_has_not_committed(
    project: Project, target: Target
) -> None:
    """As two sessions of ``asyncdb_sessionmaker`` do there."""
    project.tests(HELP.partition("pytestmark =")[0], HELP.partition(")\n\n\n")[2], UNCOMMITTED)
    project.run_apart(target).passed(2)


APP = """
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

engine = create_async_engine("postgresql+asyncpg://app:secret@db.app.invalid/app")
sync_engine = create_engine("postgresql+psycopg://app:secret@db.app.invalid/app")
Sync = sessionmaker(sync_engine, expire_on_commit=False)
Scoped = scoped_session(Sync)
"""

SERVICE = """
from app import db


def service(name):
    with db.Sync.begin() as session:
        session.add(User(name=name))
    with db.Scoped() as session:
        return sync_names(session)


def test_sync(asyncdb, strategy):
    assert service("a") == ["a"]


async def test_async(asyncdb_session, strategy):
    asyncdb_session.add(User(name="z"))
    await asyncdb_session.commit()
    assert service("a") == ["a", "z"]
    assert await asyncio.to_thread(service, "b") == ["a", "b", "z"]
    with db.sync_engine.begin() as connection:
        assert connection.scalar(select(func.count(User.id))) == 3
    async with db.engine.begin() as connection:
        assert await connection.scalar(select(func.count(User.id))) == 3
"""


@pytest.mark.parametrize("word", ["app.db:Sync", "app.db:Scoped", "app.db:sync_engine"])
@pytest.mark.everyday(
    ("postgres+asyncpg", "app.db:Sync"),
    ("sqlite", "app.db:Scoped"),
    ("sqlite", "app.db:sync_engine"),
)
def test_a_sync_engine_of_the_application_is_redirected(
    project: Project, target: Target, word: str
) -> None:
    """Whatever driver it has."""
    project.write("app/db.py", APP)
    project.ini(asyncdb_app_engines=f"app.db:engine, {word}")
    project.tests(HELP, SERVICE)
    project.run_apart(target).passed(6)


@pytest.mark.everyday("sqlite")
def test_a_sync_engine_that_is_named_is_refused_outside_of_database_tests(
    project: Project, target: Target
) -> None:
    project.write("app/db.py", APP)
    project.ini(asyncdb_app_engines="app.db:Sync")
    project.tests("from app import db\n\ndef test_it():\n    db.Sync().connection()")
    outcome = project.run_apart(target)
    outcome.result.assert_outcomes(failed=1)
    assert "connects outside of a database test (app.db:Sync)" in outcome.text


@pytest.mark.everyday("sqlite")
def test_the_session_has_the_options_of_the_project(project: Project, target: Target) -> None:
    project.write(
        "conftest.py",
        """
        import pytest
        from sqlalchemy.ext.asyncio import AsyncSession
        from sqlalchemy.orm import Session

        class Own(Session):
            pass

        class OwnAsync(AsyncSession):
            sync_session_class = Own

        @pytest.fixture(scope="session")
        def asyncdb_session_options():
            return {"class_": OwnAsync, "autoflush": False}
        """,
    )
    project.tests(
        """
        from conftest import Own

        def test_it(asyncdb_sync_session):
            assert isinstance(asyncdb_sync_session, Own)
            assert asyncdb_sync_session.autoflush is False
        """
    )
    project.run_apart(target).passed(1)


@pytest.mark.everyday("postgres+asyncpg", "postgres+psycopg", "mysql+aiomysql")
def test_a_cursor_may_be_used_in_a_block(project: Project, target: Target) -> None:
    """As those of psycopg and PyMySQL; sqlite3's may not."""
    if target.server is None:
        pytest.skip("sqlite3's cursors are no context managers")
    driver = "psycopg" if target.backend == "postgres" else "pymysql"
    project.tests(
        HELP,
        f"""
        from sqlalchemy import create_engine

        def test_it(asyncdb_url, asyncdb_sync_engine, strategy):
            plain = asyncdb_url.set(drivername=asyncdb_url.get_backend_name() + "+{driver}")
            for engine in (create_engine(plain), asyncdb_sync_engine):
                raw = engine.raw_connection()
                with raw.cursor() as cursor:
                    cursor.execute("SELECT 5")
                    assert tuple(cursor.fetchone()) == (5,)
                raw.close()
                engine.dispose()
        """,
    )
    project.run(target).passed(3)
