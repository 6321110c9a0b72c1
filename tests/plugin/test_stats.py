"""``--asyncdb-stats``: how long servers, schemas, set-up and teardown took."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from fix_project import Outcome, Project
from fix_servers import Servers, Target

from pytest_asyncdb._run.stash import RUN
from pytest_asyncdb.reports import timing_table

pytestmark = pytest.mark.everyday("sqlite", "postgres+asyncpg")

THREE = """
@pytest.mark.parametrize("name", ["ada", "bob", "cyd"])
async def test_each(asyncdb_session, name):
    await add(asyncdb_session, name)
    await asyncdb_session.commit()
    assert await names(asyncdb_session) == [name]
"""
SEED = """
import asyncio

import pytest
from sqlalchemy import insert

from app.models import Post, User


@pytest.fixture(scope="session")
def asyncdb_seed():
    async def seed(session):
        await asyncio.sleep({seconds})

    return seed
"""
#: A cell of the table.
TIME = r" +\d+(?:\.\d\d)? m?s"


@pytest.fixture(params=["sqlite", "postgres+asyncpg", "mariadb+asyncmy"])
def target(request: pytest.FixtureRequest, servers: Servers) -> Target:
    return servers.target(request.param)


class Numbers:
    """An inner run's plugin that takes its numbers."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def pytest_terminal_summary(self, config: pytest.Config) -> None:
        self.found = timing_table.collect(config.stash[RUN])


def lines(outcome: Outcome) -> list[str]:
    """The table, and whatever else our lines at the end are."""
    found = outcome.text.splitlines()
    (first,) = (n for n, line in enumerate(found) if line.startswith("asyncdb: times of "))
    ours = [line for line in found[first + 1 :] if line.startswith("  ")]
    assert all(len(line) <= 80 for line in ours), ours
    return [found[first], *ours]


@pytest.mark.parametrize("strategy", ["rollback", "reset", "copy"])
def test_the_times_are_shown(project: Project, target: Target, strategy: str) -> None:
    """Server, schema, and by strategy a worker's first database, set-up and teardown, with
    the test that took longest. A seed is shown where there is one."""
    project.tests(THREE)
    outcome = project.run(target, "--asyncdb-stats", f"--asyncdb-isolation={strategy}").passed(3)
    shown = lines(outcome)
    test = rf"      longest: test_it\.py::test_each\[{target.id}-\w+\]"
    patterns = [
        r"asyncdb: times of a run of [\d.]+ m?s",
        rf"  {re.escape(target.word)} +count +total +median +longest",
        rf"    server \((memory|url)\){TIME}",
        rf"    schema +1{TIME * 3}",
        rf"    {strategy}: database +1{TIME * 3}",
        *(rf"    {strategy}: set-up +2{TIME * 3}", test),
        *(rf"    {strategy}: teardown +3{TIME * 3}", test),
    ]
    assert len(shown) == len(patterns), shown
    for line, pattern in zip(shown, patterns, strict=True):
        assert re.fullmatch(pattern, line), line
    if target.server is not None and target.server.password:
        assert str(target.server.password) not in "\n".join(shown)


def test_nothing_is_shown_without_the_option(project: Project, target: Target) -> None:
    """Nor is anything of an ordinary run out of the ordinary."""
    project.write("conftest.py", SEED.format(seconds=0))
    project.tests(THREE)
    text = project.run(target).passed(3).text
    assert "asyncdb: times" not in text
    assert "asyncdb: slow" not in text


def test_workers_times_come_together(project: Project, servers: Servers) -> None:
    """A template on a server is built by one worker; each has a database of its own."""
    project.write("conftest.py", SEED.format(seconds=0))
    project.tests(THREE.replace('["ada", "bob", "cyd"]', 'list("abcdefghijkl")'))
    target = servers.target("postgres+asyncpg")
    outcome = project.run_apart(target, "--asyncdb-stats", "-n2", "--dist=load")
    outcome.result.assert_outcomes(passed=12)
    shown = lines(outcome)
    assert re.fullmatch(r"asyncdb: times of a run of [\d.]+ m?s by 2 workers", shown[0])
    text = "\n".join(shown)
    for what, number in (("schema", 1), ("seed", 1), ("rollback: database", 2)):
        assert re.search(rf"^    {what} +{number}{TIME * 3}$", text, re.MULTILINE), text
    assert re.search(rf"^    rollback: set-up +10{TIME * 3}$", text, re.MULTILINE), text
    assert re.search(rf"^    rollback: teardown +12{TIME * 3}$", text, re.MULTILINE), text


def test_server_and_template_are_no_tests_set_up(project: Project, target: Target) -> None:
    """The first test waits for both; what it waited for is theirs."""
    project.write("conftest.py", SEED.format(seconds=0.5))
    project.tests(THREE)
    numbers = Numbers()
    project.run(target, plugins=[numbers]).passed(3)
    found = numbers.found["backends"][target.word]
    assert found["seed"]["count"] == 1
    assert 0.5 <= found["seed"]["longest"] < numbers.found["seconds"]
    assert found["seed"]["longest"] - found["schema"]["longest"] > 0.1
    parts = found["strategies"]["rollback"]
    assert parts["database"]["test"] == f"test_it.py::test_each[{target.id}-ada]"
    assert sum(parts[name]["total"] for name in ("database", "set_up", "teardown")) < 0.5


def test_a_slow_seed_is_named(
    project: Project, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the option, in one line."""
    monkeypatch.setattr(timing_table, "TEMPLATE", 0.5)
    project.write("conftest.py", SEED.format(seconds=0.6))
    project.tests(THREE)
    text = project.run(target).passed(3).text
    slow = [line for line in text.splitlines() if "asyncdb: slow" in line]
    assert len(slow) == 1
    word = re.escape(target.word)
    assert re.fullmatch(rf"asyncdb: slow: {word}: the seed took \d+ ms \(over 0\.5 s\)", slow[0])
    assert "asyncdb: times" not in text


def test_a_slow_set_up_is_named_with_its_test(
    project: Project, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever takes longer than nothing is slow here."""
    monkeypatch.setattr(timing_table, "ONE", 0)
    project.tests(THREE)
    text = project.run(servers.target("sqlite")).passed(3).text
    slow = "\n".join(line for line in text.splitlines() if "asyncdb: slow" in line)
    assert re.fullmatch(
        r"asyncdb: slow: sqlite, rollback: a set-up took [\d.]+ ms \(over 0 s\): "
        r"test_it\.py::test_each\[sqlite-\w+\]\n"
        r"asyncdb: slow: sqlite, rollback: a teardown took [\d.]+ ms \(over 0 s\): "
        r"test_it\.py::test_each\[sqlite-\w+\]",
        slow,
    ), slow


def test_a_run_without_a_database_says_so(project: Project, servers: Servers) -> None:
    project.tests("def test_it():\n    pass\n")
    text = project.run(servers.target("sqlite"), "--asyncdb-stats").passed(1).text
    assert "asyncdb: no times: the run used no database" in text


def series(**values: Any) -> dict[str, Any]:
    return {"count": 1, "total": 0.0, "median": 0.0, "longest": 0.0, "test": "t", **values}


def numbers(word: str = "postgres", seconds: float = 60.0, **values: Any) -> Mapping[str, Any]:
    """Those of a run on one backend in ``reset``."""
    backend = {
        "server": {"provider": "container", "seconds": values.get("server", 60.0)},
        "schema": series(longest=values.get("schema", 10.0)),
        "seed": series(longest=values.get("seed", 10.0)),
        "strategies": {
            "reset": {
                "database": series(longest=values.get("database", 10.0)),
                "set_up": series(longest=3.0, total=values.get("set_up", 3.0)),
                "teardown": series(longest=3.0, total=values.get("teardown", 7.0)),
            }
        },
    }
    return {"seconds": seconds, "workers": values.get("workers", 1), "backends": {word: backend}}


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({}, None),
        ({"server": 61.0}, "postgres: the server (container) took 61.00 s to start (over 60 s)"),
        ({"schema": 11.0}, "postgres: the schema took 11.00 s (over 10 s)"),
        ({"seed": 11.0}, "postgres: the seed took 11.00 s (over 10 s)"),
        (
            {"database": 11.0},
            "postgres, reset: a worker's first database took 11.00 s (over 10 s): t",
        ),
        ({"set_up": 20.0, "teardown": 10.0}, None),
        (
            {"set_up": 20.0, "teardown": 11.0},
            "postgres, reset: set-up and teardown took 31.00 s, over half of the run's 60.00 s",
        ),
        # Two workers had twice the time.
        ({"set_up": 20.0, "teardown": 11.0, "workers": 2}, None),
        # A short run whose tests do nothing else.
        ({"set_up": 3.0, "teardown": 7.0, "seconds": 11.0}, None),
    ],
)
def test_what_is_out_of_the_ordinary(values: dict[str, Any], line: str | None) -> None:
    """The limits as the documentation has them; at a limit nothing is said."""
    expected = [] if line is None else [f"asyncdb: slow: {line}"]
    assert timing_table.unusual(numbers(**values)) == expected


def test_two_drivers_on_one_server_are_one_slow_server() -> None:
    found = numbers("postgres+asyncpg@17", server=61.0)
    found["backends"]["postgres+psycopg@17"] = found["backends"]["postgres+asyncpg@17"]
    assert timing_table.unusual(found) == [
        "asyncdb: slow: postgres@17: the server (container) took 61.00 s to start (over 60 s)"
    ]


def test_the_numbers_are_plain_data(project: Project, servers: Servers) -> None:
    """They can be written as JSON."""
    taken = Numbers()
    project.tests(THREE)
    project.run(servers.target("sqlite"), plugins=[taken]).passed(3)
    assert json.loads(json.dumps(taken.found)) == taken.found
