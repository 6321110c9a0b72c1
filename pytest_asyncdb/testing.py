"""The contract of backends and server providers, for the tests of their authors::

    from pytest_asyncdb.testing import BackendContract


    class TestContract(BackendContract):
        pass

Run it with ``pytest --asyncdb=BACKEND``, once for each driver and provider. It needs no plugin for
async tests. Each test runs twice in every strategy. It first checks that it finds the template's
state, then it changes what it can. If a DBMS cannot keep a promise, leave that test out:
``test_streams = None``.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from pytest_asyncdb._run.handle import Asyncdb

__all__ = ["BackendContract"]

METADATA = sa.MetaData()
ROWS = sa.Table(
    "contract_rows",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(40), nullable=False, unique=True),
    sa.Column("number", sa.Integer, nullable=False, server_default="5"),
)
#: A table that refers to the other one, with names that must be quoted.
ODD = sa.Table(
    'the "odd" %s',
    METADATA,
    sa.Column(
        "its 'key' %", sa.Integer, sa.ForeignKey(ROWS.c.id), primary_key=True, autoincrement=False
    ),
)
NUMBERS = sa.Table(
    "contract_numbers", METADATA, sa.Column("id", sa.Integer, primary_key=True, autoincrement=False)
)
#: The schema of an application after a change.
CHANGED = sa.MetaData()
sa.Table(ROWS.name, CHANGED, sa.Column("changed", sa.Integer))
SEEDED = ["it's", "50 %", '"ä"']
COUNT = 30
#: Seconds after which a statement counts as hanging.
PATIENCE = 15.0

Case = Callable[[Any, Asyncdb, str], Awaitable[None]]


async def seed(session: AsyncSession) -> dict[str, int]:
    for name in SEEDED:
        await session.execute(sa.insert(ROWS).values(name=name))
    ids = {name: key for key, name in await session.execute(sa.select(ROWS.c.id, ROWS.c.name))}
    await session.execute(sa.insert(ODD).values([ids[SEEDED[0]]]))
    await session.execute(sa.insert(NUMBERS), [{"id": number} for number in range(COUNT)])
    return ids


def case(test: Case) -> Callable[..., None]:
    """Make a test run in every strategy, twice, on a new event loop."""

    @pytest.mark.parametrize("time", ["first", "again"])
    @pytest.mark.parametrize(
        "strategy",
        [
            pytest.param(name, marks=pytest.mark.asyncdb(isolation=name))
            for name in ("rollback", "reset", "copy")
        ],
    )
    def run(self: Any, asyncdb: Asyncdb, strategy: str, time: str) -> None:
        async def check() -> None:
            await check_clean(asyncdb)
            await test(self, asyncdb, strategy)

        asyncio.run(check())

    run.__doc__ = test.__doc__
    return run  # type: ignore[no-any-return]


async def check_clean(asyncdb: Asyncdb) -> None:
    """Check that the database equals its template."""
    async with asyncdb.sessionmaker() as session:
        connection = await session.connection()
        tables = await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names())
        assert {*tables} == {*METADATA.tables}
        found = (await session.execute(sa.select(ROWS).order_by(ROWS.c.id))).all()
        assert [(row.name, row.number) for row in found] == [(name, 5) for name in SEEDED]
        assert asyncdb.seeded == {row.name: row.id for row in found}
        assert (await session.scalars(sa.select(ODD))).all() == [found[0].id]
        assert await session.scalar(sa.select(sa.func.count()).select_from(NUMBERS)) == COUNT


def product(factors: int) -> Any:
    """Return the numbers joined with themselves, which are many rows."""
    joined: Any = (first := NUMBERS.alias("n1"))
    for number in range(2, factors + 1):
        other = NUMBERS.alias(f"n{number}")
        joined = joined.join(other, other.c.id + COUNT > first.c.id)
    return joined


async def names(session: AsyncSession) -> set[str]:
    return {*await session.scalars(sa.select(ROWS.c.name))} - {*SEEDED}


async def add(session: Any, *new: str) -> None:
    for name in new:
        await session.execute(sa.insert(ROWS).values(name=name))


class BackendContract:
    """The promises of a backend, a driver or a server provider; see the module."""

    #: A statement that creates the table ``contract_left``, which ends with its session; None: the
    #: DBMS has no such tables.
    temporary_table: ClassVar[str | None] = "CREATE TEMPORARY TABLE contract_left (id INTEGER)"

    @pytest.fixture
    def asyncdb_metadata(self) -> sa.MetaData:
        return METADATA

    @pytest.fixture
    def asyncdb_migrate(self) -> None:
        return None

    @pytest.fixture
    def asyncdb_seed(self) -> Any:
        return seed

    @case
    async def test_commits(self, asyncdb: Asyncdb, strategy: str) -> None:
        """Rows are restored after they were committed, changed, deleted or rolled back."""
        sys.stdout.write(f"database: {asyncdb.engine.url.database}\n")
        async with asyncdb.sessionmaker() as session:
            await add(session, "new")
            await session.execute(sa.update(ROWS).where(ROWS.c.name == SEEDED[1]).values(number=6))
            await session.execute(sa.delete(ODD))
            await session.commit()
            await add(session, "undone")
            await session.rollback()
            assert await names(session) == {"new"}
        async with asyncdb.sessionmaker() as other:
            assert await names(other) == {"new"}
            assert await other.scalar(sa.select(sa.func.sum(ROWS.c.number))) == 21
            await add(other, "left open")

    @case
    async def test_definitions(self, asyncdb: Asyncdb, strategy: str) -> None:
        """Tables are restored after they were created and dropped."""
        if strategy == "rollback" and not asyncdb.backend.capabilities.transactional_ddl:
            pytest.skip("DDL commits on this backend")
        more = sa.Table(
            "contract_more", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True)
        )
        async with asyncdb.engine.begin() as connection:
            await connection.run_sync(more.create)
            await connection.run_sync(ODD.drop)
            await connection.execute(sa.insert(more).values(id=1))
        async with asyncdb.engine.connect() as connection:
            assert await connection.scalar(sa.select(more.c.id)) == 1

    @case
    async def test_sessions_end_clean(self, asyncdb: Asyncdb, strategy: str) -> None:
        """Objects that belong to a session, such as a temporary table, do not stay."""
        if self.temporary_table is not None:
            async with asyncdb.engine.begin() as connection:
                await connection.exec_driver_sql(self.temporary_table)
                await connection.exec_driver_sql("INSERT INTO contract_left VALUES (1)")

    @case
    async def test_two_sessions(self, asyncdb: Asyncdb, strategy: str) -> None:
        """Each session sees what the other has committed. Real connections see nothing else."""
        several = asyncdb.backend.capabilities.several_connections
        async with asyncdb.sessionmaker() as one, asyncdb.sessionmaker() as two:
            await add(one, "new")
            if strategy != "rollback" and several:
                assert await names(two) == set()
                await two.rollback()
            await one.commit()
            assert await names(two) == {"new"}
            await two.execute(sa.delete(ROWS).where(ROWS.c.name == "new"))
            await two.commit()
            assert await names(one) == set()

    @case
    async def test_savepoints(self, asyncdb: Asyncdb, strategy: str) -> None:
        """Savepoints nest. The rollback of one undoes its own work only."""
        async with asyncdb.sessionmaker() as session:
            await add(session, "a")
            async with session.begin_nested():
                await add(session, "b")
                inner = await session.begin_nested()
                await add(session, "undone")
                await inner.rollback()
                await add(session, "c")
            outer = await session.begin_nested()
            async with session.begin_nested():
                await add(session, "undone")
            await outer.rollback()
            await session.commit()
            assert await names(session) == {"a", "b", "c"}

    @case
    async def test_errors(self, asyncdb: Asyncdb, strategy: str) -> None:
        """Constraints are those of the schema. After an error the work goes on."""
        async with asyncdb.sessionmaker() as session:
            await add(session, "a")
            with pytest.raises(IntegrityError):
                async with session.begin_nested():
                    await add(session, SEEDED[0])
            await session.commit()
            with pytest.raises(IntegrityError):
                await session.execute(sa.insert(ODD).values([12345]))
            await session.rollback()
            await add(session, "b")
            await session.commit()
            assert await names(session) == {"a", "b"}

    @case
    async def test_cancellation(self, asyncdb: Asyncdb, strategy: str) -> None:
        """A statement ends on the server when its task is cancelled. Other statements can
        follow."""
        slow: Any = sa.select(sa.func.sum(sa.literal_column("n1.id + n9.id"))).select_from(
            product(9)
        )
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(TimeoutError):
                async with asyncdb.engine.connect() as connection, asyncio.timeout(0.2):
                    await connection.execute(slow)
            async with asyncdb.sessionmaker() as session:
                await add(session, "after")
                await session.commit()
                assert await names(session) == {"after"}

    @case
    async def test_streams(self, asyncdb: Asyncdb, strategy: str) -> None:
        """All rows arrive, even if another session runs a statement meanwhile."""
        query: Any = sa.select(sa.literal_column("n1.id")).select_from(product(2))
        async with asyncdb.engine.connect() as connection, asyncdb.sessionmaker() as session:
            rows = 0
            async for _ in await connection.stream(query, execution_options={"yield_per": 7}):
                rows += 1
                if rows == 10:
                    assert await names(session) == set()
        assert rows == COUNT * COUNT

    @case
    async def test_locks(self, asyncdb: Asyncdb, strategy: str) -> None:
        """The wait for a lock ends with an error that the backend knows."""
        if strategy == "rollback" or not asyncdb.backend.capabilities.several_connections:
            pytest.skip("there is one connection")
        statement = sa.update(ROWS).where(ROWS.c.name == SEEDED[0]).values(number=6)
        async with asyncio.timeout(PATIENCE), asyncdb.connections(2, lock_timeout=1) as (one, two):
            await one.execute(statement)
            with pytest.raises(DBAPIError) as caught:
                await two.execute(statement)
        run, spec, error = asyncdb._run, asyncdb.backend.spec, caught.value.orig or caught.value
        assert run.driver(spec).error_code(error) in run.backend(spec).lock_timeout_codes

    @case
    async def test_checkpoints_and_changes(self, asyncdb: Asyncdb, strategy: str) -> None:
        """A checkpoint undoes what was committed. ``changes()`` reports what is left."""
        for _ in range(2):
            async with asyncdb.checkpoint(), asyncdb.sessionmaker() as session:
                await add(session, "undone")
                await session.commit()
        async with asyncdb.sessionmaker() as session:
            await add(session, "new")
            await session.commit()
        (row,) = (await asyncdb.changes())["contract_rows"].inserted
        assert row["name"] == "new"

    @case
    async def test_sync_code(self, asyncdb: Asyncdb, strategy: str) -> None:
        """Sync code shares the database with async code, also in a thread."""

        def work() -> None:
            with asyncdb.sync_engine.begin() as connection:
                connection.execute(sa.insert(ROWS).values(name="from a thread"))

        await asyncio.to_thread(work)
        async with asyncdb.sessionmaker() as session:
            assert await names(session) == {"from a thread"}

    @pytest.mark.asyncdb(reset_sequences=True)
    @case
    async def test_ids(self, asyncdb: Asyncdb, strategy: str) -> None:
        """Ids start again where those of the seed have ended."""
        async with asyncdb.sessionmaker() as session:
            await add(session, "new")
            await session.commit()
            new = await session.scalar(sa.select(ROWS.c.id).where(ROWS.c.name == "new"))
        assert new == max(asyncdb.seeded.values()) + 1

    @pytest.mark.asyncdb(schema=False, isolation="copy")
    def test_an_empty_database(self, asyncdb: Asyncdb) -> None:
        """A database without a schema has no tables. The server has a version, the client a
        command."""
        assert sa.inspect(asyncdb.sync_engine).get_table_names() == []
        assert re.match(r"\d", asyncdb.backend.version)
        run, spec = asyncdb._run, asyncdb.backend.spec
        server, name = run.server(spec), asyncdb.url.database or ""
        command, _ = run.backend(spec).client_command(server, "FILE", name)
        assert command
        assert server.password not in command

    @pytest.mark.parametrize(
        ("asyncdb_metadata", "asyncdb_seed"), [pytest.param(CHANGED, None, id="changed")]
    )
    def test_another_schema(
        self, asyncdb: Asyncdb, asyncdb_metadata: sa.MetaData, asyncdb_seed: None
    ) -> None:
        """Another schema has its own template, whichever tests came before."""
        (column,) = sa.inspect(asyncdb.sync_engine).get_columns(ROWS.name)
        assert column["name"] == "changed"

    @pytest.mark.asyncdb(isolation="copy")
    def test_nothing_outlives_a_run(self, asyncdb: Asyncdb, request: pytest.FixtureRequest) -> None:
        """Another run, on the same server, drops all of its databases."""
        backend, url = asyncdb._run.backend(asyncdb.backend.spec), asyncdb.url
        environment, arguments = {**os.environ}, ["-rP", "-p", "no:cacheprovider"]
        if not backend.in_process:
            shown = url.render_as_string(hide_password=False)
            environment[f"ASYNCDB_{backend.name.upper()}_URL"] = shown
            environment["ASYNCDB_ALLOW_HOSTS"] = url.host or ""
            arguments.append("--asyncdb-server=url")
        node = request.node.nodeid.rpartition("::")[0] + "::test_commits"
        words = f"--asyncdb={backend.name}+{asyncdb.backend.driver}"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *arguments, words, node],
            cwd=request.config.rootpath,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        made = re.findall(r"^database: .*(asyncdb_[0-9a-f]{8}_)", done.stdout, re.MULTILINE)
        assert made
        with asyncdb.sync_engine.connect() as connection:
            left = connection.exec_driver_sql(backend.list_databases()).scalars().all()
        assert [name for name in left if str(name).startswith(made[0])] == []
