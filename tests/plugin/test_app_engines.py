"""Which tests are redirected, what is said about engines that are not, and mistakes."""

from __future__ import annotations

import pytest
from fix_project import Project
from fix_servers import Servers, Target

DB = """
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine("postgresql+asyncpg://app:secret@127.0.0.1:1/app")
Session = async_sessionmaker(engine)
number = 7
sync = create_engine("sqlite://")


def broken():
    raise RuntimeError("no settings")


async def later():
    return engine


class Database:
    def __init__(self):
        self.engine = engine
        self.maker = Session


_database = None


def get_database():
    global _database
    if _database is None:
        _database = Database()
    return _database
"""

CLIENT = """
from app import db


@pytest.fixture
async def client():
    async with db.Session.begin() as session:
        await add(session, "at start")
    yield db.Session
    async with db.Session.begin() as session:
        await add(session, "at end")
"""


@pytest.fixture
def sqlite(servers: Servers) -> Target:
    return servers.target("sqlite")


@pytest.fixture
def app(project: Project) -> Project:
    project.write("app/db.py", DB)
    project.ini(asyncdb_app_engines="app.db:engine")
    return project


def stray(project: Project, name: str = "stray") -> None:
    """An engine of the application with a database of its own, which nobody named."""
    url = f"sqlite+aiosqlite:///{project.path / 'stray.db'}"
    project.write(
        "app/other.py",
        f"""
        from sqlalchemy import text
        from sqlalchemy.ext.asyncio import create_async_engine
        from sqlalchemy.pool import NullPool

        {name} = create_async_engine({url!r}, poolclass=NullPool)

        async def use():
            async with {name}.connect() as connection:
                await connection.execute(text("SELECT 1"))
        """,
    )


# Which tests are database tests.


@pytest.mark.parametrize("place", ["module", "class", "function", "base"])
def test_a_bare_marker_makes_a_database_test(app: Project, sqlite: Target, place: str) -> None:
    mark = "@pytest.mark.asyncdb"
    app.tests(
        CLIENT,
        f"""
        {"pytestmark = pytest.mark.asyncdb" if place == "module" else ""}

        {mark if place == "base" else ""}
        class Base:
            pass

        {mark if place == "class" else ""}
        class TestIt(Base):
            {mark if place == "function" else ""}
            async def test_it(self, client):
                async with client() as session:
                    assert await names(session) == ["at start"]
        """,
    )
    app.run(sqlite).passed(1)
    result = app.pytester.runpytest_inprocess(
        "--collect-only", "-q", "-p", "no:randomly", "--asyncdb=sqlite,postgres"
    )
    ids = [line.partition("::")[2] for line in result.outlines if "::" in line]
    assert ids == ["TestIt::test_it[sqlite]", "TestIt::test_it[postgres]"]


def test_a_marked_unittest_class_is_a_database_test(app: Project, sqlite: Target) -> None:
    app.tests(
        """
        import unittest
        from app import db

        @pytest.mark.asyncdb
        class TestIt(unittest.IsolatedAsyncioTestCase):
            async def test_it(self):
                async with db.Session.begin() as session:
                    await add(session, "one")
        """
    )
    app.run(sqlite).passed(1)


def test_a_marked_unittest_method_is_a_database_test(app: Project, sqlite: Target) -> None:
    """pytest offers plugins no way to change such a method before it is an item."""
    app.tests(
        """
        import unittest
        from app import db

        class TestIt(unittest.IsolatedAsyncioTestCase):
            @pytest.mark.asyncdb
            async def test_it(self):
                async with db.Session.begin() as session:
                    await add(session, "one")

            async def test_other(self):
                with self.assertRaisesRegex(Exception, "outside of a database test"):
                    async with db.engine.connect():
                        pass
        """
    )
    app.run(sqlite).passed(2)


def collected(project: Project, *arguments: str) -> list[str]:
    result = project.pytester.runpytest_inprocess(
        "--collect-only", "-q", "-p", "no:randomly", *arguments
    )
    return [line.partition("::")[2] for line in result.outlines if "::" in line]


def test_a_test_without_the_marker_stays_as_it_is(app: Project, sqlite: Target) -> None:
    """Also one whose code names the application's engine: nothing is guessed from it."""
    app.tests(
        "from app import db",
        "def test_it(): assert db.engine",
        "@pytest.mark.asyncdb\ndef test_marked(): pass",
    )
    assert collected(app) == ["test_it", "test_marked[sqlite]"]
    app.run(sqlite).passed(2)


def test_a_fixture_that_starts_the_application_makes_database_tests(
    app: Project, sqlite: Target
) -> None:
    """It depends on ``asyncdb_engine``, and the tests need nothing else."""
    client = CLIENT.replace("def client():", "def client(asyncdb_engine):")
    app.tests(
        client,
        """
        async def test_it(client):
            async with client.begin() as session:
                assert await names(session) == ["at start"]

        async def test_again(client):
            await test_it(client)

        def test_other(): pass
        """,
    )
    assert sorted(collected(app, "--asyncdb=sqlite,postgres")) == [
        *("test_again[postgres]", "test_again[sqlite]"),
        *("test_it[postgres]", "test_it[sqlite]", "test_other"),
    ]
    app.run(sqlite).passed(3)


@pytest.mark.parametrize("way", ["strict", "anyio"])
def test_strict_mode_and_anyio(app: Project, sqlite: Target, way: str) -> None:
    """The view is open before the async fixtures of both plugins."""
    app.ini(asyncio_mode="strict", usefixtures="asyncdb_engine")
    fixture = "pytest_asyncio.fixture" if way == "strict" else "pytest.fixture"
    app.tests(
        f"""
        import pytest_asyncio
        from app import db

        pytestmark = pytest.mark.{"asyncio" if way == "strict" else "anyio"}

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @{fixture}
        async def one({"" if way == "strict" else "anyio_backend"}):
            async with db.Session.begin() as session:
                await add(session, "one")

        @pytest.mark.parametrize("n", [1, 2])
        async def test_it(one, n):
            async with db.Session.begin() as session:
                assert await names(session) == ["one"]
        """
    )
    app.run(sqlite, "-p", "anyio").passed(2)


@pytest.mark.parametrize(
    "signature",
    ["client, asyncdb_session", "asyncdb_session, client", "client, asyncdb_backend"],
)
def test_the_users_fixtures_find_the_engines_redirected(
    app: Project, sqlite: Target, signature: str
) -> None:
    """Whichever the test names first; autouse fixtures, too."""
    app.tests(
        CLIENT,
        f"""
        @pytest.fixture(autouse=True)
        async def first():
            async with db.Session() as session:
                assert await names(session) == []

        async def test_it({signature}):
            async with db.Session() as session:
                assert await names(session) == ["at start"]
        """,
    )
    app.run(sqlite).passed(1)


def test_every_test_of_a_project_may_be_a_database_test(app: Project, sqlite: Target) -> None:
    """pytest's own ini option ``usefixtures`` says so, also for tests that need no database;
    those that pytest cannot parametrise run on the first backend."""
    app.ini(usefixtures="asyncdb_engine")
    app.tests(
        CLIENT,
        """
        import unittest

        async def test_it(client): pass

        def test_other(): pass

        class TestIt(unittest.IsolatedAsyncioTestCase):
            async def test_it(self):
                async with db.Session.begin() as session:
                    assert await names(session) == []
                    await add(session, "one")

        def double(n):
            '''
            >>> double(2)
            4
            '''
            return 2 * n
        """,
    )
    assert sorted(collected(app, "--doctest-modules", "--asyncdb=sqlite,postgres")) == [
        *("TestIt::test_it", "test_it.double", "test_it[postgres]", "test_it[sqlite]"),
        *("test_other[postgres]", "test_other[sqlite]"),
    ]
    app.run(sqlite, "--doctest-modules").passed(4)
    quiet = ("--doctest-modules", "-k", "double or TestIt")
    app.run(sqlite, *quiet, "--asyncdb=sqlite,postgres").passed(2)


@pytest.mark.parametrize("fixture", ["asyncdb_seed", "asyncdb_migrate"])
def test_a_seed_or_a_migration_that_uses_it_is_told_what_to_use(
    project: Project, servers: Servers, fixture: str
) -> None:
    """Once, and nothing about fixtures of tests."""
    project.ini(asyncdb_app_engines="app.db:engine")
    project.write("app/db.py", DB)
    parameter = "session" if fixture == "asyncdb_seed" else "connection"
    project.write(
        "conftest.py",
        f"""
        import pytest
        from app.db import engine

        @pytest.fixture(scope="session")
        def {fixture}():
            async def build({parameter}):
                async with engine.connect():
                    pass
            return build
        """,
    )
    project.tests("async def test_it(asyncdb_session): pass")
    outcome = project.run(servers.target("sqlite")).had(errors=1)
    outcome.shows(
        """
        the application's engine connects while the schema is built (app.db:engine)

        Nothing was sent to postgresql+asyncpg://app:***@127.0.0.1:1/app.

        To fix this: use what the function gets: asyncdb_seed a session, asyncdb_migrate a connection
        """
    )
    assert outcome.text.count("To fix this") == 1


def test_an_engine_that_is_used_outside_of_a_database_test_is_refused(
    app: Project, sqlite: Target
) -> None:
    """The error names every way to make it a database test."""
    app.tests(CLIENT, "async def test_it(client): pass")
    app.run(sqlite).had(errors=1).shows(
        """
        the application's engine connects outside of a database test (app.db:engine)

        test: test_it.py::test_it
        fixture: 'client' (scope function)
        Nothing was sent to postgresql+asyncpg://app:***@127.0.0.1:1/app.

        To fix this, do one of:
          - let the fixture that starts the application use asyncdb_engine: def client(asyncdb_engine)
          - for every test, write in the ini file: usefixtures = asyncdb_engine
          - mark the function, class or module: @pytest.mark.asyncdb
          - give a fixture of a wider scope the scope of a function, or fill the database with asyncdb_seed
          - delete the fixture 'client' (scope function), if it only creates or drops tables: the plugin does that
        """
    )


def test_a_fixture_of_a_wider_scope_is_refused_too(app: Project, sqlite: Target) -> None:
    app.ini(asyncio_default_fixture_loop_scope="session")
    app.tests(
        """
        from app import db

        @pytest.fixture(scope="session")
        async def prepared():
            async with db.Session.begin() as session:
                await add(session, "one")

        async def test_it(prepared, asyncdb_session): pass
        """
    )
    outcome = app.run(sqlite).had(errors=1)
    assert "connects outside of a database test (app.db:engine)" in outcome.text


def test_a_task_that_outlives_its_test_does_not_reach_the_applications_database(
    app: Project, sqlite: Target
) -> None:
    app.ini(asyncio_default_test_loop_scope="session")
    app.tests(
        """
        from app import db

        async def test_first(asyncdb_session): pass

        async def test_then():
            with pytest.raises(Exception) as caught:
                async with db.engine.connect():
                    pass
            assert "outside of a database test" in str(caught.value)
        """
    )
    app.run(sqlite).passed(2)


# The fixture.


@pytest.mark.parametrize(
    "value", ["db.engine", "[db.Session]", '"app.db:engine"', "lambda: db.engine", "None"]
)
def test_the_fixture_takes_objects_and_words(app: Project, sqlite: Target, value: str) -> None:
    app.ini(asyncdb_app_engines=None)
    app.write(
        "conftest.py",
        f"""
        import pytest
        from app import db

        @pytest.fixture(scope="session")
        def asyncdb_app_engines():
            return {value}
        """,
    )
    app.tests(
        """
        from app import db

        async def test_it(asyncdb_session):
            async with db.Session.begin() as session:
                await add(session, "one")
            assert await names(asyncdb_session) == ["one"]
        """
    )
    expected = {"failed": 1} if value == "None" else {"passed": 1}
    app.run(sqlite).had(**expected)


@pytest.mark.parametrize(
    "word", ["get_database().engine", "_database.engine", "_database.maker", "get_database().maker"]
)
def test_an_engine_inside_of_other_objects_may_be_named(
    app: Project, sqlite: Target, word: str
) -> None:
    """``_database`` is None until the application asks for it, in the middle of the test."""
    app.ini(asyncdb_app_engines=f"app.db:{word}")
    app.tests(
        """
        from app import db

        async def test_it(asyncdb_session):
            async with async_sessionmaker(db.get_database().engine).begin() as session:
                await add(session, "one")
            assert await names(asyncdb_session) == ["one"]
        """
    )
    app.run(sqlite).passed(1)


def test_session_options_without_a_sessionmaker_keep_their_default(
    app: Project, sqlite: Target
) -> None:
    app.tests(
        """
        def test_it(asyncdb_session, asyncdb_session_options):
            assert asyncdb_session_options == {"expire_on_commit": False}
        """
    )
    app.run(sqlite).passed(1)


def test_session_options_are_those_of_the_sessionmaker(app: Project, sqlite: Target) -> None:
    app.write(
        "app/db.py",
        DB
        + """
class OwnSession(async_sessionmaker(engine).class_):
    pass

Own = async_sessionmaker(engine, class_=OwnSession, autoflush=False, info={"of": "app"})
""",
    )
    app.ini(asyncdb_app_engines="app.db:engine, app.db:Own")
    app.tests(
        """
        from app import db

        def test_it(asyncdb_session, asyncdb_session_options):
            assert asyncdb_session_options == {
                "class_": db.OwnSession, "autoflush": False, "expire_on_commit": True,
                "info": {"of": "app"},
            }
            assert type(asyncdb_session) is db.OwnSession
        """
    )
    app.run(sqlite).passed(1)


# Engines that nobody named.

USES = """
from app.other import use

async def test_passes(asyncdb_session):
    await use()

async def test_fails(asyncdb_session):
    await use()
    raise AssertionError
"""


@pytest.mark.parametrize("apart", [False, True], ids=["main", "xdist"])
def test_an_engine_that_nobody_named_is_told(app: Project, sqlite: Target, apart: bool) -> None:
    stray(app)
    app.tests(USES)
    if apart:
        outcome = app.run_apart(sqlite, "-n1")
        outcome.result.assert_outcomes(passed=1, failed=1)
    else:
        outcome = app.run(sqlite).had(passed=1, failed=1)
    url = f"sqlite+aiosqlite:///{app.path}/stray.db"
    line = app.place("async with stray.connect() as connection:", "use", "app/other.py")
    outcome.shows(
        f"""
        An engine connected during this test that is not redirected to its database.
        URL: {url}
        at {line}
        What it wrote is not undone, and it does not see what the test wrote.
        to redirect it, write in the ini file: asyncdb_app_engines = app.db:engine, app.other:stray
        to leave it alone: asyncdb_app_engines = app.db:engine, -app.other:stray
        """
    )
    outcome.shows(
        f"""
        asyncdb: in 2 tests an engine connected that is not redirected: {url}
        first in test_it.py::test_passes[sqlite], at {line}
        to redirect it, write in the ini file: asyncdb_app_engines = app.db:engine, app.other:stray
        to leave it alone: asyncdb_app_engines = app.db:engine, -app.other:stray
        """
    )
    assert outcome.text.count("An engine connected during this test") == 1


@pytest.mark.parametrize("by", ["name", "url"])
def test_a_foreign_engine_is_left_alone(app: Project, sqlite: Target, by: str) -> None:
    stray(app)
    url = f"sqlite+aiosqlite:///{app.path}/stray.db"
    foreign = "app.other:stray" if by == "name" else url
    app.ini(asyncdb_app_engines=f"app.db:engine, -{foreign}")
    app.tests(USES, "async def test_outside():\n    await use()")
    outcome = app.run(sqlite).had(passed=2, failed=1)
    assert "not redirected" not in outcome.text
    assert (app.path / "stray.db").exists()


def test_an_engine_on_the_tests_own_url_is_no_stray(app: Project, sqlite: Target) -> None:
    app.tests(
        """
        from pytest_asyncdb import build_engine

        async def test_it(asyncdb_url):
            engine = build_engine(asyncdb_url)
            async with engine.connect():
                pass
            await engine.dispose()
        """
    )
    outcome = app.run(sqlite).passed(1)
    assert "not redirected" not in outcome.text


def test_without_app_engines_the_password_is_hidden_all_the_same(
    app: Project, sqlite: Target
) -> None:
    app.ini(asyncdb_app_engines=None)
    app.tests(CLIENT, "async def test_it(client, asyncdb_session): pass")
    outcome = app.run(sqlite).had(errors=1)
    outcome.shows(
        """
        asyncdb: in 1 test an engine connected that is not redirected: postgresql+asyncpg://app:***@127.0.0.1:1/app
        first in test_it.py::test_it[sqlite], at test_it.py:17 in add
        to redirect it, write in the ini file: asyncdb_app_engines = app.db:Session
        to leave it alone: asyncdb_app_engines = -app.db:Session
        delete the fixture 'client' (scope function), if it only creates or drops tables: the plugin does that
        """
    )
    assert "app:secret@" not in outcome.text


# Mistakes.


@pytest.mark.parametrize(
    ("word", "text"),
    [
        (
            "app.db",
            """
            asyncdb_app_engines='app.db' names no attribute (asyncdb_app_engines in pytest.ini)

            To fix this: write module:attribute, such as app.db:engine
            """,
        ),
        (
            "app.database:engine",
            """
            asyncdb_app_engines='app.database:engine': there is no module 'app.database' (did you mean 'app.db'?) (asyncdb_app_engines in pytest.ini)

            To fix this: name a module of app
            """,
        ),
        (
            "app.db:engin",
            """
            asyncdb_app_engines='app.db:engin': there is no 'engin' in app.db (did you mean 'engine'?) (asyncdb_app_engines in pytest.ini)

            To fix this: name an engine or a sessionmaker of that module
            """,
        ),
        (
            "app.db:number",
            """
            asyncdb_app_engines='app.db:number' is not an engine but int (asyncdb_app_engines in pytest.ini)

            Only engines of SQLAlchemy can be redirected.

            To fix this: name an AsyncEngine, an Engine, a sessionmaker, or a function that returns one; or leave it out
            """,
        ),
        (
            "app.db:later",
            """
            asyncdb_app_engines='app.db:later' is not an engine but coroutine (asyncdb_app_engines in pytest.ini)

            Only engines of SQLAlchemy can be redirected.

            To fix this: name an AsyncEngine, an Engine, a sessionmaker, or a function that returns one; or leave it out
            """,
        ),
        (
            "app.db:broken",
            """
            RuntimeError: no settings
            called for asyncdb_app_engines='app.db:broken' (asyncdb_app_engines in pytest.ini)
            """,
        ),
        (
            "app.db:broken().engine",
            """
            RuntimeError: no settings
            called for asyncdb_app_engines='app.db:broken().engine' (asyncdb_app_engines in pytest.ini)
            """,
        ),
        (
            "app.db:get_database.engine",
            """
            asyncdb_app_engines='app.db:get_database.engine': there is no 'engine' in get_database (asyncdb_app_engines in pytest.ini)

            To fix this: if it belongs to what the function returns, call that: get_database().engine
            """,
        ),
        (
            "app.db:get_database",
            """
            asyncdb_app_engines='app.db:get_database' is not an engine but Database (asyncdb_app_engines in pytest.ini)

            Only engines of SQLAlchemy can be redirected.

            To fix this, do one of:
              - name what is in it: app.db:get_database().engine or app.db:get_database().maker
              - name an AsyncEngine, an Engine, a sessionmaker, or a function that returns one; or leave it out
            """,
        ),
    ],
)
def test_a_word_that_leads_to_no_engine_is_explained(
    app: Project, sqlite: Target, word: str, text: str
) -> None:
    app.ini(asyncdb_app_engines=word)
    app.tests("async def test_it(asyncdb_engine): pass", "def test_other(): pass")
    app.run(sqlite).had(errors=1, passed=1).shows(text)


def test_a_run_without_database_tests_imports_nothing(app: Project) -> None:
    app.write(
        "test_it.py",
        """
        import sys

        def test_it():
            assert "sqlalchemy" not in sys.modules
            assert "app" not in sys.modules
        """,
    )
    result = app.pytester.runpytest_subprocess("-p", "no:randomly", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
