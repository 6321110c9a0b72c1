"""Two-phase transactions that a test has prepared and forgotten, in ``reset`` and ``copy``."""

from __future__ import annotations

import os
import re
import time

import pytest
from fix_project import Project
from fix_servers import PREPARES_BY_CALL, WORDS, Servers, Target

pytestmark = pytest.mark.everyday("mysql+aiomysql", "mariadb+asyncmy")

POSTGRES = [word for word in WORDS if word.startswith("postgres")]

#: MySQL drops no such database.
READ_ONLY = """
@pytest.mark.parametrize("how", [
    pytest.param(how, marks=pytest.mark.asyncdb(isolation=how)) for how in ("reset", "copy")
])
async def test_read_only(asyncdb_session, how):
    await asyncdb_session.execute(text("ALTER DATABASE READ ONLY = 1"))
"""

TESTS = """
each = pytest.mark.parametrize("how", [
    pytest.param(how, marks=pytest.mark.asyncdb(isolation=how)) for how in ("reset", "copy")
])


def prepare(sync):
    transaction = sync.begin_twophase()
    sync.execute(insert(User).values(name="ada"))
    transaction.prepare()
    return transaction


@each
async def test_committed(asyncdb_engine, how):
    async with asyncdb_engine.connect() as connection:
        await connection.run_sync(lambda sync: prepare(sync).commit())


@each
async def test_connection_lost(asyncdb_engine, how):
    async with asyncdb_engine.connect() as connection:
        await connection.run_sync(prepare)
        await connection.invalidate()


@each
async def test_forgotten(asyncdb_engine, how):
    KEPT.append(connection := await asyncdb_engine.connect())
    await connection.run_sync(prepare)


@each
async def test_as_text(asyncdb_engine, how):
    async with asyncdb_engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        for statement in TEXTS:
            await connection.exec_driver_sql(statement)
        await connection.invalidate()


@each
async def test_next(asyncdb_session, how):
    assert await names(asyncdb_session) == []
    await add(asyncdb_session, "next")
    await asyncdb_session.commit()


KEPT = []
"""


@pytest.mark.everyday("mariadb+asyncmy")
@pytest.mark.parametrize("word", [w for w in WORDS if w.startswith(("mysql", "mariadb"))])
def test_prepared_xa_transactions_are_rolled_back_and_reported(
    project: Project, servers: Servers, word: str
) -> None:
    """In seconds; another one on the server, also of the same name but for a part, stays."""
    target = servers.target(word)
    look = target.observer
    mine, foreign = f"'it''s {os.getpid()}','b',7", f"'foreign {os.getpid()}'"
    texts = [
        f"xa  start {mine}",
        "INSERT INTO users (name) VALUES ('ada')",
        f"XA END {mine}",
        f" xa prepare {mine};",
    ]
    read_only = READ_ONLY if target.backend == "mysql" else ""
    project.tests(read_only + TESTS, f"TEXTS = {texts!r}")
    database = f"xa_control_{os.getpid()}"
    look.query(f"CREATE DATABASE {database}")
    try:
        _prepare(target, database, foreign)
        before = time.monotonic()
        outcome = project.run(target).had(passed=12 if read_only else 10, errors=6)
        assert time.monotonic() - before < 30
        left = {bytes(row[3]) if isinstance(row[3], bytes) else row[3].encode()
                for row in look.query("XA RECOVER")}  # fmt: skip
        # Another worker's test may use the server at the same time.
        prepared = {f"it's {os.getpid()}b", *re.findall(r"_sa_\w+", outcome.text)}
        assert len(prepared) == 5
        assert foreign.strip("'").encode() in left
        assert not left & {name.encode() for name in prepared}
        # Control: the same for a database that the plugin does not know.
        with pytest.raises(Exception, match="Lock wait timeout"):
            look.query(f"DROP DATABASE {database}")
    finally:
        look.query(f"XA ROLLBACK {foreign}")
        look.query(f"DROP DATABASE {database}")
    outcome.shows(
        f"""
        the test left a connection in a transaction; it was ended

        test: test_it.py::test_as_text[{target.id}-reset]
        connection that is gone: xa prepare {mine}

        To fix this: commit, roll back or close every connection of a test, and end its processes
        """
    )


def _prepare(target: Target, database: str, xid: str) -> None:
    connection = target.observer.connect(database)
    cursor = connection.cursor()
    for statement in (
        "CREATE TABLE t (id INT PRIMARY KEY)",
        f"XA START {xid}",
        "INSERT INTO t VALUES (1)",
        f"XA END {xid}",
        f"XA PREPARE {xid}",
    ):
        cursor.execute(statement)
    connection.close()


@pytest.mark.everyday("postgres+psycopg")
@pytest.mark.parametrize("word", POSTGRES)
def test_an_invalidated_connection_is_not_used_again(
    project: Project, servers: Servers, word: str
) -> None:
    """SQLAlchemy's dialect for psycopg only closes it, and psycopg refuses ``commit()`` on a connection
    that has prepared a transaction by a call."""
    target = servers.two_phase_target(word)
    project.tests(
        """
        each = pytest.mark.parametrize("how", [
            pytest.param(how, marks=pytest.mark.asyncdb(isolation=how)) for how in ("reset", "copy")
        ])

        @each
        async def test_it(asyncdb_engine, how):
            async with asyncdb_engine.connect() as connection:
                await connection.execute(text("CREATE TEMP TABLE mine (id int)"))
                await connection.commit()
                transaction = await connection.run_sync(lambda sync: sync.begin_twophase())
                await connection.execute(insert(User).values(name="ada"))
                await connection.run_sync(lambda sync: transaction.prepare())
                await connection.invalidate()
            async with asyncdb_engine.connect() as connection:
                assert await connection.scalar(text("SELECT to_regclass('mine')")) is None
                await connection.commit()

        @each
        async def test_next(asyncdb_session, how):
            await add(asyncdb_session, "next")
            await asyncdb_session.commit()
        """
    )
    # A copy that is dropped need not say what psycopg has prepared by a call.
    told = 1 if target.driver == "psycopg" and PREPARES_BY_CALL else 2
    project.run(target).result.assert_outcomes(passed=4, errors=told)


def test_a_statement_of_two_phases_that_fails_says_why(project: Project, servers: Servers) -> None:
    """Its parameters cannot be put into it; the connection goes on."""
    project.tests(
        """
        @pytest.mark.asyncdb(isolation="reset")
        async def test_it(asyncdb_engine):
            async with asyncdb_engine.connect() as connection:
                with pytest.raises(DBAPIError, match="syntax error"):
                    await connection.exec_driver_sql("ROLLBACK PREPARED $1", ("x",))
                await connection.rollback()
                assert await connection.scalar(select(1)) == 1
        """
    )
    project.run(servers.target("postgres+asyncpg")).passed(1)


@pytest.mark.everyday("postgres+asyncpg")
@pytest.mark.parametrize("word", POSTGRES)
def test_a_copy_that_postgres_does_not_drop_is_made_free(
    project: Project, servers: Servers, word: str
) -> None:
    """A prepared transaction, a subscription, or that it is a template."""
    target = servers.two_phase_target(word)
    project.tests(
        """
        @pytest.mark.asyncdb(isolation="copy")
        async def test_it(asyncdb_engine):
            async with asyncdb_engine.connect() as connection:
                transaction = await connection.run_sync(lambda sync: sync.begin_twophase())
                await connection.execute(insert(User).values(name="ada"))
                await connection.run_sync(lambda sync: transaction.prepare())
                await connection.invalidate()

        @pytest.mark.asyncdb(isolation="copy")
        async def test_others(asyncdb_engine):
            name = asyncdb_engine.url.database
            async with asyncdb_engine.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                await connection.execute(text(f'ALTER DATABASE "{name}" IS_TEMPLATE true'))
                await connection.execute(text(
                    "CREATE SUBSCRIPTION s CONNECTION 'dbname=none' PUBLICATION p WITH (connect = false)"
                ))
        """
    )
    # psycopg prepares by a call, and not by a statement.
    outcome = project.run(target)
    outcome.result.assert_outcomes(passed=2, errors=int(target.driver == "asyncpg"))
