"""The application's own engines lead to the test's database, on every backend and driver.

They are made with a URL at which nothing answers, so whatever reaches it fails.
"""

from __future__ import annotations

import pytest
from fix_project import Project, naive_database
from fix_servers import Target

#: An application that has never heard of tests.
DB = """
from sqlalchemy import event
from sqlalchemy.ext.asyncio import async_scoped_session, async_sessionmaker, create_async_engine

URL = "postgresql+asyncpg://app:secret@127.0.0.1:1/app"
engine = create_async_engine(URL, execution_options={"of": "the application"}, pool_size=3)
derived = engine.execution_options(isolation_level="AUTOCOMMIT")
Session = async_sessionmaker(engine)
executed = []


@event.listens_for(engine.sync_engine, "before_cursor_execute")
def note(connection, cursor, statement, parameters, context, executemany):
    executed.append(connection.get_execution_options()["of"])
"""

STATE = """
from app import db


def state():
    engine = db.engine.sync_engine
    return {
        "pool": engine.pool, "dialect": engine.dialect, "url": engine.url,
        "derived": (db.derived.sync_engine.dialect, db.derived.sync_engine.url),
        "own": {"set_isolation_level", "reset_isolation_level"} & set(vars(engine.dialect)),
        "listeners": list(engine.dispatch.engine_connect),
        "options": engine.get_execution_options(),
    }


WAS = state()
"""

WORK = """
async def test_everybody_who_holds_it(asyncdb_session, asyncdb_engine):
    db.executed.clear()
    async with db.Session.begin() as session:
        session.add(User(name="orm"))
    async with db.engine.begin() as connection:
        await connection.execute(insert(User).values(name="core"))
    async with AsyncSession(db.engine) as session:
        await add(session, "never")
    assert await names(asyncdb_session) == ["core", "orm"]
    assert set(db.executed) == {"the application"}
    assert (db.engine.pool.size(), db.engine.pool.checkedout()) == (3, 0)
    assert db.engine.dialect.name == asyncdb_engine.dialect.name
    assert str(db.engine.url) == str(asyncdb_engine.url)


async def test_an_engine_that_was_derived_before(asyncdb_session):
    async with db.derived.connect() as connection:
        await connection.execute(insert(User).values(name="committed at once"))
        await connection.rollback()
        assert connection.dialect is db.engine.dialect
    assert await names(asyncdb_session) == ["committed at once"]


async def test_one_that_is_derived_now(asyncdb_session):
    derived = db.engine.execution_options(isolation_level="AUTOCOMMIT")
    async with derived.connect() as connection:
        await connection.execute(insert(User).values(name="committed at once"))
        await connection.rollback()
    assert await names(asyncdb_session) == ["committed at once"]


async def test_dispose(asyncdb_session):
    for name in ("a", "b", "c"):
        async with db.Session.begin() as session:
            await add(session, name)
        await db.engine.dispose()
    assert await names(asyncdb_session) == ["a", "b", "c"]


async def test_gather(asyncdb_session):
    async def one(number):
        async with db.Session.begin() as session:
            await add(session, f"n{number}")
    await asyncio.gather(*map(one, range(20)))
    assert len(await names(asyncdb_session)) == 20


async def test_raw_connection(asyncdb_engine):
    raw = await db.engine.raw_connection()
    raw.close()


@pytest.mark.asyncdb
async def test_that_names_no_fixture():
    async with db.Session.begin() as session:
        assert await names(session) == []
        await add(session, "one")


def test_afterwards_it_is_as_it_was():
    assert state() == WAS
"""


@pytest.fixture
def app(project: Project) -> Project:
    project.write("app/db.py", DB)
    project.ini(asyncdb_app_engines="app.db:Session")
    return project


@pytest.mark.everyday(
    *("sqlite", "postgres+asyncpg"),
    *(("mysql+aiomysql", "app.db:derived"), ("mariadb+asyncmy", "app.db:Session")),
)
@pytest.mark.parametrize(
    "words", ["app.db:engine", "app.db:Session", "app.db:derived", "app.db:get, app.db:engine"]
)
def test_everything_that_holds_the_engine_works_on_the_tests_database(
    app: Project, target: Target, words: str
) -> None:
    app.write("app/db.py", DB + "\n\ndef get():\n    return engine\n")
    app.ini(asyncdb_app_engines=words)
    app.tests(STATE, WORK)
    app.run(target).passed(8)


def test_without_it_the_application_reaches_its_own_database(app: Project, target: Target) -> None:
    """The control: the same application, not named."""
    app.ini(asyncdb_app_engines=None)
    app.tests(STATE, WORK)
    # SQLAlchemy 2.0 may drop the proxies of failed connections in a later test.
    quiet = ("-W", "ignore::pytest.PytestUnraisableExceptionWarning")
    app.run(target, *quiet).result.assert_outcomes(passed=1, failed=7)


def test_it_is_as_it_was_after_a_test_that_fails(app: Project, target: Target) -> None:
    app.tests(
        STATE,
        """
        async def test_fails(asyncdb_session):
            async with db.Session() as session:
                await add(session, "one")
                await session.commit()
                raise AssertionError

        def test_afterwards_it_is_as_it_was():
            assert state() == WAS
        """,
    )
    app.run(target).had(passed=1, failed=1)


def test_an_engine_has_a_listener_of_the_plugin_only_if_others_are_derived_from_it(
    app: Project, target: Target
) -> None:
    """SQLAlchemy looks for listeners at each statement of an engine that has one."""
    app.write("app/db.py", DB.partition("Session =")[0])
    app.ini(asyncdb_app_engines="app.db:engine")
    app.tests(
        """
        from app import db

        def listeners():
            return list(db.engine.sync_engine.dispatch.engine_connect)

        async def test_it(asyncdb_session):
            async with db.engine.begin() as connection:
                await connection.execute(insert(User).values(name="one"))
                assert connection.dialect is db.engine.dialect
            assert listeners() == []
            async with db.derived.connect() as connection:
                await connection.execute(insert(User).values(name="two"))
                assert connection.dialect is db.engine.dialect
            assert len(listeners()) == 1
            assert await names(asyncdb_session) == ["one", "two"]

        def test_afterwards_it_has_none():
            assert listeners() == []
        """
    )
    app.run(target).passed(2)


def test_an_engine_that_the_lifespan_makes(app: Project, target: Target) -> None:
    """Its name leads to None before; each test makes another one."""
    app.write(
        "app/db.py",
        """
        from contextlib import asynccontextmanager

        from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

        engine = None
        Session = async_sessionmaker()

        @asynccontextmanager
        async def lifespan():
            global engine
            engine = create_async_engine("postgresql+asyncpg://app:secret@127.0.0.1:1/app")
            Session.configure(bind=engine)
            yield
            await engine.dispose()
        """,
    )
    app.ini(asyncdb_app_engines="app.db:engine")
    app.tests(
        """
        from app import db

        @pytest.mark.parametrize("n", [1, 2])
        async def test_it(n, asyncdb_engine):
            async with db.lifespan():
                async with db.engine.connect() as connection:
                    assert (await connection.execute(select(User))).all() == []
                    assert connection.dialect is db.engine.dialect
                async with db.Session.begin() as session:
                    await add(session, "one")
                async with db.Session.begin() as session:
                    assert await names(session) == ["one"]
        """
    )
    app.run(target).passed(2)


@pytest.mark.parametrize("target", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", ["engine", "sessions"])
def test_what_the_lifespan_puts_into_the_state_of_an_application(
    app: Project, target: Target, name: str
) -> None:
    """The state of Starlette has no such attribute before."""
    pytest.importorskip("starlette")
    app.write(
        "app/main.py",
        """
        from contextlib import asynccontextmanager

        from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
        from starlette.applications import Starlette

        @asynccontextmanager
        async def lifespan(app):
            app.state.engine = create_async_engine("postgresql+asyncpg://app:x@127.0.0.1:1/app")
            app.state.sessions = async_sessionmaker(app.state.engine)
            yield
            await app.state.engine.dispose()

        app = Starlette(lifespan=lifespan)
        """,
    )
    app.ini(asyncdb_app_engines=f"app.main:app.state.{name}")
    app.tests(
        """
        from app.main import app

        @pytest.mark.parametrize("n", [1, 2])
        async def test_it(n, asyncdb_engine):
            assert hasattr(app.state, "engine") is (n == 2)
            async with app.router.lifespan_context(app):
                async with app.state.sessions.begin() as session:
                    assert await names(session) == []
                    await add(session, "one")
                async with app.state.sessions() as session:
                    assert await names(session) == ["one"]
        """
    )
    app.run(target).passed(2)


@pytest.mark.everyday("sqlite", "postgres+asyncpg")
def test_an_engine_that_connects_before_it_has_its_name(app: Project, target: Target) -> None:
    """Only what it sends before reaches its own database. The control is an engine without a name."""
    pytest.importorskip("starlette")
    app.write(
        "app/main.py",
        """
        from contextlib import asynccontextmanager

        from app.models import Base
        from sqlalchemy.ext.asyncio import create_async_engine
        from starlette.applications import Starlette

        @asynccontextmanager
        async def lifespan(app):
            engine = create_async_engine("sqlite+aiosqlite:///own.db")
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            app.state.engine = app.state.other = engine
            yield
            await engine.dispose()

        app = Starlette(lifespan=lifespan)
        """,
    )
    app.ini(asyncdb_app_engines="app.main:app.state.engine", filterwarnings="error")
    app.tests(
        """
        import sqlite3
        from contextlib import closing

        from app.main import app

        def own():
            with closing(sqlite3.connect("own.db")) as connection:
                return connection.execute("SELECT count(*) FROM users").fetchone()[0]

        @pytest.mark.parametrize("n", [1, 2])
        async def test_it(n, asyncdb_session):
            async with app.router.lifespan_context(app):
                async with app.state.engine.begin() as connection:
                    await connection.execute(insert(User).values(name="one"))
            assert await names(asyncdb_session) == ["one"]
            assert own() == 0

        async def test_control(asyncdb_session):
            async with app.router.lifespan_context(app):
                del app.state.engine
                async with app.state.other.begin() as connection:
                    await connection.execute(insert(User).values(name="one"))
            assert await names(asyncdb_session) == []
            assert own() == 1
        """
    )
    app.run(target).passed(3)


def test_an_engine_that_a_function_makes_at_first_use(app: Project, target: Target) -> None:
    app.write(
        "app/db.py",
        """
        from functools import cache
        from sqlalchemy.ext.asyncio import create_async_engine

        @cache
        def get_engine():
            return create_async_engine("mysql+aiomysql://app:secret@127.0.0.1:1/app")
        """,
    )
    app.ini(asyncdb_app_engines="app.db:get_engine")
    app.tests(
        """
        from app import db

        async def test_it(asyncdb_session):
            async with db.get_engine().begin() as connection:
                await connection.execute(insert(User).values(name="one"))
            assert await names(asyncdb_session) == ["one"]

        def test_afterwards():
            assert db.get_engine().url.port == 1
        """
    )
    app.run(target).passed(2)


def test_the_autocommit_of_the_application_stays(app: Project, target: Target) -> None:
    app.write("app/db.py", DB.replace("pool_size=3", 'isolation_level="AUTOCOMMIT"'))
    app.tests(
        """
        from app import db

        async def test_it(asyncdb_session):
            async with db.engine.connect() as connection:
                await connection.execute(insert(User).values(name="committed at once"))
                await connection.rollback()
            assert await names(asyncdb_session) == ["committed at once"]
        """
    )
    app.run(target).passed(1)


def test_sessions_are_like_the_applications(app: Project, target: Target) -> None:
    """``expire_on_commit`` is on there, and a bug that it causes shows."""
    app.tests(
        """
        from sqlalchemy.exc import MissingGreenlet, StatementError

        async def test_it(asyncdb_session):
            one = User(name="one")
            asyncdb_session.add(one)
            await asyncdb_session.commit()
            with pytest.raises((MissingGreenlet, StatementError), match="greenlet_spawn"):
                one.name
        """
    )
    app.run(target).passed(1)


def test_a_real_engine_that_is_named_is_not_touched(app: Project, target: Target) -> None:
    """It has connected before, and holds its connections afterwards."""
    with naive_database(app, target) as url:
        app.write(
            "app/db.py",
            f"""
            from sqlalchemy.ext.asyncio import create_async_engine

            engine = create_async_engine({url!r})
            """,
        )
        app.ini(asyncdb_app_engines="app.db:engine")
        app.tests(
            """
            from app import db

            async def here():
                async with db.engine.connect() as connection:
                    await connection.execute(text("SELECT 1"))
                    return connection.engine.url

            async def test_redirected(asyncdb_url):
                assert await here() == asyncdb_url
                async with db.engine.begin() as connection:
                    await connection.run_sync(Base.metadata.create_all)
                    await connection.execute(insert(User).values(name="one"))

            async def test_refused():
                with pytest.raises(Exception, match="outside of a database test"):
                    await here()
            """
        )
        app.run(target).passed(2)
