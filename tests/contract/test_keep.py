"""``--asyncdb-keep``: a failed test's database outlives the run, and the printed command opens it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fix_docker import containers, docker
from fix_observer import observer_of
from fix_project import Outcome, Project
from fix_servers import Servers, Target

from pytest_asyncdb._databases.kept_databases import records as kept_databases
from pytest_asyncdb.servers.reusable import records

#: What each client needs to run a statement and print its rows only.
ASK = {"psql": "-Atc", "mysql": "-Ne", "mariadb": "-Ne", "sqlite3": "-noheader"}
NAMES = "SELECT name FROM users ORDER BY name"

COMPLETE_ONLY = [pytest.param(word, marks=pytest.mark.complete) for word in ("reset", "copy")]
STRATEGIES = pytest.mark.parametrize("strategy", ["rollback", *COMPLETE_ONLY])

#: The first one fails with one row that is committed and one that is not.
TESTS = """
async def test_fails(asyncdb_session):
    await add(asyncdb_session, "committed")
    await asyncdb_session.commit()
    await add(asyncdb_session, "open")
    assert await names(asyncdb_session) == []

async def test_passes(asyncdb_session):
    assert await names(asyncdb_session) == []
    await add(asyncdb_session, "of another test")
    await asyncdb_session.commit()
"""


def kept(outcome: Outcome) -> dict[str, str]:
    """The commands that a run has printed, by test."""
    return dict(re.findall(r"^asyncdb: kept: (\S+)\n  (.*)$", outcome.text, re.MULTILINE))


def rows(command: str) -> list[str]:
    """What a printed command shows."""
    words = shlex.split(command)
    if shutil.which(words[0]) is None:
        pytest.skip(f"the program {words[0]} is not installed")
    done = subprocess.run(
        [*words, ASK[words[0]], NAMES], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def reap(*arguments: str) -> list[str]:
    """What ``reap`` says of what this test's runs have kept, and of the servers of that."""
    ours = [*(record.name for record in kept_databases()), *(record.place for record in records())]
    done = subprocess.run(
        [sys.executable, "-m", "pytest_asyncdb", "reap", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [line for line in done.stdout.splitlines() if any(name in line for name in ours)]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where this test's runs note what they keep; nothing may be left in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "pytest-asyncdb/kept"
    yield folder
    reap()
    assert not folder.exists() or list(folder.iterdir()) == []
    assert list(records()) == []


@pytest.fixture
def sqlite(servers: Servers) -> Target:
    return servers.target("sqlite")


@pytest.fixture
def postgres(servers: Servers) -> Target:
    return servers.target("postgres+asyncpg")


@pytest.mark.everyday("sqlite", "postgres+asyncpg")
@STRATEGIES
def test_the_command_shows_what_the_failed_test_has_left(
    project: Project, target: Target, strategy: str, place: Path
) -> None:
    """On a server by URL, in every strategy; ``reap`` removes it."""
    project.tests(TESTS)
    run = project.run_apart(target, "--asyncdb-keep", f"--asyncdb-isolation={strategy}")
    run.had(passed=1, failed=1)
    ((test, command),) = kept(run).items()
    assert test == f"test_it.py::test_fails[{target.id}]"
    run.shows(
        f"""
        asyncdb: kept: {test}
        {command}
        asyncdb: what is kept is removed by: python -m pytest_asyncdb reap
        """
    )
    files = [path for path in place.iterdir() if path.suffix != ".sqlite"]
    assert {path.stat().st_mode & 0o077 for path in [place, *files]} == {0}
    if target.server is not None:
        assert str(target.server.password) not in command
    assert rows(command) == ["committed", "open"]
    (name,) = (path.stem for path in place.glob("*.json"))
    (line,) = reap("--dry-run")
    assert line == f"would be removed: database {name} of {test}"
    assert rows(command) == ["committed", "open"]
    assert reap() == [f"removed: database {name} of {test}"]
    assert name not in target.observer.databases()
    assert list(place.iterdir()) == []


@pytest.mark.everyday("sqlite", "postgres+asyncpg")
def test_without_the_option_nothing_is_kept(project: Project, target: Target, place: Path) -> None:
    """The control."""
    project.tests(TESTS)
    run = project.run_apart(target).had(passed=1, failed=1)
    assert kept(run) == {}
    assert not place.exists()


@STRATEGIES
def test_of_passing_tests_nothing_is_kept(
    project: Project, sqlite: Target, strategy: str, place: Path
) -> None:
    """Nor of tests that are skipped or fail as expected."""
    project.tests(
        """
        async def test_passes(asyncdb_session):
            await add(asyncdb_session, "ada")

        async def test_skips(asyncdb_session):
            pytest.skip("not today")

        @pytest.mark.xfail(reason="not yet")
        async def test_xfails(asyncdb_session):
            assert False
        """
    )
    run = project.run_apart(sqlite, "--asyncdb-keep", f"--asyncdb-isolation={strategy}")
    run.had(passed=1, skipped=1, xfailed=1)
    assert kept(run) == {}
    assert not place.exists()


@STRATEGIES
def test_a_statement_that_fails_undoes_its_transaction_only(
    project: Project, postgres: Target, strategy: str
) -> None:
    """As in production: PostgreSQL refuses everything else in a transaction that has failed."""
    project.tests(
        """
        async def test_it(asyncdb_session):
            await add(asyncdb_session, "ada")
            await asyncdb_session.commit()
            await add(asyncdb_session, "bob")
            await add(asyncdb_session, "ada")
        """
    )
    run = project.run_apart(postgres, "--asyncdb-keep", f"--asyncdb-isolation={strategy}").had(
        failed=1
    )
    (command,) = kept(run).values()
    assert rows(command) == ["ada"]


@pytest.mark.everyday("sqlite", "postgres+asyncpg")
@STRATEGIES
def test_what_the_test_has_rolled_back_is_not_there(
    project: Project, target: Target, strategy: str
) -> None:
    project.tests(
        """
        async def test_it(asyncdb_sessionmaker, asyncdb_session):
            await add(asyncdb_session, "ada")
            await asyncdb_session.commit()
            async with asyncdb_sessionmaker() as session:
                await add(session, "bob")
                raise LookupError
        """
    )
    run = project.run_apart(target, "--asyncdb-keep", f"--asyncdb-isolation={strategy}").had(
        failed=1
    )
    (command,) = kept(run).values()
    assert rows(command) == ["ada"]


@pytest.mark.complete
def test_a_fixture_that_fails_counts_as_the_test(project: Project, sqlite: Target) -> None:
    project.tests(
        """
        @pytest.fixture
        async def user(asyncdb_session):
            await add(asyncdb_session, "ada")
            raise LookupError

        async def test_it(user): pass
        """
    )
    run = project.run_apart(sqlite, "--asyncdb-keep").had(errors=1)
    (command,) = kept(run).values()
    assert rows(command) == ["ada"]


@pytest.mark.complete
def test_workers_keep_as_well(project: Project, postgres: Target) -> None:
    project.tests(
        """
        @pytest.mark.parametrize("name", ["ada", "bob", "cyd", "dan"])
        async def test_it(asyncdb_session, name):
            await add(asyncdb_session, name)
            assert name in ("bob", "cyd")
        """
    )
    run = project.run_apart(postgres, "--asyncdb-keep", "-n", "2").had(passed=2, failed=2)
    found = {test: rows(command) for test, command in kept(run).items()}
    assert sorted(found.values()) == [["ada"], ["dan"]]
    assert all(name in test for test, (name,) in found.items())


@pytest.mark.everyday("postgres-local")
@pytest.mark.parametrize(
    "server", ["postgres-local", "mariadb-local", "postgres-container", "mysql-container"]
)
def test_a_server_of_ours_outlives_the_run_for_it(
    project: Project, servers: Servers, server: str
) -> None:
    """Until ``reap``, and only if a test has failed."""
    name, _, provider = server.partition("-")
    servers.need(name, provider)
    nobody = Target(name, None, observer_of(None))
    arguments = (f"--asyncdb-server={provider}", "--asyncdb-keep")
    project.tests(TESTS)
    project.run_apart(nobody, *arguments, "-k", "passes").had(passed=1)
    assert list(records()) == []
    run = project.run_apart(nobody, *arguments).had(passed=1, failed=1)
    (command,) = kept(run).values()
    (record,) = records()
    assert str(record.server.password) not in run.text
    assert rows(command) == ["committed", "open"]
    assert reap()[0] == f"removed: {record}"
    assert not Path(record.place).exists()
    assert not record.owner.alive()
    if provider == "container":
        with docker() as client:
            assert containers(client, name=f"^/{record.place}$") == []


@pytest.mark.complete
@pytest.mark.parametrize("provider", ["local", "container"])
def test_on_a_server_that_stays_it_outlives_later_runs(
    project: Project, servers: Servers, provider: str
) -> None:
    servers.need("postgres", provider)
    nobody = Target("postgres", None, observer_of(None))
    arguments = (f"--asyncdb-server={provider}", "--asyncdb-reuse")
    project.tests(TESTS)
    run = project.run_apart(nobody, *arguments, "--asyncdb-keep").had(passed=1, failed=1)
    (command,) = kept(run).values()
    project.run_apart(nobody, *arguments).had(passed=1, failed=1)
    assert rows(command) == ["committed", "open"]
    (record,) = records()
    assert Path(record.folder, "keep").exists()  # its supervisor waits for longer


def test_only_the_first_ten_of_a_process_are_kept(project: Project, sqlite: Target) -> None:
    project.tests(
        """
        @pytest.mark.parametrize("number", range(11))
        async def test_it(asyncdb_session, number):
            raise LookupError
        """
    )
    run = project.run_apart(sqlite, "--asyncdb-keep").had(failed=11)
    assert len(kept(run)) == 10
    run.shows(
        """
        asyncdb: not kept: test_it.py::test_it[sqlite-10]
        the first 10 of this process are
        """
    )


def test_where_a_server_cannot_stay(project: Project, servers: Servers, place: Path) -> None:
    """As a container cannot whose engine is reached over TLS or ssh."""
    servers.need("postgres", "container")
    nobody = Target("postgres", None, observer_of(None))
    project.write(
        "conftest.py",
        """
        from pytest_asyncdb.servers.container import ContainerProvider

        ContainerProvider.keeps = False
        """,
    )
    project.tests(TESTS)
    words = ("--asyncdb-server=container", "--asyncdb-keep", "--asyncdb-reuse", "-v")
    run = project.run_apart(nobody, *words)
    assert "; not kept: this provider cannot), rollback" in run.text
    run.had(passed=1, failed=1).shows(
        """
        asyncdb: not kept: test_it.py::test_fails[postgres]
        a server from 'container' ends with the run; one by URL, or by --asyncdb-server=local, can stay
        """
    )
    assert not place.exists()


def test_a_connection_that_was_lost_has_nothing_to_keep(project: Project, postgres: Target) -> None:
    project.tests(
        """
        async def test_it(asyncdb_session):
            await add(asyncdb_session, "ada")
            await asyncdb_session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

        async def test_next(asyncdb_session):
            assert await names(asyncdb_session) == []
        """
    )
    run = project.run_apart(postgres, "--asyncdb-keep")
    run.had(passed=1, failed=1)
    run.shows(
        """
        asyncdb: not kept: test_it.py::test_it[postgres-asyncpg]
        the transaction of the test was lost
        """
    )
    assert kept(run) == {}


def test_what_still_runs_a_statement_is_not_kept(project: Project, postgres: Target) -> None:
    """A task on a loop that goes on. What it has done so far nobody knows."""
    project.ini(
        asyncio_default_test_loop_scope="session", asyncio_default_fixture_loop_scope="session"
    )
    project.tests(
        """
        from sqlalchemy import event

        async def test_it(asyncdb_engine):
            runs = asyncio.Event()
            event.listen(asyncdb_engine.sync_engine, "before_cursor_execute", lambda *_: runs.set())

            async def sleep():
                async with asyncdb_engine.connect() as connection:
                    await connection.execute(text("SELECT pg_sleep(60)"))

            task = asyncio.create_task(sleep())
            await runs.wait()
            raise LookupError(task)
        """
    )
    run = project.run_apart(postgres, "--asyncdb-keep")
    run.shows(
        """
        asyncdb: not kept: test_it.py::test_it[postgres-asyncpg]
        something of the test was still running a statement
        """
    )
    assert kept(run) == {}


@pytest.mark.complete
def test_where_nothing_can_be_noted_nothing_is_kept(
    project: Project, postgres: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would find it again."""
    file = project.path / "test_it.py"
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    project.tests(TESTS)
    run = project.run_apart(postgres, "--asyncdb-keep").had(passed=1, failed=1)
    run.shows(
        f"""
        asyncdb: not kept: test_it.py::test_fails[postgres-asyncpg]
        FileExistsError: [Errno 17] File exists: '{file}'
        """
    )
    (number,) = re.findall(r"^run id: (\w{8})$", run.text, re.MULTILINE)
    assert [name for name in postgres.observer.databases() if number in name] == []
