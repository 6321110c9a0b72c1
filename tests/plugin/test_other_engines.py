"""Engines that connect to another database than the test's: what is reported, what is refused."""

from __future__ import annotations

import pytest
from fix_project import Project
from fix_servers import Servers, Target

#: An application that its tests import late, with the developer's own database.
LATE_DB = """
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine("sqlite+aiosqlite:///real.db")
Session = async_sessionmaker(engine)
"""

#: Engines that nobody named.
OTHER = """
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

engine = create_async_engine("sqlite+aiosqlite:///other.db", poolclass=NullPool)
sync = create_engine("sqlite:///sync.db", poolclass=NullPool)
memory = create_engine("sqlite://")

async def use():
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))

def use_sync(one=sync):
    with one.connect() as connection:
        connection.execute(text("SELECT 1"))
"""


@pytest.fixture
def sqlite(servers: Servers) -> Target:
    return servers.target("sqlite")


@pytest.fixture
def app(project: Project) -> Project:
    project.write("app/other.py", OTHER)
    return project


# Named engines are refused from the first test on.


@pytest.mark.parametrize("where", ["test", "fixture"])
def test_a_named_engine_that_the_first_test_imports_is_refused(
    project: Project, sqlite: Target, where: str
) -> None:
    """In a process that has not imported SQLAlchemy before."""
    project.ini(asyncdb_app_engines="app.db:engine")
    project.write("app/db.py", LATE_DB)
    project.write(
        "test_it.py",
        f"""
        import importlib
        import pytest

        async def count():
            from sqlalchemy import text

            db = importlib.import_module("app.db")
            async with db.Session() as session:
                return await session.scalar(text("SELECT 1"))

        @pytest.fixture
        async def one():
            return await count() if {where == "fixture"} else 1

        async def test_it(one):
            assert await count() == one
        """,
    )
    outcome = project.run_apart(sqlite, "-p", "no:xdist")
    outcome.result.assert_outcomes(**{"failed" if where == "test" else "errors": 1})
    assert "connects outside of a database test (app.db:engine)" in outcome.text
    assert not (project.path / "real.db").exists()


def test_a_named_engine_is_refused_while_tests_are_collected(
    project: Project, sqlite: Target
) -> None:
    project.ini(asyncdb_app_engines="app.db:engine")
    project.write("app/db.py", LATE_DB)
    project.tests("from app import db\nasyncio.run(db.engine.connect().start())")
    outcome = project.run(sqlite).had(errors=1)
    assert "connects outside of a database test (app.db:engine)" in outcome.text
    assert not (project.path / "real.db").exists()


def test_the_fixture_that_creates_the_tables_is_named(project: Project, sqlite: Target) -> None:
    """It stays from the time before the plugin."""
    project.ini(asyncdb_app_engines="app.db:engine", asyncio_default_fixture_loop_scope="session")
    project.write("app/db.py", LATE_DB)
    project.write(
        "conftest.py",
        """
        import pytest
        from app.db import engine
        from app.models import Base

        @pytest.fixture(scope="session", autouse=True)
        async def tables():
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
        """,
    )
    project.tests("async def test_it(asyncdb_session): pass")
    project.run(sqlite).had(errors=1).shows(
        """
        the application's engine connects outside of a database test (app.db:engine)

        test: test_it.py::test_it[sqlite]
        fixture: 'tables' (scope session)
        Nothing was sent to sqlite+aiosqlite:///real.db.

        To fix this, do one of:
          - let the fixture that starts the application use asyncdb_engine: def client(asyncdb_engine)
          - for every test, write in the ini file: usefixtures = asyncdb_engine
          - mark the function, class or module: @pytest.mark.asyncdb
          - give a fixture of a wider scope the scope of a function, or fill the database with asyncdb_seed
          - delete the fixture 'tables' (scope session), if it only creates or drops tables: the plugin does that
        """
    )
    assert not (project.path / "real.db").exists()


# Other engines are reported.


@pytest.mark.parametrize("which", ["async", "sync"])
def test_an_engine_that_connects_in_any_test_is_reported_once(
    app: Project, sqlite: Target, which: str
) -> None:
    """With its URL, the first test and its line; in database tests and in others."""
    call = "await use()" if which == "async" else "use_sync()"
    app.tests(
        f"""
        from app.other import use, use_sync

        async def test_of_no_database():
            {call}

        async def test_with_one(asyncdb_session):
            {call}
            {call}
        """
    )
    outcome = app.run(sqlite, "-n0").passed(2)
    url, name = {
        "async": ("sqlite+aiosqlite:///other.db", "app.other:engine"),
        "sync": ("sqlite:///sync.db", "app.other:sync"),
    }[which]
    line = {
        "async": app.place("async with engine.connect() as connection:", "use", "app/other.py"),
        "sync": app.place("with one.connect() as connection:", "use_sync", "app/other.py"),
    }[which]
    outcome.shows(
        f"""
        asyncdb: in 2 tests an engine connected that is not redirected: {url}
        first in test_it.py::test_of_no_database, at {line}
        to redirect it, write in the ini file: asyncdb_app_engines = {name}
        to leave it alone: asyncdb_app_engines = -{name}
        """
    )
    assert outcome.text.count("not redirected") == 1


def test_an_engine_is_reported_if_tests_request_their_fixtures_while_they_run(
    app: Project, sqlite: Target
) -> None:
    """As the steps of pytest-bdd do. Nothing else says that this project uses the plugin."""
    app.ini(asyncdb_metadata=None)
    app.write(
        "conftest.py",
        """
        import pytest
        from app.models import Base

        @pytest.fixture(scope="session")
        def asyncdb_metadata(): return Base
        """,
    )
    app.tests(
        """
        from app.other import use_sync

        def test_it(request):
            request.getfixturevalue("asyncdb_engine")
            use_sync()
        """
    )
    line = app.place("with one.connect() as connection:", "use_sync", "app/other.py")
    app.run(sqlite, "-n0").passed(1).shows(
        f"""
        asyncdb: in 1 test an engine connected that is not redirected: sqlite:///sync.db
        first in test_it.py::test_it, at {line}
        """
    )


def test_the_line_is_known_where_sqlalchemy_commits_in_a_task_of_its_own(
    app: Project, sqlite: Target
) -> None:
    app.tests(
        """
        from app.other import engine

        async def test_it():
            with pytest.raises(DBAPIError):
                async with async_sessionmaker(engine).begin() as session:
                    session.add(User(name="ada"))
        """
    )
    line = "async with async_sessionmaker(engine).begin() as session:"
    outcome = app.run(sqlite).passed(1)
    assert f"at {app.place(line, 'test_it')}\n" in outcome.text


@pytest.mark.parametrize("several", [False, True])
def test_the_sessionmaker_of_an_engine_is_proposed(
    project: Project, sqlite: Target, several: bool
) -> None:
    """Its options are then those of the test's sessions; but not one of several databases."""
    others = "Session.configure(binds={Base: create_async_engine('sqlite+aiosqlite:///b.db')})"
    project.write("app/db.py", "from app.models import Base\n" + LATE_DB + others * several)
    project.tests(
        """
        from app import db

        async def test_it(asyncdb_session):
            async with db.engine.connect():
                pass
            await db.engine.dispose()
        """
    )
    name = "app.db:engine" if several else "app.db:Session"
    outcome = project.run(sqlite).passed(1)
    assert f"write in the ini file: asyncdb_app_engines = {name}\n" in outcome.text


def test_a_database_in_memory_is_reported_in_database_tests_only(
    app: Project, sqlite: Target
) -> None:
    """Elsewhere it is nobody's real data; in a database test the code uses the wrong one."""
    app.tests(
        """
        from app.other import memory, use_sync

        def test_of_no_database():
            use_sync(memory)
        """
    )
    assert "not redirected" not in app.run(sqlite).passed(1).text
    app.tests(
        """
        from app.other import memory, use_sync

        def test_it(asyncdb_engine):
            use_sync(memory)
        """
    )
    assert "in 1 test an engine connected that is not redirected: sqlite://\n" in (
        app.run(sqlite).passed(1).text
    )


def test_of_very_many_engines_the_first_are_listed(app: Project, sqlite: Target) -> None:
    """A project may have a file for each test."""
    app.tests(
        """
        from app.other import create_engine, use_sync

        @pytest.mark.parametrize("n", range(12))
        def test_it(n):
            engine = create_engine(f"sqlite:///{n}.db")
            use_sync(engine)
            engine.dispose()
        """
    )
    outcome = app.run(sqlite).passed(12)
    assert outcome.text.count("an engine connected that is not redirected: sqlite:///") == 10
    assert "asyncdb: and 2 more engines that are not redirected" in outcome.text


def test_all_workers_report_to_one_summary(app: Project, sqlite: Target) -> None:
    app.tests(
        """
        from app.other import use_sync

        @pytest.mark.parametrize("n", range(6))
        def test_it(n):
            use_sync()
        """
    )
    outcome = app.run_apart(sqlite, "-n2", "--dist=each", "-k", "0 or 1 or 2")
    outcome.result.assert_outcomes(passed=6)
    assert outcome.text.count("not redirected") == 1
    assert "asyncdb: in 3 tests an engine connected" in outcome.text


def test_an_engine_that_connects_while_tests_are_collected_is_reported(
    app: Project, sqlite: Target
) -> None:
    app.tests("from app.other import use_sync\nuse_sync()\n\ndef test_it(): pass")
    app.run(sqlite).passed(1).shows(
        f"""
        asyncdb: in the collection of tests an engine connected that is not redirected: sqlite:///sync.db
        first in the collection of tests, at {app.place("with one.connect() as connection:", "use_sync", "app/other.py")}
        """
    )


@pytest.mark.parametrize("word", ["app.other:sync", "sqlite:///sync.db", "app.other:Sync"])
def test_a_sync_engine_can_be_left_alone(app: Project, sqlite: Target, word: str) -> None:
    app.write(
        "app/other.py",
        OTHER + "\nfrom sqlalchemy.orm import sessionmaker\nSync = sessionmaker(sync)",
    )
    app.ini(asyncdb_app_engines=f"-{word}", asyncdb_other_engines="refuse")
    app.tests(
        """
        from app.other import use_sync

        def test_it():
            use_sync()

        def test_with_one(asyncdb_engine):
            use_sync()
        """
    )
    assert "not redirected" not in app.run(sqlite).passed(2).text


def test_engines_on_databases_of_the_plugin_are_not_reported(
    project: Project, sqlite: Target
) -> None:
    """A migration's, and a sync one on the test's own URL."""
    project.ini(asyncdb_other_engines="refuse")
    project.write(
        "conftest.py",
        """
        import pytest
        from app.models import Base
        from sqlalchemy import create_engine

        @pytest.fixture(scope="session")
        def asyncdb_migrate():
            def migrate(url):
                engine = create_engine(url.set(drivername="sqlite"))
                Base.metadata.create_all(engine)
                engine.dispose()
            return migrate
        """,
    )
    project.tests(
        """
        from sqlalchemy import create_engine

        @pytest.mark.asyncdb(isolation="reset")
        def test_it(asyncdb_url):
            engine = create_engine(asyncdb_url.set(drivername="sqlite"))
            with engine.begin() as connection:
                connection.execute(insert(User).values(name="ada"))
            engine.dispose()
        """
    )
    assert "not redirected" not in project.run(sqlite).passed(1).text


def test_a_project_that_does_not_use_the_plugin_hears_nothing(app: Project, sqlite: Target) -> None:
    """It may only be installed."""
    app.ini(asyncdb_metadata=None)
    app.tests("from app.other import use_sync\n\ndef test_it(): use_sync()")
    assert "asyncdb: in" not in app.run(sqlite).passed(1).text


@pytest.mark.parametrize("option", ["report", "refuse"])
def test_a_fixture_with_an_engine_of_its_own_is_named(
    app: Project, sqlite: Target, option: str
) -> None:
    app.ini(asyncdb_other_engines=option)
    app.write(
        "conftest.py",
        """
        import pytest
        from app.models import Base
        from app.other import sync

        @pytest.fixture(scope="session")
        def tables():
            Base.metadata.create_all(sync)
            yield
            Base.metadata.drop_all(sync)
        """,
    )
    app.tests("def test_it(tables, asyncdb_engine): pass")
    outcome = app.run(sqlite)
    remedy = (
        "delete the fixture 'tables' (scope session), if it only creates or drops tables: "
        "the plugin does that"
    )
    if option == "report":
        outcome.passed(1).shows(
            f"""
            to redirect it, write in the ini file: asyncdb_app_engines = app.other:sync
            to leave it alone: asyncdb_app_engines = -app.other:sync
            {remedy}
            """
        )
        return
    assert not (app.path / "sync.db").exists()
    outcome.had(errors=1).shows(
        f"""
        an engine connects to another database than the test's (asyncdb_other_engines in pytest.ini)

        test: test_it.py::test_it[sqlite]
        fixture: 'tables' (scope session)
        at {app.place("Base.metadata.create_all(sync)", "tables", "conftest.py")}
        Nothing was sent to sqlite:///sync.db.

        To fix this, do one of:
          - to redirect it, write in the ini file: asyncdb_app_engines = app.other:sync
          - to leave it alone: asyncdb_app_engines = -app.other:sync
          - {remedy}
        """
    )


# ... or refused.


@pytest.mark.parametrize("which", ["async", "sync"])
def test_a_refused_engine_does_not_connect_and_its_test_fails(
    app: Project, sqlite: Target, which: str
) -> None:
    """Also one whose code swallows the error, and each time."""
    app.ini(asyncdb_other_engines="refuse")
    call = "await use()" if which == "async" else "use_sync()"
    app.tests(
        f"""
        import contextlib
        from app.other import use, use_sync

        async def test_fails():
            {call}

        async def test_swallows(asyncdb_session):
            with contextlib.suppress(Exception):
                {call}
            with pytest.raises(Exception, match="another database than the test's"):
                {call}

        async def test_next(asyncdb_session):
            assert await names(asyncdb_session) == []
        """
    )
    outcome = app.run(sqlite).had(failed=2, passed=1)
    assert not list(app.path.glob("*.db"))
    assert "test: test_it.py::test_swallows[sqlite]" in outcome.text


def test_a_wrong_value_is_refused(project: Project, sqlite: Target) -> None:
    project.ini(asyncdb_other_engines="forbid")
    project.tests("def test_it(): pass")
    result = project.pytester.runpytest_inprocess("-p", "no:randomly")
    assert "unknown value of asyncdb_other_engines 'forbid'" in str(result.stderr)


# A pytest run inside of a test.


def test_an_inner_run_does_not_concern_the_outer_one(app: Project, sqlite: Target) -> None:
    """Its engines are its own matter, and the outer guard is there afterwards."""
    app.ini(asyncdb_other_engines="refuse")
    app.write("inner_it.py", "from app.other import use_sync\n\ndef test_it(): use_sync()")
    app.tests(
        """
        from pathlib import Path
        from app.other import use_sync

        INI = "asyncdb_metadata = app.models:Base\\nasyncdb_other_engines = report"

        @pytest.mark.parametrize("ini", ["", INI])
        def test_outer(pytester, asyncdb_engine, ini):
            here = Path(__file__).parent
            pytester.makeini(f"[pytest]\\npythonpath = {here}\\n{ini}")
            pytester.makepyfile((here / "inner_it.py").read_text())
            result = pytester.runpytest_inprocess("-p", "no:randomly", "-p", "no:pytest_alembic")
            result.assert_outcomes(passed=1)
            assert ("not redirected" in str(result.stdout)) is bool(ini)

        def test_guard():
            use_sync()
        """
    )
    outcome = app.run(sqlite, "-p", "pytester").had(passed=2, failed=1)
    assert "test: test_it.py::test_guard" in outcome.text


def test_a_seed_does_not_reach_the_applications_database(project: Project, sqlite: Target) -> None:
    """It runs on the plugin's own event loop, which does not make the engine the plugin's."""
    project.ini(asyncdb_app_engines="app.db:engine")
    project.write("app/db.py", LATE_DB)
    project.write(
        "conftest.py",
        """
        import pytest
        from app import db
        from sqlalchemy import text

        @pytest.fixture(scope="session")
        def asyncdb_seed():
            async def seed(session):
                async with db.engine.connect() as connection:
                    await connection.execute(text("SELECT 1"))
            return seed
        """,
    )
    project.tests("def test_it(asyncdb_session): pass")
    outcome = project.run(sqlite).had(errors=1)
    assert "engine connects while the schema is built (app.db:engine)" in outcome.text
    assert not (project.path / "real.db").exists()
