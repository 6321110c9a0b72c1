"""What can be tried of Windows on another system: runs without the names that its Python lacks,
on a loop that watches no sockets (``tests/inner/like_windows.py``)."""

from __future__ import annotations

import pytest
from fix_project import Project
from fix_servers import Servers, Target
from fix_suite import WORDS

LIKE_WINDOWS = ("-p", "like_windows")

TESTS = """
    import os
    import signal

    def test_this_is_like_windows():
        assert os.name != "posix"
        assert not hasattr(signal, "SIGKILL") and not hasattr(os, "fork")

    async def test_the_loop_is_like_that_of_windows():
        with pytest.raises(NotImplementedError):
            asyncio.get_running_loop().add_reader(0, print)

    @pytest.mark.asyncdb(isolation=STRATEGIES)
    class TestEach:
        async def test_a_commit(self, asyncdb_session):
            assert await names(asyncdb_session) == []
            await add(asyncdb_session, "ada")
            await asyncdb_session.commit()
            assert await names(asyncdb_session) == ["ada"]

        async def test_it_is_gone(self, asyncdb_session):
            assert await names(asyncdb_session) == []

        async def test_sessions_of_several_tasks(self, asyncdb_sessionmaker):
            async def write(word):
                async with asyncdb_sessionmaker.begin() as session:
                    await add(session, word)

            await asyncio.gather(*(write(word) for word in "abc"))
            async with asyncdb_sessionmaker() as session:
                assert await names(session) == ["a", "b", "c"]

        async def test_threads_with_loops_of_their_own(self, asyncdb_engine):
            async def read():
                async with asyncdb_engine.connect() as connection:
                    return await connection.scalar(select(func.count()).select_from(User))

            assert await asyncio.to_thread(asyncio.run, read()) == 0
"""
STRATEGIES = ("rollback", "reset", "copy")
#: On each backend: a statement of half a second, longer than a test's loop stands still.
SLOW = {
    "postgres": "SELECT pg_sleep(0.5)",
    "mysql": "SELECT sleep(0.5)",
    "mariadb": "SELECT sleep(0.5)",
}
BESIDE = """
    async def test_the_loop_goes_on_during_a_slow_statement(asyncdb_session):
        turns = []

        async def count():
            while True:
                turns.append(1)
                await asyncio.sleep(0.01)

        counting = asyncio.create_task(count())
        await asyncdb_session.execute(text("{slow}"))
        counting.cancel()
        assert len(turns) >= 4
"""


def code(target: Target, strategy: str) -> list[str]:
    parts = [TESTS.replace("STRATEGIES", repr(strategy))]
    if target.backend in SLOW:
        parts.append(BESIDE.format(slow=SLOW[target.backend]))
    return parts


@pytest.mark.everyday(
    ("sqlite", "rollback"),
    ("postgres+asyncpg", "reset"),
    ("mariadb+asyncmy", "rollback"),
)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("word", WORDS)
def test_a_run_on_a_server_that_is_running(
    project: Project, servers: Servers, word: str, strategy: str
) -> None:
    """SQLite in memory and external servers need nothing that Windows lacks."""
    target = servers.target(word)
    parts = code(target, strategy)
    project.tests(*parts)
    outcome = project.run_apart(target, *LIKE_WINDOWS)
    outcome.result.assert_outcomes(passed=5 + len(parts))


def test_workers(project: Project, servers: Servers) -> None:
    """Each takes the names away, too."""
    target = servers.target("sqlite")
    project.tests(*code(target, "rollback"))
    folder = project.path / "temporary"  # else pytest asks for the user
    outcome = project.run_apart(target, *LIKE_WINDOWS, "-n", "2", f"--basetemp={folder}")
    outcome.result.assert_outcomes(passed=6)


def test_a_server_that_the_plugin_would_start(
    project: Project, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reasons name the system, and what to do is possible there."""
    servers.need("postgres", "embedded")
    servers.need("postgres", "local")
    monkeypatch.setenv("DOCKER_CONFIG", str(project.path))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    target = servers.target("sqlite")
    project.tests("async def test_it(asyncdb_session): ...")
    outcome = project.run_apart(target, *LIKE_WINDOWS, "--asyncdb=postgres")
    outcome.result.assert_outcomes(errors=1)
    outcome.shows(
        """
        no PostgreSQL server is available (--asyncdb=postgres)

        Tried, in this order:
          - url: ASYNCDB_POSTGRES_URL is not set
          - embedded: server programs are run on Linux and macOS only
          - container: no Docker engine answers at unix:///var/run/docker.sock: this system has no Unix sockets
          - local: server programs are run on Linux and macOS only

        To fix this, do one of:
          - export ASYNCDB_POSTGRES_URL=postgres://user:password@host/name
          - start Docker, with pip install "pytest-asyncdb[container]"
          - or skip these tests: --asyncdb-missing=skip
        """
    )
