"""xdist: one server for a run, a database for each worker, whatever the workers do."""

from __future__ import annotations

import pytest
from fix_project import Project
from fix_servers import Servers, Target

#: Backends whose databases the observer can list.
SERVERS = ("postgres+asyncpg", "mysql+asyncmy", "mariadb+aiomysql")

RECORD = """
    from pathlib import Path

    SEEN = Path(__file__).parent / "seen"
    SEEN.mkdir(exist_ok=True)

    async def record(session, worker):
        url = session.get_bind().url
        (SEEN / f"{worker}-{url.port}-{url.database}").touch()

    @pytest.mark.parametrize("n", range(12))
    async def test_each(n, asyncdb_session, worker_id):
        await record(asyncdb_session, worker_id)
        assert await names(asyncdb_session) == []
        await add(asyncdb_session, "ada")
        await asyncdb_session.commit()
"""


@pytest.fixture(params=SERVERS, ids=lambda word: word.replace("+", "-"))
def target(request: pytest.FixtureRequest, servers: Servers) -> Target:
    return servers.target(request.param)


@pytest.fixture
def postgres(servers: Servers) -> Target:
    return servers.target("postgres+asyncpg")


def seen(project: Project) -> list[tuple[str, str, str]]:
    """Worker, port and database of every test."""
    names = (path.name.split("-") for path in (project.path / "seen").iterdir())
    return [(worker, port, database) for worker, port, database in names]


@pytest.mark.everyday("postgres+asyncpg")
def test_each_worker_has_a_database_of_its_own_on_one_server(
    project: Project, target: Target
) -> None:
    project.tests(RECORD)
    outcome = project.run_apart(target, "-n", "3")
    outcome.result.assert_outcomes(passed=12)
    workers, ports, databases = map(set, zip(*seen(project), strict=True))
    assert len(workers) == 3
    assert len(ports) == 1
    assert len(databases) == 3


def test_the_controller_starts_one_server_for_all_workers(project: Project) -> None:
    """Counted by the port and the start time that the server itself reports."""
    project.tests(
        """
        from pathlib import Path

        SEEN = Path(__file__).parent / "seen"
        SEEN.mkdir(exist_ok=True)

        @pytest.mark.parametrize("n", range(8))
        async def test_each(n, asyncdb_session, worker_id):
            sql = "SELECT extract(epoch from pg_postmaster_start_time())"
            started = await asyncdb_session.scalar(text(sql))
            (SEEN / f"{worker_id}-{asyncdb_session.get_bind().url.port}-{started}").touch()
        """
    )
    result = project.pytester.runpytest_subprocess(
        *("-p", "no:randomly", "-n", "3", "--asyncdb=postgres", "--asyncdb-server=local")
    )
    result.assert_outcomes(passed=8)
    workers, ports, started = map(set, zip(*seen(project), strict=True))
    assert len(workers) == 3
    assert len(ports) == 1
    assert len(started) == 1


@pytest.mark.everyday("load")
@pytest.mark.parametrize("dist", ["load", "loadscope", "loadfile", "loadgroup", "worksteal"])
def test_every_way_of_distribution_works(project: Project, postgres: Target, dist: str) -> None:
    project.tests(RECORD)
    project.tests(RECORD, name="test_more.py")
    outcome = project.run_apart(postgres, "-n", "2", "--dist", dist)
    outcome.result.assert_outcomes(passed=24)


def test_dist_each_runs_every_test_in_every_worker(project: Project, postgres: Target) -> None:
    project.tests(RECORD)
    outcome = project.run_apart(postgres, "--dist", "each", "--tx", "2*popen")
    outcome.result.assert_outcomes(passed=24)


@pytest.mark.everyday("postgres+asyncpg")
def test_a_worker_that_crashes_is_replaced_and_leaves_nothing(
    project: Project, target: Target
) -> None:
    project.tests(
        RECORD,
        """
    async def test_crash(asyncdb_session):
        import os

        await add(asyncdb_session, "ada")
        await asyncdb_session.commit()
        os._exit(1)
    """,
    )
    outcome = project.run_apart(target, "-n", "2", "--max-worker-restart=2")
    outcome.result.assert_outcomes(passed=12, failed=1)


def test_each_of_many_backends_has_a_database_of_its_own(project: Project) -> None:
    """Also the ninth: one letter in the database's name stood for eight backends."""
    project.write(
        "our_backends.py",
        """
        from pytest_asyncdb.backends.sqlite import SQLite

        for n in range(28):
            globals()[f"B{n}"] = type(f"B{n}", (SQLite,), {"name": f"b{n}", "label": f"B{n}"})
        """,
    )
    project.write(
        "conftest.py",
        """
        def pytest_asyncdb_register(registry):
            for n in range(28):
                registry.add_backend(f"b{n}", f"our_backends:B{n}")
        """,
    )
    project.tests(
        """
        SEEN = set()

        async def test_it(asyncdb_session):
            assert await names(asyncdb_session) == []
            name = asyncdb_session.get_bind().url.database
            assert name not in SEEN
            SEEN.add(name)
        """
    )
    words = ",".join(f"b{n}" for n in range(28))
    result = project.pytester.runpytest_inprocess(f"--asyncdb={words}", "-p", "no:randomly")
    result.assert_outcomes(passed=28)


def test_a_server_that_cannot_be_had_is_told_by_every_worker(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    project.tests("def test_a(asyncdb_session): pass\ndef test_b(asyncdb_session): pass")
    result = project.pytester.runpytest_subprocess("-n", "2", "--asyncdb=mysql@5.0")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["no MySQL server is available (--asyncdb=mysql@5.0)"])
