"""What other plugins see: time limits, blocked sockets, stored parameters, plans, forked children, trio."""

from __future__ import annotations

from typing import Any

import pytest
from fix_project import Project
from fix_servers import Servers, Target

from pytest_asyncdb._run.stash import RUN


class Recorder:
    """A plugin that looks at the run as others do."""

    def __init__(self) -> None:
        #: For each test whether its server had started when the test began.
        self.ready: list[bool] = []
        #: Of each test the parameter, as text.
        self.parameters: list[str] = []
        #: The servers that were asked for.
        self.asked: list[Any] = []

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        """pytest-timeout sets its timer here."""
        run = item.config.stash[RUN]
        assert run.owned is not None
        self.ready.append(run.owned.started(run.settings.specs[0]) is not None)
        yield

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """allure stores this for the history of a test."""
        specs = [item.callspec for item in items if hasattr(item, "callspec")]
        self.parameters += [repr(spec.params["asyncdb_backend"]) for spec in specs]

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        owned = session.config.stash[RUN].owned
        assert owned is not None
        self.asked += owned._futures


@pytest.fixture
def sqlite(servers: Servers) -> Target:
    return servers.target("sqlite")


def watched(project: Project, *arguments: str) -> tuple[Recorder, pytest.RunResult]:
    recorder = Recorder()
    result = project.pytester.runpytest_inprocess(*arguments, plugins=[recorder])
    return recorder, result


@pytest.mark.parametrize(
    "test",
    [
        pytest.param("def test_it(asyncdb_session): pass", id="parametrised"),
        pytest.param(
            """
            import unittest

            class TestIt(unittest.TestCase):
                @pytest.fixture(autouse=True)
                def database(self, asyncdb_session): pass

                def test_it(self): pass
            """,
            id="unittest",
        ),
    ],
)
def test_a_server_is_ready_before_the_time_of_the_first_test_is_measured(
    project: Project, servers: Servers, test: str
) -> None:
    """pytest-timeout would kill the first test for the start of a server."""
    servers.need("postgres", "embedded")
    project.tests(test)
    recorder, result = watched(project, "--asyncdb=postgres", "--asyncdb-server=local")
    result.assert_outcomes(passed=1)
    assert recorder.ready == [True]


@pytest.mark.complete
def test_each_worker_of_xdist_waits_for_the_server_too(project: Project, servers: Servers) -> None:
    project.write(
        "conftest.py",
        """
        import pytest
        from pytest_asyncdb._run.stash import RUN

        @pytest.hookimpl(hookwrapper=True)
        def pytest_runtest_protocol(item):
            assert item.config.stash[RUN].servers.get.cache_info().currsize
            yield
        """,
    )
    project.tests('@pytest.mark.parametrize("n", range(4))\ndef test_it(asyncdb_session, n): pass')
    project.run_apart(servers.target("postgres+asyncpg"), "-n", "2").had(passed=4)


@pytest.mark.parametrize(
    "word",
    [
        "postgres+asyncpg",
        pytest.param("postgres+psycopg", marks=pytest.mark.complete),
        pytest.param("mariadb+asyncmy", marks=pytest.mark.complete),
        pytest.param("mariadb+aiomysql", marks=pytest.mark.complete),
    ],
)
def test_a_driver_does_not_keep_what_a_test_has_replaced_in_datetime(
    project: Project, servers: Servers, word: str
) -> None:
    """freezegun does this, and servers start while tests run. It stayed until the end of the run.

    Control: what is imported in the test has the class of the test.
    """
    project.write(
        "conftest.py",
        """
        import datetime
        import sys

        import pytest
        from pytest_asyncdb._run.stash import RUN

        replaced = pytest.MonkeyPatch()

        class Date(datetime.date): pass

        def pytest_runtestloop():
            replaced.setattr(datetime, "date", Date)  # the servers are about to start

        @pytest.fixture
        def database_is_ready(pytestconfig):
            run = pytestconfig.stash[RUN]
            run.server(run.settings.specs[1])
            sys.modules.pop("pymysql.converters", None)
            from pymysql.converters import encoders
            assert Date in encoders
            replaced.undo()
        """,
    )
    project.tests(
        """
        import datetime

        @pytest.mark.asyncdb("sqlite")
        def test_replaces(asyncdb_engine, database_is_ready): pass

        @pytest.mark.asyncdb(exclude="sqlite")
        async def test_later(asyncdb_session):
            await asyncdb_session.execute(text("CREATE TEMPORARY TABLE t (d DATE)"))
            day, column = datetime.date(2020, 2, 29), "INSERT INTO t VALUES (:day)"
            await asyncdb_session.execute(text(column), {"day": day})
            found = await asyncdb_session.scalar(text("SELECT d FROM t"))
            assert (found, type(found)) == (day, datetime.date)
        """
    )
    project.run_apart(servers.target(word), f"--asyncdb=sqlite,{word}").had(passed=2)


def test_writers_wait_for_each_other_while_the_time_is_frozen(
    project: Project, sqlite: Target
) -> None:
    """freezegun replaces the clock of event loops. Control: the same on a plain engine."""
    project.tests(
        """
        import time

        from sqlalchemy.ext.asyncio import create_async_engine

        async def write(engine, word):
            async with AsyncSession(engine) as session, session.begin():
                session.add(User(name=word))
                await session.flush()
                await asyncio.sleep(0)

        @pytest.mark.asyncdb(isolation="reset")
        async def test_it(asyncdb_engine, monkeypatch, tmp_path):
            plain = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/plain.db")
            async with plain.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            monkeypatch.setattr(time, "monotonic", lambda: 1e9)
            for engine in (plain, asyncdb_engine):
                await asyncio.gather(*(write(engine, word) for word in ("ada", "bob", "eve")))
            await plain.dispose()
        """
    )
    project.run(sqlite, "-n0").passed(1)


def test_a_server_that_does_not_start_is_reported_by_its_test(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    project.tests("def test_it(asyncdb_session): pass\ndef test_other(): pass")
    result = project.pytester.runpytest_inprocess("--asyncdb=mysql@5.0")
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(["no MySQL server is available (--asyncdb=mysql@5.0)"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--setup-plan"],
        ["--collect-only"],
        ["--fixtures-per-test"],
        ["-k", "not it"],
        ["-k", "skipped"],
        pytest.param(["-p", "broken"], id="a file that cannot be imported"),
    ],
    ids=" ".join,
)
def test_no_server_is_started_that_no_test_needs(project: Project, arguments: list[str]) -> None:
    """There is no such server, so a run that asks for it is seen without one."""
    project.tests(
        """
        def test_it(asyncdb_session): pass

        @pytest.mark.skip
        def test_skipped(asyncdb_session): pass
        """
    )
    project.write("broken.py", "")
    if "broken" in arguments:
        project.write("test_broken.py", "import no_such_module")
    recorder, _ = watched(project, "--asyncdb=mysql@5.0", *arguments)
    assert recorder.parameters
    assert recorder.asked == []


def test_a_stored_parameter_is_the_word_whatever_else_the_run_has(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """allure recognises a test by the text of its parameters; pytest shows it, too."""
    project.tests("def test_it(asyncdb_engine): pass")
    alone, result = watched(project, "--setup-plan", "--asyncdb=postgres+psycopg@17")
    result.stdout.fnmatch_lines(["SETUP    S asyncdb_backend[[]postgres+psycopg@17[]]"])
    monkeypatch.setenv("ASYNCDB_BACKENDS", "sqlite,postgres+psycopg@17")
    together, _ = watched(project, "--setup-plan")
    assert alone.parameters == ["postgres+psycopg@17"]
    assert together.parameters == ["sqlite", "postgres+psycopg@17"]


@pytest.mark.everyday("postgres+asyncpg")
@pytest.mark.parametrize(
    "workers",
    [pytest.param((), id="alone"), pytest.param(("-n", "2"), marks=pytest.mark.complete, id="n2")],
)
def test_forked_children_have_databases_of_their_own(
    project: Project, target: Target, workers: tuple[str, ...]
) -> None:
    """A child ends without the end of a run, so it drops its databases after its test."""
    project.tests(
        """
        NAME = "ada"

        async def test_before(asyncdb_session):
            await add(asyncdb_session, NAME)
            await asyncdb_session.commit()

        async def test_forked(asyncdb_session):
            assert await names(asyncdb_session) == []
            await add(asyncdb_session, NAME)
            await asyncdb_session.commit()

        @pytest.mark.asyncdb(isolation="reset")
        async def test_forked_with_real_commits(asyncdb_session):
            assert await names(asyncdb_session) == []
            await add(asyncdb_session, NAME)
            await asyncdb_session.commit()

        async def test_later(asyncdb_session, asyncdb_backend, asyncdb_url):
            assert await names(asyncdb_session) == []
            if asyncdb_backend.name == "postgres":
                prefix = "_".join(asyncdb_url.database.split("_")[:2])
                query = text("SELECT datname FROM pg_database WHERE datname LIKE :prefix")
                found = await asyncdb_session.scalars(query, {"prefix": f"{prefix}%"})
                assert [name for name in found if name.count("_") > 4] == []
        """
    )
    project.run_apart(target, "-p", "forking", *workers).had(passed=4)


def test_a_test_for_trio_is_refused_with_the_reason(project: Project, sqlite: Target) -> None:
    """pytest-trio's marker, also when its option trio_mode sets it."""
    project.ini(asyncio_mode="strict", markers="trio: pytest-trio")
    project.tests(
        """
        @pytest.mark.trio
        def test_it(asyncdb_session): pass

        @pytest.mark.trio
        def test_without_a_database(): pass
        """
    )
    project.run(sqlite).had(errors=1, passed=1).shows(
        """
        the test runs on trio, which no async SQLAlchemy driver supports (@pytest.mark.trio)

        test: test_it.py::test_it[sqlite]

        To fix this: keep database tests on asyncio: mark it asyncio or anyio
        """
    )


@pytest.mark.everyday("postgres+asyncpg")
def test_a_test_that_runs_out_of_time_leaves_a_clean_database(
    project: Project, target: Target
) -> None:
    """The settings of docs/howto/other-plugins.md, with a shorter time for one test."""
    project.ini(timeout="60", timeout_func_only="true")
    project.tests(
        """
        import asyncio

        @pytest.mark.timeout(1)
        async def test_slow(asyncdb_session):
            await add(asyncdb_session, "ada")
            await asyncio.Event().wait()

        async def test_next(asyncdb_session):
            assert await names(asyncdb_session) == []
        """
    )
    outcome = project.run_apart(target, "-p", "pytest_timeout")
    # The error is the task that the timeout left behind.
    outcome.had(passed=1, failed=1, errors=1)
    assert "Timeout (>1.0s) from pytest-timeout" in outcome.text


#: Waits in its first call only.
SLOW = """
import asyncio
import pytest

calls = []

@pytest.fixture(scope="session")
def asyncdb_seed():
    async def seed(session):
        calls.append(session)
        if len(calls) == 1:
            await asyncio.Event().wait()
    return seed
"""


@pytest.mark.everyday("sqlite", "postgres+asyncpg")
def test_a_time_limit_that_ends_a_seed_is_no_fault_of_the_seed(
    project: Project, target: Target
) -> None:
    """The next test builds the database again."""
    project.write("conftest.py", SLOW)
    project.ini(timeout="60")
    project.tests(
        """
        @pytest.mark.asyncdb(schema=False)
        def test_imports(asyncdb_session): pass

        @pytest.mark.timeout(1, method="signal")
        def test_first(asyncdb_session): pass

        def test_next(asyncdb_session): pass
        """
    )
    outcome = project.run_apart(target, "-p", "pytest_timeout")
    outcome.had(passed=2, errors=1)
    assert outcome.text.count("\nFailed: Timeout (>1.0s)") == 1
    assert "Task was destroyed" not in str(outcome.result.stderr)


@pytest.mark.everyday("postgres+asyncpg")
def test_blocked_sockets_let_tests_reach_their_server(project: Project, target: Target) -> None:
    """The setting of docs/howto/other-plugins.md. The control is a host that is not allowed."""
    project.ini(addopts="--allow-hosts=127.0.0.1")
    project.tests(
        """
        import socket

        async def test_it(asyncdb_session):
            await add(asyncdb_session, "ada")

        @pytest.mark.filterwarnings("ignore")
        def test_elsewhere():
            with pytest.raises(RuntimeError, match="A test tried to use socket.socket.connect"):
                socket.create_connection(("192.0.2.1", 9), timeout=1)
        """
    )
    project.run_apart(target, "-p", "pytest_socket").had(passed=2)
