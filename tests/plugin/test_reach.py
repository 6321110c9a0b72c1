"""Tests that use nothing of ours and reach the application's engine are database tests."""

from __future__ import annotations

import sys

import pytest
from fix_project import QUIET, Project
from fix_servers import Servers, Target

DB = """
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine("postgresql+asyncpg://app:secret@127.0.0.1:1/app")
Session = async_sessionmaker(engine)


def get_engine():
    return engine
"""

SERVICE = """
from app.db import Session
from app.models import User


async def register(name):
    async with Session.begin() as session:
        session.add(User(name=name))


class Service:
    async def register(self, name):
        await register(name)


def greeting(name):
    return f"Hello {name}"
"""

#: What FastAPI and others do: an object that holds functions, some of them wrapped.
WEB = """
import functools
from app import service


class Application:
    def __init__(self):
        self.routes = {}

    def post(self, path):
        def keep(function):
            @functools.wraps(function)
            async def called(*arguments):
                return await function(*arguments)
            self.routes[path] = functools.partial(called, "one")
            return function
        return keep


application = Application()


@application.post("/users")
async def sign_up(name):
    await service.register(name)


async def post(path):
    await application.routes[path]()
"""

CLIENT = """
@pytest.fixture
async def client():
    from app import web

    return web.application
"""


@pytest.fixture
def sqlite(servers: Servers) -> Target:
    return servers.target("sqlite")


@pytest.fixture
def app(project: Project) -> Project:
    project.write("app/db.py", DB)
    project.write("app/service.py", SERVICE)
    project.write("app/web.py", WEB)
    project.ini(asyncdb_app_engines="app.db:engine")
    return project


def ids(app: Project, *arguments: str) -> list[str]:
    """The tests as pytest collects them, without their file."""
    result = app.pytester.runpytest_inprocess("--collect-only", "-q", *QUIET, *arguments)
    return [line.partition("::")[2] for line in result.outlines if "::" in line]


REACHING = {
    "a function": """
        from app.service import register

        async def test_it():
            await register("one")
        """,
    "a module": """
        import app.service

        async def test_it():
            await app.service.register("one")
        """,
    "an import in the test": """
        async def test_it():
            from app.service import register
            await register("one")
        """,
    "an import of a module in the test": """
        async def test_it():
            from app import service
            await service.register("one")
        """,
    "an object": """
        from app.web import application

        async def test_it():
            await application.routes["/users"]()
        """,
    "an instance of a class": """
        from app.service import Service

        async def test_it():
            await Service().register("one")
        """,
    "a fixture": """
        async def test_it(client):
            await client.routes["/users"]()
        """,
    "a fixture of a fixture": """
        @pytest.fixture
        async def post(client):
            return client.routes["/users"]

        async def test_it(post):
            await post()
        """,
    "an autouse fixture": """
        from app import db

        @pytest.fixture(autouse=True)
        async def one():
            async with db.Session.begin() as session:
                await add(session, "one")

        async def test_it(): pass
        """,
    "the parameter of a fixture": """
        from app import service

        @pytest.fixture(params=[service.register], ids=["x"])
        def function(request):
            return request.param

        async def test_it(function):
            await function("one")
        """,
    "the parameter of a test": """
        from app import service

        @pytest.mark.parametrize("function", [service.register], ids=["x"])
        async def test_it(function):
            await function("one")
        """,
    "a helper": """
        from app.db import Session

        async def helper():
            async def inner():
                async with Session.begin() as session:
                    await add(session, "one")
            await inner()

        async def test_it():
            await helper()
        """,
    "a decorator": """
        import functools
        from app.db import Session

        def decorated(function):
            @functools.wraps(function)
            async def wrapper():
                async with Session.begin() as session:
                    await add(session, "one")
                await function()
            return wrapper

        @decorated
        async def test_it(): pass
        """,
    "an engine derived from it": """
        from app import db

        derived = db.engine.execution_options(logging_token="x")

        async def test_it():
            async with derived.connect() as connection:
                await connection.execute(select(User))
        """,
    "a sessionmaker of the test": """
        from app.db import engine as their_own

        Own = async_sessionmaker(their_own)

        async def test_it():
            async with Own() as session:
                await names(session)
        """,
    "a method of a model": """
        from app.records import Record

        async def test_it():
            await Record(name="one").save()
        """,
}

RECORDS = """
from app.db import Session
from app.models import User


class Record(User):
    async def save(self):
        async with Session.begin() as session:
            session.add(User(name=self.name))
"""


@pytest.mark.parametrize("test", REACHING.values(), ids=REACHING)
def test_what_reaches_the_engine_is_a_database_test(
    app: Project, sqlite: Target, test: str
) -> None:
    """Twice, to see that its work is undone; the names are unique."""
    app.write("app/records.py", RECORDS)
    app.tests(CLIENT, test, name="test_it.py")
    app.tests(CLIENT, test, name="test_it_again.py")
    found = ids(app, "--asyncdb=sqlite,postgres")
    name = found[0].partition("[")[0]
    assert len(found) == 4
    assert all(
        one.startswith((f"{name}[sqlite", f"{name}[postgres", f"{name}[x-")) for one in found
    )
    app.run(sqlite).passed(2)


@pytest.mark.parametrize("words", ["app.db:engine", "app.db:Session", "app.db:get_engine"])
@pytest.mark.parametrize("name", ["engine.connect()", "Session()", "get_engine().connect()"])
def test_whatever_is_named_and_whatever_is_used(
    app: Project, sqlite: Target, words: str, name: str
) -> None:
    app.ini(asyncdb_app_engines=words)
    app.tests(
        f"""
        from app import db

        async def test_it():
            async with db.{name} as it:
                assert (await it.execute(select(User))).all() == []
        """
    )
    app.run(sqlite).passed(1)


LATER = """
from sqlalchemy import select
from sqlalchemy.ext.asyncio import create_async_engine

engine = None


def start():
    global engine
    engine = create_async_engine("postgresql+asyncpg://app:secret@127.0.0.1:1/app")


async def one():
    async with engine.connect() as connection:
        return await connection.scalar(select(1))
"""


def test_an_engine_that_is_not_made_yet(app: Project, sqlite: Target) -> None:
    """Its name leads to None at collection."""
    app.write("app/later.py", LATER)
    app.ini(asyncdb_app_engines="app.later:engine")
    app.tests(
        """
        from app.later import one, start

        async def test_it():
            start()
            assert await one() == 1
        """
    )
    app.run(sqlite).passed(1)


CLASSES = """
from app import service


class Base:
    async def register(self):
        raise NotImplementedError

    async def test_it(self):
        await self.register()


class TestMethod(Base):
    async def register(self):
        await service.register("one")

    def test_other(self):
        assert service.greeting("one") == "Hello one"


class TestSetup:
    def setup_method(self):
        self.function = service.register

    async def test_it(self):
        await self.function("one")


class TestFixture:
    @pytest.fixture
    def function(self):
        return self.taken()

    def taken(self):
        return service.register

    async def test_it(self, function):
        await function("one")
"""


def test_classes(app: Project, sqlite: Target) -> None:
    """Those of their methods count that a test names, and what is set up."""
    app.tests(CLASSES)
    assert sorted(ids(app)) == [
        "TestFixture::test_it[sqlite]",
        "TestMethod::test_it[sqlite]",
        "TestMethod::test_other",
        "TestSetup::test_it[sqlite]",
    ]
    app.run(sqlite).passed(4)


def test_unittest_classes_run_on_the_first_backend(app: Project, sqlite: Target) -> None:
    """As those do that bear the marker; others are left alone."""
    app.tests(
        """
        import unittest
        from app import service

        class TestIt(unittest.IsolatedAsyncioTestCase):
            async def asyncSetUp(self):
                self.register = service.register

            async def test_it(self):
                await self.register("one")

            async def test_it_again(self):
                await self.register("one")

        class TestPure(unittest.TestCase):
            def test_it(self):
                assert service.greeting("one") == "Hello one"
        """
    )
    app.run(sqlite).passed(3)


@pytest.mark.parametrize("way", ["strict", "anyio"])
def test_strict_mode_and_anyio(app: Project, sqlite: Target, way: str) -> None:
    app.ini(asyncio_mode="strict")
    mark = "asyncio" if way == "strict" else "anyio"
    fixture = "pytest_asyncio.fixture" if way == "strict" else "pytest.fixture"
    backend = "" if way == "strict" else "anyio_backend"
    app.tests(
        f"""
        import pytest_asyncio
        from app import service

        pytestmark = pytest.mark.{mark}

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @{fixture}
        async def registered({backend}):
            await service.register("one")

        @pytest.mark.parametrize("n", [1, 2])
        async def test_it(registered, n): pass
        """
    )
    app.run(sqlite, "-p", "anyio").passed(2)


def test_a_fixture_of_a_conftest_that_imports_late(app: Project) -> None:
    """What the application has not loaded may be anything, so it counts; nothing is imported."""
    app.write("conftest.py", f"import pytest\n{CLIENT}")
    app.write(
        "test_it.py",
        """
        import sys

        async def test_it(client): pass

        def test_other():
            assert "sqlalchemy" not in sys.modules
            assert "app" not in sys.modules
        """,
    )
    result = app.pytester.run(
        *(sys.executable, "-m", "pytest", *QUIET, "-v", "--asyncdb=sqlite", "-k", "other")
    )
    result.assert_outcomes(passed=1, deselected=1)
    assert ids(app) == ["test_it[sqlite]", "test_other"]


def test_the_marker_still_chooses(app: Project) -> None:
    app.tests(
        """
        from app import service

        @pytest.mark.parametrize(
            "n", [1, pytest.param(2, marks=pytest.mark.asyncdb("postgres"))]
        )
        async def test_it(n):
            await service.register("one")
        """
    )
    found = ["test_it[sqlite-1]", "test_it[postgres-1]", "test_it[postgres-2]"]
    assert sorted(ids(app, "--asyncdb=sqlite,postgres")) == sorted(found)


# What is left alone.

LEFT_ALONE = {
    "a model": """
        def test_it():
            assert User(name="one").name == "one"
        """,
    "a model with a method that uses the engine": """
        from app.records import Record

        def test_it():
            assert Record(name="one").name == "one"
        """,
    "a function beside those that do": """
        from app.service import greeting

        def test_it():
            assert greeting("one") == "Hello one"
        """,
    "the same in a module": """
        from app import service

        def test_it():
            assert service.greeting("one") == "Hello one"
        """,
    "what is imported and not used": """
        from app.db import Session, engine
        from app.web import application

        def test_it(tmp_path, monkeypatch, request): pass
        """,
    "a fixture that is overridden": """
        from app.db import engine

        @pytest.fixture
        def client():
            return engine

        class TestIt:
            @pytest.fixture
            def client(self):
                return None

            def test_it(self, client): pass
        """,
    "a logger": """
        import logging
        from app.web import application

        logger = logging.getLogger(__name__)
        logger.application = application

        def test_it():
            logger.info("one")
        """,
    "a foreign engine": """
        from app.foreign import engine as foreign

        def test_it():
            assert foreign.url.database is None
        """,
}


@pytest.mark.parametrize("test", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_what_does_not_reach_the_engine_is_left_alone(
    app: Project, sqlite: Target, test: str
) -> None:
    """Base and models live in the engine's own module."""
    models = (app.path / "app/models.py").read_text()
    app.write("app/db.py", f"{DB}\n{models}")
    app.write("app/models.py", "from app.db import Base, Post, User")
    app.write("app/records.py", RECORDS)
    app.write(
        "app/foreign.py",
        DB.replace("postgresql+asyncpg://app:secret@127.0.0.1:1/app", "sqlite+aiosqlite://"),
    )
    app.ini(asyncdb_app_engines="app.db:engine, -app.foreign:engine")
    app.tests(test)
    assert [one.rpartition("::")[2] for one in ids(app)] == ["test_it"]
    app.run(sqlite).passed(1)


def test_an_overridden_fixture_says_no(app: Project, sqlite: Target) -> None:
    """Then only fixtures of ours and the marker make a database test."""
    app.tests(
        """
        from app import db

        def test_it():
            assert db.engine

        class TestNo:
            @pytest.fixture(scope="session")
            def asyncdb_app_engines(self):
                return None

            def test_it(self):
                assert db.engine
        """
    )
    assert sorted(ids(app)) == ["TestNo::test_it", "test_it[sqlite]"]
    app.run(sqlite).passed(2)


def test_without_the_ini_line_nothing_is_looked_for(app: Project) -> None:
    """The control."""
    app.ini(asyncdb_app_engines=None)
    app.tests(REACHING["a function"])
    assert ids(app) == ["test_it"]
