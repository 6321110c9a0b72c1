"""What the application does with each new connection happens on the plugin's connections as well.

Settings stand for all that listeners of "connect" do: codecs, functions, PRAGMAs. The judge is an
engine of SQLAlchemy with the same listeners; the control is one without.
"""

from __future__ import annotations

import dataclasses

import pytest
from fix_project import Project
from fix_servers import Servers, Target

pytestmark = pytest.mark.everyday("sqlite", "postgres+asyncpg", "mysql+aiomysql")

STRATEGIES = ("rollback", "reset", "copy")

#: For each setting: the statement that sets it to a number, and the one that reads it.
SETTINGS = {
    "sqlite": {
        "a": ("PRAGMA analysis_limit = {}", "SELECT * FROM pragma_analysis_limit"),
        "b": ("PRAGMA cache_size = {}", "SELECT * FROM pragma_cache_size"),
        "c": ("PRAGMA journal_size_limit = {}", "SELECT * FROM pragma_journal_size_limit"),
    },
    "postgres": {
        name: (
            f"SET app.{name} = '{{}}'",
            f"SELECT nullif(current_setting('app.{name}', true), '')",
        )
        for name in "abc"
    },
    "mysql": {name: (f"SET @app_{name} = {{}}", f"SELECT @app_{name}") for name in "abc"},
}
SETTINGS["mariadb"] = SETTINGS["mysql"]

DB = """
from sqlalchemy import event
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

#: What the listeners were given.
heard = []


def setter(name, number, commit=False):
    def connected(connection, record):
        cursor = connection.cursor()
        cursor.execute(SETTINGS[name][0].format(number))
        cursor.close()
        record.info[name] = number
        heard.append((name, connection))
        if commit:
            connection.commit()
    return connected


async def setting(engine, name):
    async with engine.connect() as connection:
        value = (await connection.exec_driver_sql(SETTINGS[name][1])).scalar()
        await connection.rollback()
        again = (await connection.exec_driver_sql(SETTINGS[name][1])).scalar()
        assert again == value
        return None if value is None else int(value)


engine, other = create_async_engine(URL), create_async_engine(URL)
event.listen(engine.sync_engine, "connect", setter("a", 11))
event.listen(engine.sync_engine, "first_connect", setter("b", 12))
event.listen(other.sync_engine, "connect", setter("a", 21))
"""

TESTS = """
from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import create_async_engine
from app import db
from app.db import setter, setting

pytestmark = pytest.mark.asyncdb(isolation=STRATEGY)
NEW = {}


@pytest.fixture
def of_the_class():
    listener = setter("c", 31)
    event.listen(Engine, "connect", listener)
    yield
    event.remove(Engine, "connect", listener)


@pytest.fixture(autouse=True)
def forget():
    db.heard.clear()


async def untouched(engine):
    return [await setting(engine, name) for name in "abc"]


@pytest.mark.asyncdb(isolation="reset")
async def test_a_plain_engine(asyncdb_url):
    engine = create_async_engine(asyncdb_url)
    NEW["abc"] = await untouched(engine)  # the control: an engine without the listeners
    await engine.dispose()
    event.listen(engine.sync_engine, "connect", setter("a", 11, commit=True))
    assert NEW["abc"][0] != 11
    assert await setting(engine, "a") == 11
    await engine.dispose()


@pytest.mark.parametrize("n", range(2))
async def test_an_engine_of_the_application(asyncdb_session, n):
    async with db.Session() as session:
        await add(session, "ada")
        await session.rollback()  # does not undo what the listener has set
    found = [(await setting(db.engine, "a"), await setting(db.engine, "b")) for n in range(3)]
    assert found == [(11, 12)] * 3
    async with db.engine.connect() as connection:
        assert connection.sync_connection.info["a"] == 11
    for name, connection in db.heard:
        assert type(connection).__name__.startswith("AsyncAdapt")
    of_a = [id(connection) for name, connection in db.heard if name == "a"]
    assert len(of_a) == len(set(of_a)), "once for each connection"
    assert bool(db.heard) == (n == 0 or AGAIN)


async def test_a_listener_on_an_engine_that_was_handed_out(asyncdb_engine):
    event.listen(asyncdb_engine.sync_engine, "connect", setter("c", 41))
    assert [await setting(asyncdb_engine, "c") for n in range(3)] == [41] * 3
    assert len([name for name, _ in db.heard if name == "c"]) == 1


async def test_it_ends_with_its_test(asyncdb_engine):
    found = await untouched(asyncdb_engine)
    assert found[2] == NEW["abc"][2]
    if STRATEGY == "rollback":  # one connection stands for all engines
        assert found[1] == 12
    else:
        assert found == NEW["abc"]


async def test_one_that_comes_after_the_first_statement(asyncdb_session, asyncdb_engine):
    await add(asyncdb_session, "ada")
    await asyncdb_session.commit()
    event.listen(asyncdb_engine.sync_engine, "connect", setter("c", 51, commit=True))
    async with asyncdb_engine.connect() as connection:
        assert int((await connection.exec_driver_sql(db.SETTINGS["c"][1])).scalar()) == 51
    assert await setting(asyncdb_engine, "c") == 51
    async with asyncdb_engine.connect() as connection:
        assert connection.sync_connection.info["c"] == 51
    assert await names(asyncdb_session) == ["ada"]


async def test_that_one_ends_as_well(asyncdb_engine):
    assert await setting(asyncdb_engine, "c") == NEW["abc"][2]


async def test_a_listener_on_the_class(of_the_class, asyncdb_connection, asyncdb_session):
    query = db.SETTINGS["c"][1]
    assert int((await asyncdb_connection.exec_driver_sql(query)).scalar()) == 31
    await asyncdb_connection.rollback()
    connection = await asyncdb_session.connection()
    assert int((await connection.exec_driver_sql(query)).scalar()) == 31


async def test_a_statement_of_engine_connect(asyncdb_engine, request):
    def connected(connection):
        connection.exec_driver_sql("SELECT 1")
        seen.append(connection)

    seen = []
    event.listen(asyncdb_engine.sync_engine, "engine_connect", connected)
    connection = request.getfixturevalue("asyncdb_connection")
    assert seen == [connection.sync_connection]
    await connection.rollback()
    assert await setting(asyncdb_engine, "c") == NEW["abc"][2]  # not that of the class


async def test_a_listener_that_fails(asyncdb_engine):
    for kind in (LookupError, AttributeError):
        def fail(connection, record):
            raise kind("no such codec")

        event.listen(asyncdb_engine.sync_engine, "connect", fail)
        with pytest.raises(kind, match="no such codec"):
            await setting(asyncdb_engine, "a")
        event.remove(asyncdb_engine.sync_engine, "connect", fail)
        await setting(asyncdb_engine, "a")


EXTRA = setter("c", 61)


async def test_what_a_test_adds_to_an_engine_of_the_application(asyncdb_engine):
    event.listen(db.engine.sync_engine, "connect", EXTRA)
    assert await setting(db.engine, "c") == 61


async def test_it_stays_there(asyncdb_engine):
    try:
        assert await setting(db.engine, "c") == 61
        await db.engine.dispose()
        assert await setting(db.engine, "c") == 61
    finally:
        event.remove(db.engine.sync_engine, "connect", EXTRA)


async def test_checkouts(asyncdb_engine):
    def checked_out(connection, record, proxy):
        cursor = connection.cursor()
        cursor.execute(db.SETTINGS["a"][1])
        seen.append(("checkout", int(cursor.fetchone()[0]), record.info["a"]))
        cursor.close()

    def checked_in(connection, record):
        seen.append("checkin")

    seen = []
    engine = db.engine.sync_engine
    event.listen(engine, "checkout", checked_out)
    event.listen(engine, "checkin", checked_in)
    try:
        for n in range(2):
            async with db.engine.connect():
                pass
    finally:
        event.remove(engine, "checkout", checked_out)
        event.remove(engine, "checkin", checked_in)
    assert seen == [("checkout", 11, 11), "checkin"] * 2


async def test_checkouts_in_threads(asyncdb_engine):
    # One runs the listeners and begins the transaction, while others look for what these left.
    def checked_out(connection, record, proxy):
        assert record.info["a"] == 11

    event.listen(asyncdb_engine.sync_engine, "connect", setter("a", 11))
    event.listen(asyncdb_engine.sync_engine, "checkout", checked_out)
    work = [asyncio.to_thread(asyncio.run, setting(asyncdb_engine, "a")) for n in range(4)]
    assert await asyncio.gather(*work) == [11] * 4
"""


def url_of(target: Target) -> str:
    """The URL of an application's engine for that DBMS and driver, at which nothing answers."""
    if target.server is None:
        return "sqlite+aiosqlite:////nowhere/app.db"
    return target.server.set(host="127.0.0.1", port=1).render_as_string(hide_password=False)


def is_reset(target: Target, strategy: str) -> bool:
    """Does the end of a test reset what listeners have set? A rollback keeps it on PostgreSQL."""
    on_every_server = target.backend != "sqlite" and strategy != "rollback"
    return on_every_server or target.backend in ("mysql", "mariadb")


def application(project: Project, target: Target, *more: str, named: str = "app.db:engine") -> None:
    given = f"SETTINGS, URL = {SETTINGS[target.backend]!r}, {url_of(target)!r}\n"
    project.write("app/db.py", "\n".join([given, DB, *more]))
    project.ini(asyncdb_app_engines=named)


@pytest.mark.parametrize(
    "strategy", ["rollback", "reset", pytest.param("copy", marks=pytest.mark.complete)]
)
def test_listeners_run_once_on_each_connection(
    project: Project, target: Target, strategy: str
) -> None:
    """Of the application's engines, of the test's engine and of all; outside of the test's
    transaction, and again where the session of a kept connection was reset."""
    application(project, target, "Session = async_sessionmaker(engine)")
    again = is_reset(target, strategy)
    project.tests(f"STRATEGY, AGAIN = {strategy!r}, {again!r}", TESTS)
    project.run(target).passed(TESTS.count("async def test_") + 1)


def test_each_engine_has_its_own_listeners(project: Project, target: Target) -> None:
    """Except in ``rollback``, where one connection stands for all: both have run on it."""
    application(project, target, named="app.db:engine, app.db:other")
    project.tests(
        """
        from app import db

        async def found():
            return [await db.setting(one, "a") for one in (db.engine, db.other) * 2]

        @pytest.mark.asyncdb(isolation="rollback")
        async def test_rollback():
            assert await found() == [21] * 4

        @pytest.mark.asyncdb(isolation="reset")
        @pytest.mark.parametrize("n", range(2))
        async def test_reset(n):
            db.heard.clear()
            assert await found() == [11, 21] * 2
            assert len(db.heard) == (3 if AGAIN or n == 0 else 0)
        """,
        f"AGAIN = {is_reset(target, 'reset')}",
    )
    project.run(target).passed(3)


@pytest.mark.everyday("sqlite")
def test_listeners_in_the_options_of_the_engine(project: Project, target: Target) -> None:
    """On every connection of the plugin, also that which builds the schema."""
    application(project, target, named="app.db:engine, app.db:other")
    project.tests(
        """
        from app import db

        LISTENERS = [(db.setter("c", 71), "connect"), (lambda *_: SEEN.append(1), "checkout")]
        SEEN = []

        @pytest.fixture(scope="session")
        def asyncdb_engine_options():
            return {"pool_events": LISTENERS}

        @pytest.fixture(scope="session")
        def asyncdb_seed():
            async def seed(session):
                connection = await session.connection()
                found = await connection.exec_driver_sql(db.SETTINGS["c"][1])
                assert int(found.scalar()) == 71
            return seed

        @pytest.mark.parametrize(
            "strategy",
            [pytest.param(one, marks=pytest.mark.asyncdb(isolation=one)) for one in STRATEGIES],
        )
        async def test_it(asyncdb_connection, asyncdb_session, strategy):
            found = await asyncdb_connection.exec_driver_sql(db.SETTINGS["c"][1])
            assert int(found.scalar()) == 71
            await asyncdb_connection.rollback()
            SEEN.clear()
            assert [await db.setting(one, "c") for one in (db.engine, db.other)] == [71, 71]
            assert await names(asyncdb_session) == []
            assert SEEN == [1]
        """.replace("STRATEGIES", repr(STRATEGIES)),
    )
    project.run(target).passed(3)


@pytest.mark.everyday("postgres+asyncpg")
@pytest.mark.parametrize("target", ["postgres+asyncpg"], indirect=True, ids=["postgres-asyncpg"])
def test_a_codec_of_asyncpg(project: Project, target: Target) -> None:
    """``run_async`` has the driver's own connection; the naive recipe is an engine without it."""
    application(
        project,
        target,
        """
        import json

        def decode(text):
            return ["decoded", json.loads(text)]

        @event.listens_for(engine.sync_engine, "connect")
        def codec(connection, record):
            connection.run_async(
                lambda driver: driver.set_type_codec(
                    "json", encoder=json.dumps, decoder=decode, schema="pg_catalog"
                )
            )
        """.replace("\n        ", "\n"),
    )
    project.tests(
        """
        from sqlalchemy.ext.asyncio import create_async_engine
        from app import db

        QUERY = "SELECT '[1]'::json AS value"

        async def fetched(engine):
            async with engine.connect() as connection:
                raw = await connection.get_raw_connection()
                return await raw.driver_connection.fetchval(QUERY)

        @pytest.mark.parametrize(
            "strategy",
            [pytest.param(one, marks=pytest.mark.asyncdb(isolation=one)) for one in STRATEGIES],
        )
        async def test_it(asyncdb_url, strategy):
            assert await fetched(db.engine) == ["decoded", [1]]
            naive = create_async_engine(asyncdb_url)
            assert await fetched(naive) == [1]
            await naive.dispose()
        """.replace("STRATEGIES", repr(STRATEGIES)),
    )
    project.run(target).passed(3)


def test_listeners_of_another_dbms_do_not_run(project: Project, servers: Servers) -> None:
    """They would not work: an application for PostgreSQL, tested on SQLite as well."""
    project.write(
        "app/db.py",
        """
        from sqlalchemy import event
        from sqlalchemy.ext.asyncio import create_async_engine

        engine = create_async_engine("postgresql+asyncpg://app:secret@127.0.0.1:1/app")

        @event.listens_for(engine.sync_engine, "connect")
        def connected(connection, record):
            connection.run_async(lambda driver: driver.set_type_codec("json"))
        """,
    )
    project.ini(asyncdb_app_engines="app.db:engine")
    project.tests(
        """
        from app import db

        async def test_it(asyncdb_session):
            async with db.engine.connect() as connection:
                assert await names(connection) == []
        """
    )
    project.run(servers.target("sqlite")).passed(1)


def test_a_listener_of_all_engines_that_a_server_refuses_is_told_at_once(
    project: Project, servers: Servers
) -> None:
    """The server has answered; to ask it for half a minute would not help."""
    servers.need("postgres", "local")
    project.write(
        "conftest.py",
        """
        from sqlalchemy import Engine, event

        @event.listens_for(Engine, "connect")
        def pragmas(connection, record):
            cursor = connection.cursor()
            cursor.execute("PRAGMA foreign_keys = ON")
            cursor.close()
        """,
    )
    project.tests("async def test_it(asyncdb_session): pass")
    target = dataclasses.replace(servers.target("sqlite"), word="postgres+asyncpg")
    outcome = project.run_apart(target, "--asyncdb-server=local", timeout=25)
    outcome.result.assert_outcomes(errors=1)
    assert "it refused a statement, perhaps of a listener on the class Engine; " in outcome.text
    assert 'ProgrammingError: syntax error at or near "PRAGMA"' in outcome.text


@pytest.mark.everyday("sqlite", "postgres+asyncpg", "postgres+psycopg")
def test_the_first_use_is_of_the_connection_of_the_first_statement(
    project: Project, target: Target
) -> None:
    """A test before had another listener, so the connection is replaced: before a listener reads
    the driver's cursor, and before the driver's own connection is used."""
    application(project, target, named="app.db:engine, app.db:other")
    project.tests(
        """
        from sqlalchemy import event
        from sqlalchemy.ext.asyncio import create_async_engine
        from app.db import setter, setting

        @pytest.fixture(params=["plain", "rollback"])
        async def engine(request):
            if request.param == "rollback":
                yield request.getfixturevalue("asyncdb_engine")
                return
            engine = create_async_engine(request.getfixturevalue("asyncdb_url"))
            yield engine
            await engine.dispose()

        async def read_cursor(engine):
            def read(connection, cursor, *_):
                getattr(cursor, "connection", None)  # aiosqlite's and asyncpg's have none

            event.listen(engine.sync_engine, "before_cursor_execute", read)

        async def use_driver(engine):
            async with engine.connect() as connection:
                driver = (await connection.get_raw_connection()).driver_connection
                send = driver.execute if hasattr(driver, "execute") else driver.query
                await send("SELECT 1")

        @pytest.mark.parametrize("has_listener", [True, False])
        @pytest.mark.parametrize("use", [read_cursor, use_driver])
        async def test_a(engine, use, has_listener):
            if has_listener:
                event.listen(engine.sync_engine, "connect", setter("c", 41, commit=True))
            else:
                await use(engine)
            assert (await setting(engine, "c") == 41) is has_listener
        """,
    )
    project.run(target).passed(8)
