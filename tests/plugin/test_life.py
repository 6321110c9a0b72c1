"""The life of a run: nothing before it is needed, nothing after the end, whatever the end."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fix_chaos import listen_to_ctrl_c
from fix_observer import left_behind
from fix_project import Project
from fix_servers import Servers

#: Notes, when the run is over, what was imported and which processes were started.
WITNESS = """
import os
import sys
from pathlib import Path


def pytest_unconfigure(config):
    loaded = {"sqlalchemy", "aiosqlite", "asyncpg", "psycopg", "testcontainers"} & set(sys.modules)
    children = Path("/proc/self/task").glob("*/children")
    started = "".join(path.read_text() for path in children).split()
    Path("witness").write_text(f"{sorted(loaded)} {started}")
"""

#: Tells that it has begun, then waits for a signal that ends the run.
WAITING = """
    async def test_waiting(asyncdb_session):
        await add(asyncdb_session, "ada")
        await asyncdb_session.commit()
        url = asyncdb_session.get_bind().url
        print(f"begun {url.port} {url.database}", flush=True)
        await asyncio.Event().wait()
"""


@pytest.mark.parametrize(
    "arguments", [("--collect-only",), ("-k", "not database")], ids=["collect-only", "deselected"]
)
def test_a_run_that_needs_no_database_imports_and_starts_nothing(
    project: Project, arguments: tuple[str, ...]
) -> None:
    project.write("conftest.py", WITNESS)
    project.write(
        "test_it.py",
        "def test_database(asyncdb_session): pass\ndef test_other(): pass\n",
    )
    result = project.pytester.runpytest_subprocess(
        *("-p", "no:randomly", "--asyncdb=sqlite,postgres,mariadb", *arguments)
    )
    assert result.ret == 0
    assert (project.path / "witness").read_text() == "[] []"


def test_the_control_imports_and_starts(project: Project) -> None:
    """The witness sees what a database test imports and starts."""
    project.write(
        "conftest.py", WITNESS.replace("def pytest_unconfigure", "def pytest_runtest_logfinish")
    )
    conftest = project.path / "conftest.py"
    conftest.write_text(conftest.read_text().replace("(config)", "(nodeid)"))
    project.tests("async def test_database(asyncdb_session): await names(asyncdb_session)")
    result = project.pytester.runpytest_subprocess("--asyncdb=postgres", "--asyncdb-server=local")
    result.assert_outcomes(passed=1)
    witness = (project.path / "witness").read_text()
    assert "sqlalchemy" in witness
    assert re.search(r"\['\d+'\]$", witness)


def test_without_the_plugin_no_trace_is_left(project: Project) -> None:
    project.ini(asyncdb_metadata=None)
    project.write("test_it.py", "def test_it(asyncdb_session): pass")
    result = project.pytester.runpytest_subprocess("-p", "no:asyncdb", "--fixtures")
    assert "asyncdb" not in re.sub(r"(?m)^(rootdir|plugins|configfile).*$", "", str(result.stdout))
    result = project.pytester.runpytest_subprocess("-p", "no:asyncdb", "--asyncdb=sqlite")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result = project.pytester.runpytest_subprocess("-p", "no:asyncdb")
    result.assert_outcomes(errors=1)


@pytest.mark.parametrize("plugin", ["terminal", "setupplan"])
@pytest.mark.parametrize("fixture", ["asyncdb_session", "request"])
def test_a_run_without_a_plugin_of_pytest(project: Project, plugin: str, fixture: str) -> None:
    """Whether or not its tests use a database."""
    project.tests(
        f"""
        def test_passes({fixture}):
            pass

        def test_fails({fixture}):
            assert 0
        """
    )
    junit = project.pytester.path / "junit.xml"
    arguments = ("-p", f"no:{plugin}", "--asyncdb=sqlite", f"--junitxml={junit}")
    result = project.pytester.runpytest_inprocess(*arguments)
    assert result.ret == 1
    assert 'errors="0" failures="1" skipped="0" tests="2"' in junit.read_text()


def test_the_header_has_a_short_line_for_each_backend(project: Project, servers: Servers) -> None:
    """Before a server is started; with ``-v`` also the reason, the tuning and versions."""
    url = servers.target("mariadb+asyncmy").url
    arguments = (
        "--asyncdb=sqlite,postgres+psycopg,mariadb+asyncmy",
        *("--asyncdb-server=postgres=local", f"--asyncdb-url={url}"),
    )
    result = project.pytester.runpytest_inprocess(*arguments)
    header = [line for line in result.outlines if line.startswith("asyncdb: ")]
    lines = [
        r"SQLite 3\.\S+ · aiosqlite · memory · rollback",
        r"PostgreSQL \S+ · psycopg · (embedded|local) · rollback",
        r"MariaDB · asyncmy · url · rollback",
    ]
    assert len(header) == len(lines)
    for found, line in zip(header, lines, strict=True):
        assert re.fullmatch(f"asyncdb: {line}", found)
    result = project.pytester.runpytest_inprocess(*arguments, "-v")
    header = [line for line in result.outlines if line.startswith("asyncdb: ")]
    lines = [
        r"sqlite: SQLite 3\.\S+, aiosqlite \S+, memory \(in this process\), rollback",
        r"postgres\+psycopg: PostgreSQL \S+, psycopg 3\.\S+, (embedded|local) \([^;]+; "
        r"data (in memory|on disk), no fsync, no full-page writes\), rollback",
        r"mariadb\+asyncmy: MariaDB, asyncmy \S+, url \(--asyncdb-url\), rollback",
    ]
    assert len(header) == len(lines)
    for found, line in zip(header, lines, strict=True):
        assert re.fullmatch(f"asyncdb: {line}", found)


@pytest.mark.everyday("local")
@pytest.mark.parametrize(
    ("provider", "signum"),
    [
        ("local", signal.SIGINT),
        ("local", signal.SIGTERM),
        ("local", signal.SIGKILL),
        ("url", signal.SIGINT),
        ("url", signal.SIGTERM),
        ("url", signal.SIGKILL),
    ],
)
def test_a_run_that_is_ended_leaves_nothing(
    project: Project, servers: Servers, provider: str, signum: signal.Signals
) -> None:
    """Ctrl-C, SIGTERM, and SIGKILL for a server of ours. What a SIGKILL leaves on an
    external server stays there (docs/servers.md)."""
    target = servers.target("postgres+asyncpg")
    where = target.arguments if provider == "url" else ["--asyncdb=postgres"]
    project.tests(WAITING)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "pytest", "-s", "-p", "no:randomly", "-p", "run_id"),
            *where,
            f"--asyncdb-server={provider}",
        ],
        cwd=project.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(project.path)},
        preexec_fn=listen_to_ctrl_c,
    )
    assert process.stdout is not None
    with process:
        output = ""
        while not (begun := re.search(r"begun (\d+) (\w+)", output)):
            line = process.stdout.readline()
            assert line, output
            output += line
        postmaster = _listener(int(begun[1])) if provider == "local" else None
        process.send_signal(signum)
        output += process.stdout.read()
        process.wait(30)
    assert process.returncode == (2 if signum != signal.SIGKILL else -signal.SIGKILL), output
    if postmaster is not None:
        assert select.select([postmaster], [], [], 20)[0], "the server outlived the run"
        os.close(postmaster)
    left = left_behind(target.observer, output)
    if signum == signal.SIGKILL and provider == "url":
        # The control: the observer sees what is left, the template and its copy.
        assert left == {begun[2], begun[2].replace("_main_0_1", "_t1")}
        for database in left:
            target.observer.query(f"DROP DATABASE {database}")
    else:
        assert left == set()


@pytest.mark.everyday("local")
@pytest.mark.parametrize("provider", ["url", "local", "memory"])
def test_threads_import_nothing_of_ours(project: Project, servers: Servers, provider: str) -> None:
    """pytest rewrites it, which CPython 3.11 cannot do in two threads at once. Left to
    themselves, the threads import what looks for traces, and the lease."""
    project.tests("async def test_it(asyncdb_session): assert await names(asyncdb_session) == []")
    target = servers.target("sqlite" if provider == "memory" else "postgres+asyncpg")
    arguments = target.arguments
    if provider == "local":
        servers.need("postgres", "local")
        arguments = ["--asyncdb=postgres", "--asyncdb-server=local"]
    result = project.pytester.runpytest_subprocess("-p", "import_threads", *arguments)
    result.assert_outcomes(passed=1)
    assert "imported in threads:" in [line.strip() for line in result.outlines]


def _listener(port: int) -> int:
    """A pidfd of the process that listens on a port of 127.0.0.1: readable once it ended."""
    address = f"0100007F:{port:04X}"
    rows = Path("/proc/net/tcp").read_text().splitlines()
    inode = next(r.split()[9] for r in rows if r.split()[1] == address and r.split()[3] == "0A")
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(fd.readlink()) == f"socket:[{inode}]" for fd in (folder / "fd").iterdir()):
                return os.pidfd_open(int(folder.name))
        except OSError:
            continue
    raise AssertionError(f"nobody listens on port {port}")
