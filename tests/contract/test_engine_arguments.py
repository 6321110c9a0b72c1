"""What an engine of the application was made with, and its listeners, hold in a test as well.

The judge is a plain engine with the same arguments and listeners on the same database.
"""

from __future__ import annotations

import pytest
from fix_project import Project
from fix_servers import WORDS, Servers, Target

pytestmark = pytest.mark.everyday("sqlite", "postgres+asyncpg", "postgres+psycopg", "mysql+asyncmy")

DB = """
import json
from decimal import Decimal
from functools import partial

from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

heard = []


class Translated(Exception):
    pass


def translate(context):
    heard.append(type(context.sqlalchemy_exception).__name__)
    return Translated()


def make(url, level):
    made = create_async_engine(
        url,
        isolation_level=level,
        poolclass=AsyncAdaptedQueuePool,  # not the default for a file before SQLAlchemy 2.0.38
        json_serializer=partial(json.dumps, default=float),
        json_deserializer=partial(json.loads, parse_float=Decimal),
    )
    event.listen(made.sync_engine, "handle_error", translate)
    return made


engine = make(URL, None)
serializable = make(URL, "SERIALIZABLE")
autocommit = make(URL, "AUTOCOMMIT")
"""

USES = """
from decimal import Decimal

from sqlalchemy import JSON, event, literal

from app import db

reset = pytest.mark.asyncdb(isolation="reset")
HOW = [
    pytest.param("plain", marks=reset),
    pytest.param("redirected"),
    pytest.param("redirected", marks=reset),
]


@pytest.fixture
async def engine(how, asyncdb_url):
    made = db.make(asyncdb_url, None) if how == "plain" else db.engine
    yield made
    await made.dispose()


@pytest.mark.parametrize("how", HOW)
async def test_listeners_of_handle_error(engine):
    db.heard.clear()
    async with engine.connect() as connection:
        with pytest.raises(db.Translated):
            await connection.execute(text("SELECT nothing FROM nowhere"))
    assert len(db.heard) == 1


@pytest.mark.parametrize("how", HOW)
async def test_json(engine, asyncdb_session):
    value = {"number": Decimal("1.5")}
    async with engine.connect() as connection:
        assert await connection.scalar(select(literal(value, JSON))) == value
    assert await asyncdb_session.scalar(select(literal(value, JSON))) == value


@pytest.mark.parametrize("how", HOW)
async def test_the_info_of_a_connection(engine):
    def infos(*connections):
        return [dict(one.sync_connection.info) for one in connections]

    async with engine.connect() as outer:
        outer.sync_connection.info["of"] = "outer"
        async with engine.connect() as inner:
            assert infos(inner) == [{}]
            inner.sync_connection.info["of"] = "inner"
    async with engine.connect() as one, engine.connect() as other:
        assert sorted(map(str, infos(one, other))) == ["{'of': 'inner'}", "{'of': 'outer'}"]
        await one.invalidate()
    await engine.dispose()
    async with engine.connect() as connection:
        assert infos(connection) == [{}]


@reset
async def test_the_isolation_level(asyncdb_url):
    plain = db.make(asyncdb_url, "SERIALIZABLE")
    levels = []
    for one in (plain, db.serializable):
        async with one.connect() as connection:
            levels.append(await connection.get_isolation_level())
    await plain.dispose()
    assert levels == ["SERIALIZABLE", "SERIALIZABLE"]


async def test_a_derived_engine_has_another_level(asyncdb_url):
    level = db.engine.dialect.default_isolation_level
    async with db.autocommit.execution_options(isolation_level=level).connect() as connection:
        await connection.execute(insert(User).values(name="never"))
        await connection.rollback()
        assert (await connection.execute(select(User))).all() == []
"""

#: An argument of the drivers; a level of SQLAlchemy overrides it.
DRIVERS_AUTOCOMMIT = """
from sqlalchemy.ext.asyncio import create_async_engine

OPTIONS = {"connect_args": {"autocommit": True}, **LEVEL}
KEPT = [] if LEVEL else ["ada"]


@pytest.fixture(scope="session")
def asyncdb_engine_options():
    return OPTIONS


async def check(engine):
    async with engine.connect() as connection:
        await add(connection, "ada")
        await connection.rollback()
        assert await names(connection) == KEPT


@pytest.mark.asyncdb(isolation="reset")
async def test_plain(asyncdb_url):
    engine = create_async_engine(asyncdb_url, **OPTIONS)
    await check(engine)
    await engine.dispose()


async def test_rollback(asyncdb_engine):
    await check(asyncdb_engine)


@pytest.mark.asyncdb(isolation="reset")
async def test_reset(asyncdb_engine):
    await check(asyncdb_engine)


async def test_next(asyncdb_session):
    assert await names(asyncdb_session) == []
"""

READ_ONLY = """
@pytest.mark.parametrize("how", HOW)
async def test_an_engine_that_only_reads(engine):
    reader = engine.execution_options(postgresql_readonly=True)
    async with reader.connect() as connection:
        with pytest.raises(db.Translated):
            await connection.execute(insert(User).values(name="never"))
"""

NEXT = """
heard = []


async def fail(engine):
    async with engine.connect() as connection:
        with pytest.raises(Exception):
            await connection.execute(text("SELECT nothing FROM nowhere"))


async def test_first(asyncdb_engine):
    event.listen(asyncdb_engine.sync_engine, "handle_error", lambda context: heard.append("test"))
    event.listen(db.engine.sync_engine, "handle_error", lambda context: heard.append("engine"))
    for one in (asyncdb_engine, db.engine):
        await fail(one)
    assert heard == ["test", "engine"]
    async with db.engine.connect() as connection:
        connection.sync_connection.info["of"] = "the first test"
    for one in (db.autocommit, db.serializable):
        async with one.connect() as connection:
            await connection.execute(text("SELECT 1"))


async def test_next(asyncdb_engine):
    heard.clear()
    for one in (asyncdb_engine, db.engine):
        await fail(one)
    assert heard == ["engine"]
    async with asyncdb_engine.connect() as connection:
        level = await connection.get_isolation_level()
        assert level != "SERIALIZABLE" or asyncdb_engine.name == "sqlite"
        await connection.execute(insert(User).values(name="never"))
        await connection.rollback()
        assert (await connection.execute(select(User))).all() == []
    async with db.engine.connect() as connection:
        assert connection.sync_connection.info == {}
"""


@pytest.fixture
def app(project: Project, target: Target) -> Project:
    dialect = {"postgres": "postgresql"}.get(target.backend, target.backend)
    host = "/nowhere/app.db" if target.server is None else "app:secret@127.0.0.1:1/app"
    project.write("app/db.py", f"URL = '{dialect}+{target.driver}://{host}'\n{DB}")
    project.ini(asyncdb_app_engines="app.db:engine, app.db:serializable, app.db:autocommit")
    return project


def test_a_redirected_engine_behaves_as_a_plain_one(app: Project, target: Target) -> None:
    reads = target.backend == "postgres"
    app.tests(USES, READ_ONLY if reads else "")
    app.run(target).passed(14 if reads else 11)


@pytest.mark.parametrize("isolation", ["rollback", "reset"])
def test_the_next_test_has_nothing_of_it(app: Project, target: Target, isolation: str) -> None:
    app.ini(asyncdb_isolation=isolation)
    app.tests("from sqlalchemy import event\nfrom app import db\n", NEXT)
    app.run(target).passed(2)


@pytest.mark.everyday("postgres+psycopg", "mysql+asyncmy")
@pytest.mark.parametrize("level", [{}, {"isolation_level": "READ COMMITTED"}])
@pytest.mark.parametrize("word", WORDS[2:])
def test_the_drivers_argument_autocommit(
    project: Project, servers: Servers, word: str, level: dict[str, str]
) -> None:
    project.tests(f"LEVEL = {level!r}", DRIVERS_AUTOCOMMIT)
    project.run(servers.target(word)).passed(4)
