"""Several databases of one application, on every backend and driver and in every strategy."""

from __future__ import annotations

import pytest
from fix_project import Project
from fix_servers import Servers, Target

pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")

AUDIT = """
from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class AuditBase(DeclarativeBase):
    pass


class Event(AuditBase):
    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True)
    what: Mapped[str] = mapped_column(String(100))


class OtherUser(AuditBase):
    "Of the same name as a table of the first database."
    __tablename__ = "users"
    key: Mapped[str] = mapped_column(String(20), primary_key=True)
"""

DB = """
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from app.audit import AuditBase
from app.models import Base

engine = create_async_engine("postgresql+asyncpg://app:secret@db.app.invalid/app")
audit_engine = create_async_engine("sqlite+aiosqlite:////nowhere/audit.db")
sync_audit = create_engine("sqlite:////nowhere/audit.db")
Main = async_sessionmaker(engine, expire_on_commit=False)
Audit = async_sessionmaker(audit_engine, expire_on_commit=False)
Both = async_sessionmaker(binds={Base: engine, AuditBase: audit_engine}, expire_on_commit=False)
"""

TESTS = """
from app.audit import Event, OtherUser
from app.db import Audit, Both, Main, sync_audit
from sqlalchemy.orm import Session

pytestmark = pytest.mark.parametrize(
    "strategy",
    [
        pytest.param(one, marks=pytest.mark.asyncdb(isolation=one))
        for one in ("rollback", "reset", "copy")
    ],
)


@pytest.fixture(autouse=True, params=range(2))
async def nothing_is_there(request, asyncdb):
    "The second time there must be nothing of the first."
    assert await counts() == (0, 0)


async def counts():
    async with Main() as main, Audit() as audit:
        users = await main.scalar(select(func.count(User.id)))
        return users, await audit.scalar(select(func.count(Event.id)))


async def test_one_session_over_both_commits(strategy):
    async with Both() as session:
        session.add_all([User(name="a"), Event(what="a")])
        await session.commit()
    assert await counts() == (1, 1)


async def test_one_session_over_both_rolls_back(strategy):
    async with Both() as session:
        session.add_all([User(name="a"), Event(what="a")])
        await session.flush()
        await session.rollback()
        session.add_all([User(name="b"), Event(what="b")])
        await session.commit()
    assert await counts() == (1, 1)


async def test_one_session_over_both_nests(strategy):
    async with Both() as session:
        session.add_all([User(name="a"), Event(what="a")])
        async with session.begin_nested():
            session.add_all([User(name="b"), Event(what="b")])
        await session.commit()
    assert await counts() == (2, 2)


async def test_an_error_in_one_undoes_both(strategy):
    async with Both() as session:
        session.add_all([User(name="a"), Event(what="a")])
        await session.commit()
        session.add_all([User(name="a"), Event(what="b")])
        with pytest.raises(IntegrityError):
            await session.commit()
        await session.rollback()
    assert await counts() == (1, 1)


async def test_what_is_committed_there_survives_a_rollback_here(strategy):
    with pytest.raises(ZeroDivisionError):
        async with Main.begin() as session:
            session.add(User(name="a"))
            await session.flush()
            async with Audit.begin() as audit:
                audit.add(Event(what="attempt"))
            1 / 0
    assert await counts() == (0, 1)


async def test_tasks(strategy):
    async def one(n):
        async with Main.begin() as session:
            session.add(User(name=f"{n}"))

    async def other(n):
        async with Audit.begin() as session:
            session.add(Event(what=f"{n}"))

    await one(0)
    await asyncio.gather(one(1), other(1))
    assert await counts() == (2, 1)


async def test_the_fixtures_belong_to_the_first(strategy, asyncdb, asyncdb_session):
    asyncdb_session.add(User(name="a"))
    await asyncdb_session.commit()
    audit = asyncdb.database("audit")
    async with audit.sessionmaker() as session:
        session.add_all([Event(what="a"), OtherUser(key="k")])
        await session.commit()
    assert await counts() == (1, 1)
    assert {one.sql.split()[2] for one in audit.statements if "INSERT" in one.sql} == {
        "events", "users"
    }
    assert [*await asyncdb.changes()] == ["users"]
    assert {*await audit.changes()} == {"events", "users"}
    async with audit.engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM events")) == 1


async def test_sync_code(strategy, asyncdb):
    with Session(sync_audit) as session:
        session.add(Event(what="a"))
        session.commit()
    assert await counts() == (0, 1)
"""


@pytest.fixture
def app(project: Project) -> Project:
    project.write("app/audit.py", AUDIT)
    project.write("app/db.py", DB)
    project.ini(
        asyncdb_metadata="main=app.models:Base, audit=app.audit:AuditBase",
        asyncdb_app_engines="main=app.db:engine, audit=app.db:audit_engine, audit=app.db:sync_audit",
    )
    return project


@pytest.mark.everyday("sqlite", "postgres+asyncpg")
def test_each_has_its_own_transaction(app: Project, target: Target) -> None:
    """Commits, rollbacks and what is left behind."""
    app.tests(TESTS)
    app.run_apart(target).passed(8 * 3 * 2)


@pytest.mark.everyday("sqlite")
def test_each_has_its_own_seed_and_migration(app: Project, target: Target) -> None:
    app.write(
        "conftest.py",
        """
        import pytest
        from app.audit import AuditBase, Event
        from app.models import User


        @pytest.fixture(scope="session")
        def asyncdb_migrate():
            async def migrate(connection):
                await connection.run_sync(AuditBase.metadata.create_all)
                await connection.exec_driver_sql("CREATE TABLE more (id INT)")

            return {"audit": migrate}


        @pytest.fixture(scope="session")
        def asyncdb_seed():
            async def main(session):
                session.add(User(name="ada"))
                return "of main"

            async def audit(session):
                session.add(Event(what="begun"))
                return "of audit"

            return {"main": main, "audit": audit}
        """,
    )
    app.tests(
        """
        from app.audit import Event
        from app.db import Audit

        @pytest.mark.parametrize("number", range(2))
        async def test_it(asyncdb, asyncdb_session, number):
            assert await names(asyncdb_session) == ["ada"]
            async with Audit() as session:
                assert list(await session.scalars(select(Event.what))) == ["begun"]
                assert await session.scalar(text("SELECT count(*) FROM more")) == 0
            assert (asyncdb.seeded, asyncdb.database("audit").seeded) == ("of main", "of audit")
        """
    )
    app.run_apart(target, "-n", "2").passed(2)


ENV = """
from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
"""
REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "a", None


def upgrade():
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("what", sa.String(100), nullable=False),
    )
    op.create_table("users", sa.Column("key", sa.String(20), primary_key=True))
"""


@pytest.mark.everyday("sqlite")
def test_the_ini_file_names_migrations_and_seeds_of_each(app: Project, target: Target) -> None:
    app.write("audit/alembic.ini", "[alembic]\nscript_location = %(here)s/migrations")
    app.write("audit/migrations/env.py", ENV)
    app.write("audit/migrations/versions/a.py", REVISION)
    app.write("seeds/main.sql", "INSERT INTO users (id, name) VALUES (1, 'ada');")
    app.write("seeds/audit1.sql", "INSERT INTO events (id, what) VALUES (1, 'begun');")
    app.write("seeds/audit2.sql", "INSERT INTO events (id, what) VALUES (2, 'more');")
    app.ini(
        asyncdb_migrations="audit=audit/alembic.ini",
        asyncdb_seed="seeds/main.sql, audit=seeds/audit*.sql",
    )
    app.tests(
        """
        from app.audit import Event
        from app.db import Audit

        async def test_it(asyncdb_session):
            assert await names(asyncdb_session) == ["ada"]
            async with Audit() as session:
                events = await session.scalars(select(Event.what).order_by(Event.id))
                assert events.all() == ["begun", "more"]
                assert await session.scalar(text("SELECT version_num FROM alembic_version")) == "a"
        """
    )
    app.run_apart(target).passed(1)


#: Of the driver asyncpg.
OPTIONS = """
@pytest.fixture(scope="session")
def asyncdb_engine_options():
    return {"connect_args": {"command_timeout": 30}}
"""
BOUND = """
async def test_backends(asyncdb, strategy):
    audit = asyncdb.database("audit")
    assert audit.backend.name == audit.engine.dialect.name == "sqlite"
    assert asyncdb.backend.name != "sqlite"
"""


@pytest.mark.complete
def test_one_may_have_another_backend(app: Project, target: Target) -> None:
    """It is SQLite on every server. The arguments of the server's driver do not go to SQLite."""
    if target.backend == "sqlite":
        pytest.skip("it would be the same backend")
    app.ini(asyncdb_databases="audit=sqlite")
    app.tests(TESTS, BOUND, OPTIONS if target.driver == "asyncpg" else "")
    app.run_apart(target).passed(8 * 3 * 2 + 3 * 2)


def test_another_backend_may_be_on_a_server(app: Project, servers: Servers) -> None:
    """The run starts or takes that server, although no test is on it."""
    app.ini(asyncdb_databases="audit=postgres+asyncpg")
    app.tests(TESTS)
    _, *where = servers.target("postgres+asyncpg").arguments
    app.run_apart(servers.target("sqlite"), *where).passed(8 * 3 * 2)


MISTAKES = {
    "another_backend_of_no_database": (
        {"asyncdb_databases": "adit=sqlite"},
        "async def test_it(asyncdb_session): pass",
        """
        there is no database 'adit' (asyncdb_databases in pytest.ini)

        asyncdb_metadata names: main, audit.

        To fix this: name it there: asyncdb_metadata = main=app.models:Base, adit=…
        """,
    ),
    "another_backend_of_the_first": (
        {"asyncdb_databases": "main=sqlite"},
        "async def test_it(asyncdb_session): pass",
        """
        'main' cannot have another backend (asyncdb_databases in pytest.ini)

        It is the first database, whose backend is that of the test.

        To fix this: name another database first in asyncdb_metadata
        """,
    ),
    "a_handle": (
        {},
        "async def test_it(asyncdb):\n    asyncdb.database('adit')",
        """
        there is no database 'adit' (asyncdb.database())

        asyncdb_metadata names: main, audit.

        To fix this: name it there: asyncdb_metadata = main=app.models:Base, adit=…
        """,
    ),
    "an_engine": (
        {"asyncdb_app_engines": "adit=app.db:engine"},
        "async def test_it(asyncdb_session): pass",
        """
        there is no database 'adit' (asyncdb_app_engines in pytest.ini)

        asyncdb_metadata names: main, audit.

        To fix this: name it there: asyncdb_metadata = main=app.models:Base, adit=…
        """,
    ),
    "equal_tables": (
        {"asyncdb_metadata": "app.models:Base, app.audit:AuditBase", "asyncdb_app_engines": None},
        "async def test_it(asyncdb_session): pass",
        """
        asyncdb_metadata has two tables 'users', in two declarative bases

        One database cannot have both; create_all would leave out the second.

        To fix this, do one of:
          - give each base a database of its own: asyncdb_metadata = main=app.models:Base, other=app.other:Base
          - rename one of them
        """,
    ),
}


@pytest.mark.everyday("sqlite")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(app: Project, target: Target, mistake: str) -> None:
    values, test, text = MISTAKES[mistake]
    app.ini(**values)
    app.tests(test)
    app.run(target).shows(text)


@pytest.mark.everyday("sqlite")
def test_the_databases_of_fixtures(app: Project, target: Target) -> None:
    """Values of the fixtures instead of names in the ini file."""
    app.ini(asyncdb_metadata=None, asyncdb_app_engines=None)
    app.write(
        "conftest.py",
        """
        import pytest
        from app.audit import AuditBase
        from app.db import audit_engine, engine
        from app.models import Base


        @pytest.fixture(scope="session")
        def asyncdb_metadata():
            return {"core": Base, "audit": AuditBase}


        @pytest.fixture(scope="session")
        def asyncdb_app_engines():
            return {"core": engine, "audit": [audit_engine]}
        """,
    )
    app.tests(
        """
        from app.audit import Event
        from app.db import Audit

        async def test_it(asyncdb, asyncdb_session):
            async with Audit.begin() as session:
                session.add(Event(what="a"))
            assert [*await asyncdb.database("audit").changes()] == ["events"]
            assert await asyncdb.changes() == {}
        """
    )
    app.run_apart(target).passed(1)
