"""The connections of all workers fit into what a small, real server has room for."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator

import pytest
from fix_observer import observer_of
from fix_project import Project
from fix_servers import Servers, Target

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._databases.connection_limit import Budget
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
    limited = dataclasses.replace(
        recipe, serve=lambda place, port: [*recipe.serve(place, port), *option]
    )
    changed = type("Small", (type(backend),), {"local": limited})()
    with provider.obtain(found, spec, changed, REGISTRY.driver(spec), print) as server:
        url = backend.url(server, driver, None)
        yield Target(word, url, observer_of(url))


#: Each test holds what it opens until other workers must have opened theirs.
HUNGRY = """
    import contextlib
    from pathlib import Path

    HERE = Path(__file__).parent
    WORKERS = 4

    async def meet(n, part, worker):
        # Each worker has connections open when any of them goes on, or has no test left.
        (HERE / f"{part}-{n}-{worker}").touch()
        for _ in range(20):
            if len({p.name.split("-")[2] for p in HERE.glob(f"{part}-*")}) == WORKERS:
                return
            await asyncio.sleep(0.02)

    async def hold(engine, number, n, part, worker):
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(number):
                connection = await stack.enter_async_context(engine.connect())
                await connection.execute(text("SELECT 1"))
            await meet(n, part, worker)

    @pytest.mark.parametrize("n", range(4))
    async def test_rollback(n, asyncdb_engine, worker_id):
        await hold(asyncdb_engine, 1, n, "rollback", worker_id)

    @pytest.mark.parametrize("n", range(4))
    @pytest.mark.asyncdb(isolation="reset")
    async def test_reset(n, asyncdb_engine, worker_id):
        await hold(asyncdb_engine, 3, n, "reset", worker_id)

    @pytest.mark.parametrize("n", range(4))
    @pytest.mark.asyncdb(isolation="copy")
    async def test_copy(n, asyncdb_engine, worker_id):
        await hold(asyncdb_engine, 3, n, "copy", worker_id)

    @pytest.mark.parametrize("n", range(4))
    @pytest.mark.asyncdb(isolation="reset", schema=False)
    async def test_bare(n, asyncdb_engine, worker_id):
        await hold(asyncdb_engine, 3, n, "bare", worker_id)
"""

#: Five for each worker, two for the owner, and those that PostgreSQL keeps for superusers.
SMALL = {"postgres+asyncpg": 27, "mariadb+asyncmy": 23}


@pytest.mark.parametrize("word", SMALL)
def test_four_workers_fit_into_a_small_server(project: Project, word: str) -> None:
    """What is kept between tests is closed where another test needs room."""
    project.tests(HUNGRY)
    with small(word, SMALL[word]) as target:
        project.run_apart(target, "-n", "4").result.assert_outcomes(passed=16)


@pytest.mark.parametrize("word", SMALL)
def test_without_a_budget_they_do_not(project: Project, word: str) -> None:
    """The control: the same tests on the same server."""
    project.tests(HUNGRY)
    with small(word, SMALL[word]) as target:
        result = project.pytester.runpytest_subprocess(
            "-p", "no_budget", "-n", "4", *target.arguments
        )
    outcomes = result.parseoutcomes()
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) > 0
    assert re.search(r"(?i)too many|remaining connection slots", str(result.stdout))


def test_more_workers_than_a_server_has_room_for_are_told_the_numbers(project: Project) -> None:
    project.tests("async def test_it(asyncdb_session): pass")
    with small("postgres+asyncpg", 12) as target:
        outcome = project.run_apart(target, "-n", "3")
        outcome.result.assert_outcomes(errors=1)
        # Of 12, 3 are for superusers, 2 for the run itself, and 1 asks.
        outcome.shows(
            """
            PostgreSQL has room for 6 connections, 3 workers need 9 (--asyncdb-url)

            Each worker needs 3. Counted when the run began, without what others use and what is kept for administrators.

            To fix this, do one of:
              - run fewer workers: -n 2
              - raise max_connections of the server, or the limit of the account
            """
        )
        project.run_apart(target, "-n", "2").result.assert_outcomes(passed=1)


def test_a_test_that_wants_more_than_the_share_is_told_the_numbers(project: Project) -> None:
    """And the next test has its connections all the same."""
    project.tests(
        """
        import contextlib

        async def hold(engine, number):
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(number):
                    connection = await stack.enter_async_context(engine.connect())
                    await connection.execute(text("SELECT 1"))

        @pytest.mark.asyncdb(isolation="reset")
        async def test_many(asyncdb_engine):
            await hold(asyncdb_engine, 9)

        @pytest.mark.asyncdb(isolation="reset")
        async def test_few(asyncdb_engine):
            await hold(asyncdb_engine, 4)

        async def test_one(asyncdb_engine):
            await hold(asyncdb_engine, 1)
        """
    )
    with small("postgres+asyncpg", 13) as target:
        outcome = project.run_apart(target)
    outcome.result.assert_outcomes(passed=2, failed=1)
    outcome.shows(
        """
        a connection too many for this worker's share of PostgreSQL (--asyncdb-url)

        The server has room for 7 connections, 1 worker: 7 each.
        In use here: 6, and 1 to spare. What was kept for later tests is closed.

        To fix this, do one of:
          - open fewer at once in this test
          - run fewer workers, or raise max_connections of the server
        """
    )


@pytest.mark.parametrize("late", [(), ("-p", "late_closing")], ids=["", "late"])
def test_a_test_comes_before_the_connections_of_its_neighbours(
    project: Project, late: tuple[str, ...]
) -> None:
    """That to the next copy, opened ahead, and those of the last test, not yet closed."""
    project.ini(asyncdb_isolation="copy")
    project.tests(
        """
        import contextlib

        @pytest.mark.parametrize("number", [1, 1, 1, 3, 3, 3])
        async def test_it(asyncdb_engine, number):
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(number):
                    connection = await stack.enter_async_context(asyncdb_engine.connect())
                    await connection.execute(text("SELECT 1"))
        """
    )
    # Of 11, 3 are for superusers, 2 for the run, one to spare, and one makes the copies.
    with small("postgres+asyncpg", 11) as target:
        project.run_apart(target, *late).result.assert_outcomes(passed=6)


@pytest.mark.parametrize("word", ["postgres+psycopg", "mysql+aiomysql", "mariadb+asyncmy"])
def test_the_limit_of_the_account_counts(project: Project, servers: Servers, word: str) -> None:
    project.tests("async def test_it(asyncdb_session): pass")
    target = servers.target(word)
    assert target.server is not None
    name = f"limited_{os.getpid()}"
    look, postgres = target.observer, target.backend == "postgres"
    account = name if postgres else f"'{name}'@'%'"
    look.query(
        f"CREATE USER {account} PASSWORD 'word' CREATEDB CONNECTION LIMIT 8"
        if postgres
        else f"CREATE USER {account} IDENTIFIED BY 'word' WITH MAX_USER_CONNECTIONS 7"
    )
    try:
        if not postgres:
            look.query(rf"GRANT ALL ON `asyncdb\_%`.* TO {account}")
        limited = Target(word, target.server.set(username=name, password="word"), look)
        result = project.run_apart(limited, "-n", "2").result
        result.assert_outcomes(errors=1)
        assert f"{_label(word)} has room for 5 connections, 2 workers need 6" in str(result.stdout)
        project.run_apart(limited).result.assert_outcomes(passed=1)
    finally:
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


def _budget(room: int, make_room: list[Budget]) -> Budget:
    """A budget from which *make_room* may give once for each time that it is in it."""
    server = Server("postgres", "17", "url", "a URL", managed=False, room=room)

    def give() -> bool:
        if make_room:
            make_room.pop().give()
            return True
        return False

    return Budget(server, "PostgreSQL", 1, give)


def test_room_is_made_only_when_there_is_none() -> None:
    kept: list[Budget] = []
    budget = _budget(4, kept)
    kept += [budget, budget]
    for opened in (1, 2, 3):
        budget.take()
        assert (budget.open, len(kept)) == (opened, 2)
    budget.take()
    assert (budget.open, len(kept)) == (3, 1)
    with budget.using():
        assert (budget.open, len(kept)) == (3, 0)
    assert budget.open == 2


def test_room_that_was_made_goes_to_who_waits_for_it() -> None:
    """And not to a connection that a thread opens ahead meanwhile."""
    spare: list[bool] = []

    def give() -> bool:
        budget.give()
        spare.append(budget.take_spare())
        return not spare[0]

    server = Server("postgres", "17", "url", "a URL", managed=False, room=3)
    budget = Budget(server, "PostgreSQL", 1, give)
    budget.take()
    assert budget.take_spare()  # nobody waits
    budget.take()
    assert (spare, budget.open) == ([False], 2)


def test_what_is_given_back_while_nothing_is_kept_is_room() -> None:
    """As by a connection that was being opened ahead, which nobody can close yet."""

    def give() -> bool:
        budget.give()
        return False

    server = Server("postgres", "17", "url", "a URL", managed=False, room=3)
    budget = Budget(server, "PostgreSQL", 1, give)
    for _ in range(4):
        budget.take()
    assert budget.open == 2
