"""A URL that leads to a real PgBouncer, which gives each transaction another session."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import pytest
from fix_example import run_on
from fix_pooler import Pooler
from fix_project import Outcome, Project
from fix_servers import Servers, Target
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._databases.connection import maintenance
from pytest_asyncdb._run import run_lock
from pytest_asyncdb._run.runs import new_id, prefix_of
from pytest_asyncdb.abc import Backend, BackendSpec, Driver, Server, Sourced
from pytest_asyncdb.backends.postgres import Postgres

WORDS = ("postgres+asyncpg", "postgres+psycopg")
complete = pytest.mark.complete


@pytest.fixture(params=WORDS, ids=lambda word: word.replace("+", "-"))
def through(request: pytest.FixtureRequest, pooler: Pooler) -> Iterator[Target]:
    """PostgreSQL through PgBouncer, with each driver."""
    with pooler.target(request.param) as target:
        yield target


def server_of(target: Target) -> tuple[Server, Backend, Driver]:
    """The server at the target's URL as the plugin sees it, and what talks to it."""
    registry = Registry()
    backend = registry.backend(target.backend)
    driver = type(registry.driver(BackendSpec(target.backend, target.driver), None))()
    spec, provider = BackendSpec(target.backend), registry.provider("url")
    found = provider.find(spec, backend, Sourced(target.url or "", "the test"))
    with provider.obtain(found, spec, backend, driver, lambda line: None) as server:
        return server, backend, driver


def at_once(project: Project, target: Target) -> Outcome:
    """A run in which ``test_refused`` ends within two seconds, if not in the first run then in the
    second or third."""
    for _ in range(3):
        outcome = project.run(target, "--durations=0", "--durations-min=2")
        if not re.search("s setup +test_it.py::test_refused", outcome.text):
            return outcome
    pytest.fail(outcome.text)


@pytest.mark.parametrize(
    "workers", [(), pytest.param(("-n", "2"), marks=pytest.mark.complete)], ids=["main", "n2"]
)
@pytest.mark.parametrize("word", WORDS, ids=lambda word: word.replace("+", "-"))
def test_the_quickstart_passes_in_rollback(
    pooler: Pooler, word: str, workers: tuple[str, ...]
) -> None:
    """Templates are built, copied and dropped; nothing is left on the server."""
    with pooler.target(word) as target:
        output = run_on("quickstart", [target], "--asyncdb-isolation=rollback", *workers)
    assert "22 passed" in output


@complete
@pytest.mark.parametrize("word", WORDS)
def test_a_pooler_of_sessions_is_one_too(pooler: Pooler, word: str) -> None:
    """With ``pool_mode = session`` it keeps connections to the template as well."""
    with pooler.target(word, mode="session") as target:
        output = run_on("quickstart", [target], "--asyncdb-isolation=rollback")
    assert "22 passed" in output


@complete
def test_the_template_can_be_copied_only_without_the_poolers_connections(
    pooler: Pooler, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: PgBouncer keeps connections to it open."""
    monkeypatch.setattr(Postgres, "end_idle", lambda self, database: ())
    project.tests("async def test_it(asyncdb_session): ...")
    with pooler.target(WORDS[0]) as target:
        outcome = project.run(target).had(errors=1)
    assert "the schema cannot be copied: connections to its database are open" in outcome.text


@pytest.mark.parametrize("isolation", ["reset", "copy"])
def test_a_strategy_that_cannot_work_says_so_at_once(
    through: Target, servers: Servers, project: Project, isolation: str
) -> None:
    """It names the server to give instead, before anything is built."""
    project.tests(f"""
    @pytest.mark.asyncdb(isolation="{isolation}")
    async def test_refused(asyncdb_session): ...

    async def test_rollback(asyncdb_session):
        await add(asyncdb_session, "ada")
    """)
    outcome = at_once(project, through).had(passed=1, errors=1)
    direct = servers.target(through.word).server
    assert direct is not None
    outcome.shows(f"""
        '{isolation}' does not work through a connection pooler (--asyncdb-url)

        Seen:
          - a pooler such as PgBouncer may run each transaction in another session of the server
          - it reaches the PostgreSQL server at {direct.host}:{direct.port}

        To fix this, do one of:
          - give the server's own URL instead of the pooler's (--asyncdb-url)
          - use 'rollback', which works through it: --asyncdb-isolation=rollback
    """)


def test_a_pooler_that_does_not_know_new_databases_is_an_error(
    pooler: Pooler, servers: Servers, project: Project
) -> None:
    """Without the entry ``*`` it leads to the databases of its file only."""
    project.tests("async def test_it(asyncdb_session): ...")
    with pooler.target(WORDS[0], name="postgres") as target:
        outcome = project.run(target).had(errors=1)
    direct = servers.target(WORDS[0]).server
    assert direct is not None
    (said,) = re.findall(r"  - (.*no such database.*)", outcome.text)
    outcome.shows(f"""
        the pooler does not lead to new databases (--asyncdb-url)

        Seen:
          - {said}
          - it reaches the server at {direct.host}:{direct.port}

        To fix this, do one of:
          - name the entry in the section [databases] of pgbouncer.ini "*", or add one
          - give the server's own URL instead of the pooler's (--asyncdb-url)
    """)


def test_a_pooler_of_one_connection_is_an_error(
    pooler: Pooler, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction that holds the run's lock needs it; the server is not gone."""
    monkeypatch.setattr(run_lock, "_SECOND", 0.5)
    project.tests("async def test_it(asyncdb_session): ...")
    with pooler.target(WORDS[1], size=1) as target:
        project.run(target).had(errors=1).shows("""
            the pooler gives one connection at a time (--asyncdb-url)

            Seen:
              - waited 0.5 s for a second one to the database 'postgres'

            To fix this, do one of:
              - raise default_pool_size in pgbouncer.ini, or pool_size of the entry
              - give the server's own URL instead of the pooler's (--asyncdb-url)
        """)


@complete
def test_other_connections_and_sequences_leave_nothing(through: Target, project: Project) -> None:
    """The database is replaced where a plain connection would put it back."""
    project.tests("""
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    async def empty(session):
        assert await names(session) == []
        await add(session, "ada")
        await session.commit()

    async def test_before(asyncdb_session):
        await empty(asyncdb_session)

    async def test_a_second_connection_commits(asyncdb_session, asyncdb_url):
        engine = create_async_engine(asyncdb_url, poolclass=NullPool)
        async with engine.begin() as connection:
            await connection.exec_driver_sql("INSERT INTO users VALUES (1, 'eve')")
        await engine.dispose()

    @pytest.mark.asyncdb(reset_sequences=True)
    @pytest.mark.parametrize("number", range(2))
    async def test_ids(asyncdb_session, number):
        await empty(asyncdb_session)
        assert await asyncdb_session.scalar(select(User.id)) == 1

    async def test_after(asyncdb_session):
        await empty(asyncdb_session)
    """)
    project.run(through).passed(5)


@complete
def test_a_failed_test_shows_its_rows_and_is_kept(
    through: Target, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both copy databases to which the pooler has connections."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(project.path))
    project.tests("""
    async def test_fails(asyncdb_session):
        await add(asyncdb_session, "ada")
        await asyncdb_session.commit()
        assert False
    """)
    outcome = project.run(through, "--asyncdb-keep", "--asyncdb-sql=all", "--tb=short")
    outcome.result.assert_outcomes(failed=1)
    assert re.search(r"users.*\n.*ada", outcome.text)
    (name,) = re.findall(r"dbname=(\w+)", outcome.text)
    try:
        assert through.observer.query("SELECT name FROM users", name) == [("ada",)]
    finally:
        through.observer.query(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_a_run_holds_its_lock_for_all_to_see(through: Target, servers: Servers) -> None:
    """Another run sees whose databases are a dead run's, whichever URL it uses."""
    server, backend, driver = server_of(through)
    direct = server_of(servers.target(through.word))[0]
    assert server.behind_pooler == f"{direct.host}:{direct.port}"
    assert direct.behind_pooler == ""
    run = new_id()
    database = f"{prefix_of(run)}main_1"

    async def create() -> None:
        async with maintenance(direct, backend, driver) as sql:
            await sql.script(backend.create_database(database))

    async def is_dead(one: Server) -> bool:
        async with maintenance(one, backend, driver) as sql:
            found = run_lock.dead_databases(sql, backend, bool(one.behind_pooler))
            return database in [name async for name in found]

    lease = run_lock.Lease(run, server, backend, driver)
    lease.take()
    try:
        asyncio.run(create())
        assert not asyncio.run(is_dead(server))
        assert not asyncio.run(is_dead(direct))
    finally:
        lease.close()
    assert database not in through.observer.databases()
    asyncio.run(create())
    try:
        assert asyncio.run(is_dead(server))
        assert asyncio.run(is_dead(direct))  # it does not find the lock on a session of the pooler
    finally:
        through.observer.query(f"DROP DATABASE {database}")


@pytest.mark.parametrize("word", WORDS)
def test_plain_engines_need_the_same_settings(pooler: Pooler, word: str) -> None:
    """The control: without them a statement is prepared in one session and executed in another."""

    async def twice(arguments: dict[str, object]) -> None:
        engine = create_async_engine(target.server, poolclass=NullPool, connect_args=arguments)
        try:
            async with engine.connect() as one, engine.connect() as two:
                for _ in range(2):  # between the transactions, they swap their sessions
                    for connection in (one, two) * 8:  # psycopg prepares at the sixth
                        await connection.execute(text("SELECT 1"))
                    for connection in (one, two):
                        await connection.commit()
                async with engine.connect() as three:
                    for _ in range(8):
                        await three.execute(text("SELECT 1"))
        finally:
            await engine.dispose()

    driver = type(Registry().driver(BackendSpec(*word.split("+")), None))
    with pooler.target(word) as target:
        asyncio.run(twice(dict(driver.pooler_arguments)))
        with pytest.raises(Exception, match="prepared statement"):
            asyncio.run(twice({}))
