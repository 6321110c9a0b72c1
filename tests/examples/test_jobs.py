"""A queue of jobs: what real commits and real concurrency are for, run as it is."""

from __future__ import annotations

import re

import pytest
from fix_example import run, run_on
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

#: Tests that need more than one connection, and what each says without.
CONTROLS = {
    "test_a_job_that_is_in_hand_is_skipped": "assert 'first' == 'second'",
    "test_a_worker_that_waits_for_a_row_gives_up": "asyncdb.connections() needs connections",
    "test_another_process_writes": "another connection has committed",
    "test_there_is_one_leader": "assert not True",
}


@pytest.mark.complete
@pytest.mark.parametrize("isolation", ["reset", "copy"])
def test_all_backends_in_one_run_with_workers(servers: Servers, isolation: str) -> None:
    targets = [servers.target(word) for word in WORDS]
    output = run_on("jobs", targets, f"--asyncdb-isolation={isolation}", "-n", "2")
    assert f"{sum(TESTS[word] for word in WORDS)} passed" in output


@pytest.mark.everyday(("reset", "postgres+asyncpg"))
@pytest.mark.parametrize("isolation", ["reset", "copy"])
def test_it_passes_on_each_backend(target: Target, isolation: str) -> None:
    output = run_on("jobs", [target], f"--asyncdb-isolation={isolation}")
    assert f"{TESTS[target.word]} passed" in output


def test_one_connection_is_not_enough(servers: Servers) -> None:
    """The control: each of these tests fails in ``rollback``."""
    arguments = servers.target("postgres+asyncpg").arguments
    chosen = ("-k", " or ".join(CONTROLS), "--tb=native")
    output = run("jobs", *arguments, "--asyncdb-isolation=rollback", *chosen, passes=False)
    for test, said in CONTROLS.items():
        assert re.search(rf"^(FAILED|ERROR) \S+::{test}\b", output, re.MULTILINE), output
        assert said in output
