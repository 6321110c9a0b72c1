"""A queue of jobs: what real commits and real concurrency are for, run as it is."""

from __future__ import annotations

import pytest
from fix_example import run
from fix_observer import left_behind
from fix_servers import WORDS, Servers, Target

#: How many of its 22 tests are for the word; the others are skipped, by their markers.
TESTS = {
    "sqlite": 7,
    "postgres+asyncpg": 20,
    "postgres+psycopg": 20,
    "mysql+asyncmy": 18,
    "mysql+aiomysql": 18,
    "mariadb+asyncmy": 18,
}


@pytest.mark.parametrize("isolation", ["reset", "copy"])
def test_it_passes_on_each_backend(target: Target, isolation: str) -> None:
    output = run("jobs", *target.arguments, f"--asyncdb-isolation={isolation}")
    assert f"{TESTS[target.word]} passed" in output
    assert left_behind(target.observer, output) == set()


@pytest.mark.parametrize("isolation", ["reset", "copy"])
def test_all_backends_in_one_run_with_workers(servers: Servers, isolation: str) -> None:
    targets = [servers.target(word) for word in WORDS]
    urls = {target.backend: target.url for target in targets if target.url}
    arguments = ["--asyncdb=" + ",".join(WORDS), *(f"--asyncdb-url={u}" for u in urls.values())]
    output = run("jobs", *arguments, f"--asyncdb-isolation={isolation}", "-n", "2")
    assert f"{sum(TESTS.values())} passed" in output


@pytest.mark.parametrize(
    ("test", "told"),
    [
        ("test_a_job_that_is_in_hand_is_skipped", "assert 'first' == 'second'"),
        ("test_a_worker_that_waits_for_a_row_gives_up", "asyncdb.connections() needs connections"),
        ("test_another_process_writes", "another connection has committed"),
        ("test_there_is_one_leader", "assert not True"),
    ],
)
def test_one_connection_is_not_enough(servers: Servers, test: str, told: str) -> None:
    """The control."""
    arguments = servers.target("postgres+asyncpg").arguments
    output = run("jobs", *arguments, "--asyncdb-isolation=rollback", "-k", test, passes=False)
    assert told in output
