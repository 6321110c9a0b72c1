"""The connections of all workers fit into what a small, real server allows."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

import pytest
from fix_observer import observer_of
from fix_project import Project
from fix_servers import Servers, Target

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._databases.connection_limit import idle_limit
from pytest_asyncdb._run.owned_servers import MANAGED_LIMIT
from pytest_asyncdb.abc import BackendSpec, Server
from pytest_asyncdb.errors import ProviderUnavailable

REGISTRY = Registry()


@contextlib.contextmanager
def small(word: str, connections: int) -> Iterator[Target]:
    """A server of this machine that allows so many connections and no more."""
    name, _, driver = word.partition("+")
    backend, provider = REGISTRY.backend(name), REGISTRY.provider("local")
    spec = BackendSpec(name, written=name)
    try:
        found = provider.find(spec, backend, None)
    except ProviderUnavailable as reason:
        pytest.skip(f"{name}-local: {reason}")
    recipe = backend.local
    assert recipe is not None
    postgres = name == "postgres"
    option = ["-c", f"max_connections={connections}"] if postgres else []
    option = option or [f"--max-connections={connections}"]
    limited = recipe._replace(serve=lambda place, port: [*recipe.serve(place, port), *option])
    changed = type("Small", (type(backend),), {"local": limited})()
    with provider.obtain(found, spec, changed, REGISTRY.driver(spec), print) as server:
        url = backend.url(server, driver, None)
        yield Target(word, url, observer_of(url))


#: Two schemas, and for each a strategy that keeps connections. A worker holds what it has opened
#: until the other worker must have opened as many.
TESTS = """
    import contextlib
    from pathlib import Path

    HERE = Path(__file__).parent

    async def hold(engine, number, part, worker):
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(number):
                connection = await stack.enter_async_context(engine.connect())
                await connection.execute(text("SELECT 1"))
            (HERE / f"{part}-{worker}").touch()
            for _ in range(100):
                if len(list(HERE.glob(f"{part}-*"))) == 2:
                    break
                await asyncio.sleep(0.02)

    @pytest.mark.asyncdb(isolation="reset")
    async def test_1_reset(asyncdb_engine, worker_id):
        await hold(asyncdb_engine, 5, "reset", worker_id)

    @pytest.mark.asyncdb(isolation="reset", schema=False)
    async def test_2_bare(asyncdb_engine, worker_id):
        await hold(asyncdb_engine, 5, "bare", worker_id)
"""

#: Each of two workers needs a connection that makes databases, two that put databases back, the
#: five of the test, and two that the first strategy keeps; the run itself has one or two more.
#: Without the limit the first strategy keeps five.
SMALL = {"postgres+asyncpg": 24, "mariadb+asyncmy": 22}
#: Every worker runs both tests.
BOTH = ("-n", "2", "--dist=each")


@pytest.mark.everyday("postgres+asyncpg")
@pytest.mark.parametrize("word", SMALL)
def test_idle_connections_leave_room_on_a_small_server(project: Project, word: str) -> None:
    """A strategy keeps fewer connections between tests if the worker's share is small."""
    project.tests(TESTS)
    with small(word, SMALL[word]) as target:
        project.run_apart(target, *BOTH).result.assert_outcomes(passed=4)


@pytest.mark.everyday("postgres+asyncpg")
@pytest.mark.parametrize("word", SMALL)
def test_without_the_limit_there_is_no_room(project: Project, word: str) -> None:
    """The control: the same tests on the same server."""
    project.tests(TESTS)
    with small(word, SMALL[word]) as target:
        result = project.pytester.runpytest_subprocess(
            "-p", "no_idle_limit", *BOTH, *target.arguments
        )
    outcomes = result.parseoutcomes()
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) > 0
    assert re.search(r"(?i)too many|remaining connection slots", str(result.stdout))


def test_more_workers_than_a_server_has_room_for_are_told_the_numbers(project: Project) -> None:
    project.tests("async def test_it(asyncdb_session): pass")
    with small("postgres+asyncpg", 12) as target:
        outcome = project.run_apart(target, "-n", "3")
        outcome.result.assert_outcomes(errors=1)
        # Of 12, 3 are for superusers, and 2 for the run itself.
        outcome.shows(
            """
            PostgreSQL has room for 7 connections, 3 workers need 9 (--asyncdb-url)

            Each worker needs 3. Counted when the run began, without what others use and what is kept for administrators.

            To fix this, do one of:
              - run fewer workers: -n 2
              - raise max_connections of the server, or the limit of the account
            """
        )
        project.run_apart(target, "-n", "2").result.assert_outcomes(passed=1)


@pytest.mark.everyday("postgres+psycopg")
@pytest.mark.parametrize("word", ["postgres+psycopg", "mysql+aiomysql", "mariadb+asyncmy"])
def test_the_limit_of_the_account_counts(project: Project, servers: Servers, word: str) -> None:
    project.tests("async def test_it(asyncdb_session): pass")
    target = servers.target(word)
    assert target.server is not None
    name = f"limited_{os.getpid()}"
    look, postgres = target.observer, target.backend == "postgres"
    account = name if postgres else f"'{name}'@'%'"
    look.query(
        f"CREATE USER {account} PASSWORD 'word' CREATEDB CONNECTION LIMIT 7"
        if postgres
        else f"CREATE USER {account} IDENTIFIED BY 'word' WITH MAX_USER_CONNECTIONS 7"
    )
    # The run looks whether the run of this database is alive, for which it needs a connection, too.
    look.query(f"CREATE DATABASE {(other := f'asyncdb_{os.getpid():08x}_other')}")
    try:
        if not postgres:
            look.query(rf"GRANT ALL ON `asyncdb\_%`.* TO {account}")
        limited = Target(word, target.server.set(username=name, password="word"), look)
        result = project.run_apart(limited, "-n", "2").result
        result.assert_outcomes(errors=1)
        room = rf"{_label(word)} has room for 5 connections, 2 workers need 6"
        assert re.search(room, str(result.stdout))
        project.run_apart(limited).result.assert_outcomes(passed=1)
    finally:
        look.query(f"DROP DATABASE IF EXISTS {other}")
        look.query(f"DROP USER {account}")


def _label(word: str) -> str:
    return REGISTRY.backend(word.partition("+")[0]).label


@pytest.mark.parametrize("word", ["postgres+asyncpg", "mysql+asyncmy", "mariadb+asyncmy"])
def test_a_server_of_ours_has_the_room_that_it_is_taken_to_have(
    servers: Servers, word: str
) -> None:
    target = servers.target(word)
    if not servers.server(target.backend).managed:
        pytest.skip("the suite runs on a server that it has not started")
    query = "SELECT @@max_connections, 1"
    if target.backend == "postgres":
        query = (
            "SELECT current_setting('max_connections')::int, "
            "current_setting('superuser_reserved_connections')::int"
        )
    ((most, reserved),) = target.observer.query(query)
    assert most - reserved >= MANAGED_LIMIT


@pytest.mark.parametrize(
    ("free", "workers", "limit"),
    [(None, 8, 5), (3, 1, 0), (9, 1, 2), (24, 2, 3), (95, 8, 2), (190, 8, 5), (1000, 1, 5)],
)
def test_the_limit_follows_from_the_workers_share(
    free: int | None, workers: int, limit: int
) -> None:
    """Three connections are reserved; a third of the others is a strategy's, but at most five."""
    server = Server("postgres", "17", "url", "a URL", managed=False, connection_limit=free)
    assert idle_limit(server, "PostgreSQL", workers) == limit
