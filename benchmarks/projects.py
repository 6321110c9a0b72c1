"""The projects that are measured: an application's tables, and tests that use them.

Each brings the same work to its tests: insert a parent and a child, commit, read both. They
differ in where the session comes from (:class:`Source`).
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

#: Tests at the start of a run that are not counted: they pay for imports and the schema.
DROPPED = 5

_MODELS = """
import os

from sqlalchemy import ForeignKey, String, event, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


@event.listens_for(Base.metadata, "before_create")
def note(*args, **options):
    with open(os.path.join(os.environ["BENCHMARK_TIMES"], "built"), "a") as file:
        file.write("built\\n")
"""

_TABLE = """
class Thing{number}(Base):
    __tablename__ = "thing_{number}"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), index=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("thing_{parent}.id"), index=True)
"""

_WORK = """
async def work(session):
    parent = Thing0(name="parent")
    session.add(parent)
    await session.flush()
    session.add(Thing1(name="child", parent_id=parent.id))
    await session.commit()
    query = select(Thing1.name).join(Thing0, Thing1.parent_id == Thing0.id)
    assert list((await session.scalars(query)).all()) == ["child"]
    assert await session.scalar(select(func.count()).select_from(Thing0)) == 1
"""


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the tests' session comes from.

    Args:
        fixture: Its name; empty: the tests use no database.
        ini: Lines of the ini file.
        plugin: Which of the plugins is on: asyncdb, another one, or none.
        arguments: More of the command line; ``{url}`` and ``{word}`` are filled in.
        own_database: Where it makes no databases itself, it gets an empty one.
        conftest: The project's; ``{url!r}`` is filled in.
    """

    fixture: str
    ini: tuple[str, ...] = ()
    plugin: str = ""
    arguments: tuple[str, ...] = ()
    own_database: bool = False
    conftest: str = ""


ASYNCDB = Source(
    "asyncdb_session",
    ini=("asyncdb_metadata = app:Base",),
    plugin="asyncdb",
    arguments=("--asyncdb={word}", "--asyncdb-url={url}", "--asyncdb-allow-hosts=*"),
)
#: As a user without a server starts it.
ASYNCDB_LOCAL, ASYNCDB_CONTAINER = (
    dataclasses.replace(ASYNCDB, arguments=("--asyncdb={word}", f"--asyncdb-server={provider}"))
    for provider in ("local", "container")
)
SQLA = Source(
    "sqla_async_session",
    ini=("sqla_metadata = app:Base",),
    plugin="sqla",
    arguments=("--sqla-async-url={url}",),
    own_database=True,
    conftest="""
import pytest


@pytest.fixture(scope="session")
def sqla_session_options():
    return {{"expire_on_commit": False}}
""",
)
NO_DATABASE = Source("")
#: Workers that import what the others do, and open nothing.
ONLY_IMPORTS = Source("", conftest="import app, sqlalchemy.ext.asyncio, {driver}\n")

_IMPORTS = """
import asyncio

import pytest
import pytest_asyncio
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool

from app import Base


def make_engine(url={url!r}, **options):
    engine = create_async_engine(url, **options)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine.sync_engine, "connect")
        def connect(connection, record):
            connection.isolation_level = None

        @event.listens_for(engine.sync_engine, "begin")
        def begin(connection):
            connection.exec_driver_sql("BEGIN")

    return engine


async def create(engine):
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
"""

_SESSION = """
    async with engine.connect() as connection:
        transaction = await connection.begin()
        async with AsyncSession(
            connection, expire_on_commit=False, join_transaction_mode="create_savepoint"
        ) as session:
            yield session
        await transaction.rollback()
"""

#: The rest of a fixture "engine" for the whole run, and the session on it.
_POOLED = (
    """    await create(engine)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture(loop_scope="session")
async def session(engine):"""
    + _SESSION
)

#: The best that can be written by hand: one pooled connection, one loop for the whole run.
HAND_WRITTEN = Source(
    "session",
    own_database=True,
    conftest=_IMPORTS
    + """

@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine():
    engine = make_engine()
"""
    + _POOLED,
)

#: What works on one loop per test: a new connection each time.
NULL_POOL = Source(
    "session",
    own_database=True,
    conftest=_IMPORTS
    + """

@pytest.fixture(scope="session")
def schema():
    asyncio.run(create(make_engine(poolclass=NullPool)))


@pytest_asyncio.fixture
async def session(schema):
    engine = make_engine(poolclass=NullPool)"""
    + _SESSION,
)

#: No isolation at all: the tables are made and dropped for each test.
CREATE_ALL = Source(
    "session",
    own_database=True,
    conftest=_IMPORTS
    + """

@pytest_asyncio.fixture
async def session():
    engine = make_engine()
    await create(engine)
    async with AsyncSession(engine, expire_on_commit=False) as session:
        yield session
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    await engine.dispose()
""",
)


#: A database per test from a template, with psycopg's synchronous connection beside ours.
POSTGRESQL = Source(
    "session",
    plugin="pytest_postgresql",
    own_database=True,
    conftest=_IMPORTS
    + """
from pytest_postgresql import factories
from sqlalchemy.engine import make_url

URL = make_url({url!r})


def load(dbname, **options):
    asyncio.run(create(create_async_engine(URL.set(database=dbname), poolclass=NullPool)))


server = factories.postgresql_noproc(
    URL.host, URL.port, URL.username, URL.password, "benchmark_template", load=[load]
)
postgresql = factories.postgresql("server")


@pytest_asyncio.fixture(loop_scope="session")
async def session(postgresql):
    engine = create_async_engine(URL.set(database=postgresql.info.dbname), poolclass=NullPool)
    async with AsyncSession(engine, expire_on_commit=False) as session:
        yield session
    await engine.dispose()
""",
)

#: A container, and the hand-written fixture on it.
DATABASES = Source(
    "session",
    plugin="pytest_databases",
    conftest=_IMPORTS
    + """
from sqlalchemy.engine import URL

pytest_plugins = ["pytest_databases.docker.postgres"]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(postgres_17_service):
    it = postgres_17_service
    engine = make_engine(
        URL.create("postgresql+{driver}", it.user, it.password, it.host, it.port, it.database)
    )
"""
    + _POOLED,
)


def models(tables: int) -> str:
    """A module of *tables* tables with foreign keys and indexes."""
    # Each below one of the first: a schema that is broad and three or four levels deep.
    made = [_TABLE.format(number=number, parent=number // 4) for number in range(tables)]
    return "\n".join([_MODELS, *made, _WORK if tables > 1 else ""])


def tests(fixture: str, number: int, every: int, mark: str, pause: float) -> str:
    """A file of tests; of *every* one is called ``test_measured`` and bears the mark."""
    lines = ["import asyncio", "import pytest", "import app" if fixture else "", ""]
    wait = [f"    await asyncio.sleep({pause})"] if pause else []
    for n in range(number * every):
        measured = n % every == 0
        name = f"{'measured' if measured else 'other'}_{n}"
        if fixture:
            lines += [f"@pytest.mark.{mark}"] if mark and measured else []
            lines += [f"async def test_{name}({fixture}):", *wait]
            lines += [f"    await app.work({fixture})", ""]
        else:
            lines += [f"def test_{name}():", "    pass", ""]
    return "\n".join(lines)


def write(folder: Path, source: Source, loop: str, tables: int, text: str) -> None:
    """Write the project; its conftest is written for each run, with the database's URL."""
    folder.mkdir(parents=True)
    ini = (
        "[pytest]",
        "pythonpath = .",
        "asyncio_mode = auto",
        f"asyncio_default_test_loop_scope = {loop}",
        f"asyncio_default_fixture_loop_scope = {loop}",
        *source.ini,
    )
    (folder / "pytest.ini").write_text("\n".join(ini) + "\n", encoding="utf-8")
    (folder / "app.py").write_text(models(tables), encoding="utf-8")
    (folder / "test_it.py").write_text(text, encoding="utf-8")
    for name in ("timing", "blind"):
        shutil.copy(Path(__file__).with_name(f"{name}.py"), folder / f"benchmark_{name}.py")
