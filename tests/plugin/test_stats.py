"""``--asyncdb-stats``: how long servers, schemas, set-up and teardown took."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from fix_project import Outcome, Project
from fix_servers import Servers, Target

from pytest_asyncdb._run.stash import RUN
from pytest_asyncdb.reports import item_report, timing_table
from pytest_asyncdb.reports.timing_table import collect

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
    """A plugin of an inner run that takes its numbers."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], list[tuple[float, str]]] = {}
        self.seconds = 0.0

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        run = config.stash[RUN]
        self.found, _ = collect(r for found in terminalreporter.stats.values() for r in found)
        self.seconds = time.perf_counter() - run.began


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
    project.write("conftest.py", SEED.format(seconds=0))
    project.tests(THREE)
    text = project.run(target).passed(3).text
    assert "asyncdb: times" not in text
    assert "seed less" not in text


@pytest.mark.parametrize("strategy", ["rollback", "reset", "copy"])
def test_slow_strategies_get_advice(
    project: Project, target: Target, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests with a second of set-up or teardown and ten seconds together; here every test."""
    monkeypatch.setattr(timing_table, "_LONG", 0.0)
    for module in (item_report, timing_table):
        monkeypatch.setattr(module, "SLOW", 0.0)
    project.tests(THREE)
    text = project.run(target, f"--asyncdb-isolation={strategy}").passed(3).text
    advice = (
        rf"^asyncdb: {strategy} took{TIME} in 3 tests on {re.escape(target.word)}: seed less,\n"
        r"  or use rollback for the run and mark the tests that need another strategy$"
    )
    assert bool(re.search(advice, text, re.MULTILINE)) == (strategy != "rollback"), text


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
    project.run(target, "--asyncdb-stats", plugins=[numbers]).passed(3)
    times = {line: found for (word, line), found in numbers.found.items() if word == target.word}
    ((schema, _),), ((seed, _),) = times["schema"], times["seed"]
    assert 0.5 <= seed < numbers.seconds
    assert seed - schema > 0.1
    assert times["rollback: database"][0][1] == f"test_it.py::test_each[{target.id}-ada]"
    parts = ("database", "set-up", "teardown")
    assert sum(s for part in parts for s, _ in times[f"rollback: {part}"]) < 0.5


def test_a_run_without_a_database_says_so(project: Project, servers: Servers) -> None:
    project.tests("def test_it():\n    pass\n")
    text = project.run(servers.target("sqlite"), "--asyncdb-stats").passed(1).text
    assert "asyncdb: no times: the run used no database" in text
