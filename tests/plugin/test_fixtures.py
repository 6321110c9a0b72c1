"""The fixtures that a project overrides, and those that its tests use."""

from __future__ import annotations

import re

import pytest
from fix_project import Project
from fix_servers import Servers, Target

from pytest_asyncdb._config.registry import Registry

pytestmark = pytest.mark.everyday("sqlite", "postgres+asyncpg")

#: The servers of the contract, one driver each: what is tested here is not the drivers' business.
WORDS = ("sqlite", "postgres+asyncpg", "mysql+aiomysql", "mariadb+asyncmy")


@pytest.fixture(params=WORDS, ids=lambda word: word.replace("+", "-"))
def target(request: pytest.FixtureRequest, servers: Servers) -> Target:
    return servers.target(request.param)


def test_the_backend_tells_what_it_is(project: Project, target: Target) -> None:
    project.tests(
        f"""
        async def test_it(asyncdb_backend, asyncdb, asyncdb_url, asyncdb_engine):
            assert asyncdb_backend.name == "{target.backend}"
            assert asyncdb_backend.driver == "{target.driver}"
            assert asyncdb_backend.version[0].isdigit()
            assert str(asyncdb_backend) == "{target.word}"
            assert asyncdb_backend.capabilities.transactional_ddl is (
                asyncdb_backend.name in ("sqlite", "postgres")
            )
            assert asyncdb.backend is asyncdb_backend
            assert asyncdb.url == asyncdb_url == asyncdb_engine.url
            assert asyncdb.engine is asyncdb_engine
        """
    )
    project.run(target).passed(1)


def test_a_folder_may_have_tables_of_its_own(project: Project, target: Target) -> None:
    project.write(
        "other/conftest.py",
        """
        import pytest
        from sqlalchemy import Column, Integer, MetaData, Table

        @pytest.fixture(scope="session")
        def asyncdb_metadata():
            metadata = MetaData()
            Table("only_here", metadata, Column("id", Integer, primary_key=True))
            return metadata
        """,
    )
    check = """
    from sqlalchemy import inspect

    async def test_tables(asyncdb_connection):
        tables = await asyncdb_connection.run_sync(lambda c: sorted(inspect(c).get_table_names()))
        assert tables == {tables}

    async def test_twice(asyncdb_connection):
        await test_tables(asyncdb_connection)
    """
    project.tests(check.replace("{tables}", '["posts", "users"]'), name="test_first.py")
    project.tests(check.replace("{tables}", '["only_here"]'), name="other/test_other.py")
    project.tests(check.replace("{tables}", '["posts", "users"]'), name="test_zlast.py")
    project.run(target).result.assert_outcomes(passed=6)


def test_several_metadata_are_built_together(project: Project, target: Target) -> None:
    """With one of SQLModel, sessions are SQLModel's."""
    project.write(
        "app/more.py",
        """
        from sqlmodel import Field, SQLModel

        class Note(SQLModel, table=True):
            id: int | None = Field(default=None, primary_key=True)
            text: str = Field(max_length=50)
        """,
    )
    project.ini(asyncdb_metadata="app.models:Base, app.more:SQLModel")
    project.tests(
        """
        async def test_it(asyncdb_session):
            from app.more import Note
            asyncdb_session.add(Note(text="hello"))
            asyncdb_session.add(User(name="ada"))
            await asyncdb_session.commit()
            assert await asyncdb_session.scalar(select(func.count(Note.id))) == 1
            assert (await asyncdb_session.exec(select(Note))).one()[0].text == "hello"

        def test_sync(asyncdb_sync_session):
            from app.more import Note
            assert asyncdb_sync_session.exec(select(Note)).all() == []
        """
    )
    expected = {"note": [], "posts": [], "users": []}
    project.run(target, expected=expected).passed(2)


def test_schema_false_gives_an_empty_database(project: Project, target: Target) -> None:
    project.tests(
        """
        from sqlalchemy import inspect

        @pytest.mark.asyncdb(schema=False)
        async def test_empty(asyncdb_connection):
            assert await asyncdb_connection.run_sync(lambda c: inspect(c).get_table_names()) == []

        async def test_full(asyncdb_session):
            assert await names(asyncdb_session) == []
        """
    )
    project.run(target).result.assert_outcomes(passed=2)


@pytest.mark.parametrize(
    "migrate",
    [
        "def migrate(connection): Base.metadata.create_all(connection)",
        "async def migrate(connection): await connection.run_sync(Base.metadata.create_all)",
        """async def migrate(engine):
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)""",
        """def migrate(url):
            import asyncio
            from pytest_asyncdb import build_engine

            async def upgrade():
                engine = build_engine(url)
                async with engine.begin() as connection:
                    await connection.run_sync(Base.metadata.create_all)
                await engine.dispose()

            asyncio.run(upgrade())""",
    ],
    ids=["sync-connection", "connection", "engine", "url-with-a-loop-of-its-own"],
)
def test_migrations_replace_create_all(project: Project, target: Target, migrate: str) -> None:
    project.ini(asyncdb_metadata=None)
    project.write(
        "conftest.py",
        """
        import pytest
        from app.models import Base

        @pytest.fixture(scope="session")
        def asyncdb_migrate():
            return migrate

        """,
    )
    with (project.path / "conftest.py").open("a") as file:
        file.write(migrate.replace("\n        ", "\n") + "\n")
    project.tests("async def test_it(asyncdb_session): assert await names(asyncdb_session) == []")
    project.run(target).passed(1)


def test_an_unknown_parameter_of_the_migration_is_refused(project: Project, target: Target) -> None:
    project.write(
        "conftest.py",
        """
        import pytest

        @pytest.fixture(scope="session")
        def asyncdb_migrate():
            return lambda session: None
        """,
    )
    project.tests("async def test_it(asyncdb_session): pass")
    project.run(target).had(errors=1).shows(
        """
        asyncdb_migrate: a function with the unknown parameter 'session'

        Known: connection, engine, url.

        To fix this: name its parameters after what it needs
        """
    )


def test_a_seed_is_there_for_every_test(project: Project, target: Target) -> None:
    project.write(
        "conftest.py",
        """
        import pytest
        from app.models import User

        @pytest.fixture(scope="session")
        def asyncdb_seed():
            async def seed(session):
                session.add(User(name="seeded"))
            return seed
        """,
    )
    project.tests(
        """
        async def test_changes_it(asyncdb_session):
            assert await names(asyncdb_session) == ["seeded"]
            (await asyncdb_session.get(User, 1)).name = "changed"
            await add(asyncdb_session, "more")
            await asyncdb_session.commit()
            assert await names(asyncdb_session) == ["changed", "more"]

        async def test_finds_it_as_it_was(asyncdb_session):
            assert await names(asyncdb_session) == ["seeded"]
        """
    )
    project.run(target, expected={"posts": [], "users": [(1, "seeded")]}).passed(2)


def test_a_seed_that_fails_is_explained(project: Project, target: Target) -> None:
    project.write(
        "conftest.py",
        """
        import pytest

        @pytest.fixture(scope="session")
        def asyncdb_seed():
            async def seed(session):
                raise RuntimeError("no file with countries")
            return seed
        """,
    )
    project.tests("async def test_it(asyncdb_session): pass")
    label = {"sqlite": "SQLite", "postgres": "PostgreSQL", "mysql": "MySQL", "mariadb": "MariaDB"}
    project.run(target).had(errors=1).shows(
        f"""
        asyncdb_seed failed on {label[target.backend]}

        RuntimeError: no file with countries
        at conftest.py:6 in seed

        To fix this: make the seed run on {label[target.backend]}; it gets a session on the new tables
        """
    )


def test_a_schema_that_fails_is_tried_once(project: Project, target: Target) -> None:
    """A suite of a thousand tests must not wait for the same failure a thousand times."""
    project.ini(asyncdb_metadata=None)
    project.write(
        "conftest.py",
        """
        import pytest

        TRIES = []

        @pytest.fixture(scope="session")
        def asyncdb_migrate():
            def migrate(connection):
                TRIES.append(1)
                raise RuntimeError("no such revision")
            return migrate

        def pytest_terminal_summary(terminalreporter):
            terminalreporter.write_line(f"tried {len(TRIES)} times")
        """,
    )
    project.tests("async def test_a(asyncdb_session): pass\nasync def test_b(asyncdb_url): pass")
    outcome = project.run(target).had(errors=2)
    assert "tried 1 times" in outcome.text
    assert outcome.text.count("RuntimeError: no such revision") == 1
    assert re.search(r"\nthe same as in .*test_it\.py::test_a\[", outcome.text)


def test_a_seed_of_objects_that_another_session_has_stored_is_refused(
    project: Project, target: Target
) -> None:
    """Without the refusal, the database would silently lack the row."""
    project.write(
        "conftest.py",
        """
        import pytest
        from app.models import Base, User
        from sqlalchemy import create_engine
        from sqlalchemy.orm import Session

        ADA = User(name="ada")
        engine = create_engine("sqlite://")
        Base.metadata.create_all(engine)
        with Session(engine, expire_on_commit=False) as session:
            session.add(ADA)
            session.commit()
        engine.dispose()

        @pytest.fixture(scope="session")
        def asyncdb_seed():
            async def seed(session):
                session.add(ADA)
            return seed
        """,
    )
    project.tests(
        """
        async def test_here(asyncdb_session):
            assert await names(asyncdb_session) == ["ada"]
        """
    )
    label = Registry().backend(target.backend).label
    outcome = project.run(target).had(errors=1)
    outcome.shows(
        f"""
        asyncdb_seed adds a User object that another session has stored or loaded ({label})

        SQLAlchemy takes it for stored already, so it would be missing in the test's database.

        To fix this: create the object in the seed
        """
    )


def test_engine_options_may_differ_between_backends(project: Project, target: Target) -> None:
    """SQLite's foreign keys are on, as on a server, and can be turned off for it alone."""
    project.write(
        "conftest.py",
        """
        import pytest

        @pytest.fixture(scope="session")
        def asyncdb_engine_options(asyncdb_backend):
            return {"foreign_keys": False} if asyncdb_backend.name == "sqlite" else {}
        """,
    )
    project.tests(
        """
        async def test_it(asyncdb_session, asyncdb_backend):
            asyncdb_session.add(Post(user_id=99, text="an orphan"))
            if asyncdb_backend.name == "sqlite":
                await asyncdb_session.commit()
            else:
                with pytest.raises(IntegrityError):
                    await asyncdb_session.commit()
        """
    )
    project.run(target).passed(1)


def test_foreign_keys_hold_everywhere(project: Project, target: Target) -> None:
    project.tests(
        """
        async def test_it(asyncdb_session):
            asyncdb_session.add(Post(user_id=99, text="an orphan"))
            with pytest.raises(IntegrityError):
                await asyncdb_session.commit()
        """
    )
    project.run(target).passed(1)


def test_session_options_are_the_applications(project: Project, target: Target) -> None:
    project.write(
        "conftest.py",
        """
        import pytest

        @pytest.fixture(scope="session")
        def asyncdb_session_options():
            return {"expire_on_commit": True, "autoflush": False}
        """,
    )
    project.tests(
        """
        from sqlalchemy.exc import MissingGreenlet, StatementError

        async def test_it(asyncdb_session):
            assert asyncdb_session.autoflush is False
            ada = User(name="ada")
            asyncdb_session.add(ada)
            await asyncdb_session.commit()
            with pytest.raises((MissingGreenlet, StatementError), match="greenlet_spawn"):  # as in production
                ada.name
        """
    )
    project.run(target).passed(1)


def test_text_of_every_kind_survives(project: Project, target: Target) -> None:
    project.tests(
        """
        async def test_it(asyncdb_session):
            await add(asyncdb_session, "日本語 🎉")
            assert await names(asyncdb_session) == ["日本語 🎉"]
        """
    )
    project.run(target).passed(1)


def test_the_build_engine_of_the_package_fits_every_url(project: Project, target: Target) -> None:
    """A second engine on the test's database: real connections, real transactions."""
    project.tests(
        """
        from pytest_asyncdb import build_engine

        async def test_it(asyncdb_url):
            engine = build_engine(asyncdb_url)
            async with engine.connect() as connection:
                await connection.execute(insert(User).values(name="ada"))
                await connection.rollback()
                assert (await connection.execute(select(User.name))).all() == []
            await engine.dispose()
        """
    )
    project.run(target).passed(1)
