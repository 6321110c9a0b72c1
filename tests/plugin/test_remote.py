"""xdist's workers on other hosts own their servers, as a run there would.

The other host is a network namespace of this machine, joined by a pair of virtual network
cards: it has a 127.0.0.1 of its own, and execnet's socket server runs there.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fix_observer import observer_of
from fix_project import QUIET, Project
from fix_servers import Servers, Target
from sqlalchemy.engine import URL

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb.abc import BackendSpec
from pytest_asyncdb.errors import ProviderUnavailable
from pytest_asyncdb.servers import server_folders

REGISTRY = Registry()


@dataclasses.dataclass(frozen=True)
class Host:
    """Another host.

    Args:
        tx: What xdist's ``--tx`` calls it.
        here: This host's address, as that one sees it.
    """

    tx: str
    here: str


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def network() -> Iterator[tuple[str, str, str]]:
    """A network namespace, its address and ours."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("nsenter") is None:
        pytest.skip("a network namespace needs root and the programs ip and nsenter")
    number = os.getpid() % 250
    name, ours, theirs = f"asyncdb{number}", f"10.213.{number}.1", f"10.213.{number}.2"
    inside = ("ip", "netns", "exec", name)
    try:
        run("ip", "netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespace can be made: {error.stderr}")
    try:
        run("ip", "link", "add", f"adb{number}a", "type", "veth", "peer", "name", f"adb{number}b")
        run("ip", "link", "set", f"adb{number}b", "netns", name)
        run("ip", "address", "add", f"{ours}/24", "dev", f"adb{number}a")
        run("ip", "link", "set", f"adb{number}a", "up")
        run(*inside, "ip", "address", "add", f"{theirs}/24", "dev", f"adb{number}b")
        run(*inside, "ip", "link", "set", f"adb{number}b", "up")
        run(*inside, "ip", "link", "set", "lo", "up")
        yield name, theirs, ours
    finally:
        run("ip", "netns", "del", name)  # and with it both cards


@pytest.fixture
def host(network: tuple[str, str, str], tmp_path: Path) -> Iterator[Host]:
    """Another host with an execnet server; its folder is empty, and it has none of our
    variables."""
    name, theirs, ours = network
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ASYNCDB_")}
    process = subprocess.Popen(
        [
            *("ip", "netns", "exec", name, sys.executable, "-u"),
            *("-m", "execnet.script.socketserver", f"{theirs}:8899"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=environment,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        assert "Entering Accept loop" in process.stdout.readline()
        try:
            yield Host(f"socket={theirs}:8899//chdir={folder}", ours)
        finally:
            process.kill()


def run_there(project: Project, host: Host, *arguments: str) -> pytest.RunResult:
    """Run the project's tests in a worker on the other host."""
    project.ini(filterwarnings=None)  # xdist's way to bring the files there is deprecated
    return project.pytester.runpytest_subprocess(
        *QUIET, "--dist", "load", "--tx", host.tx, f"--rsyncdir={project.path}",
        *arguments, str(project.path),
    )  # fmt: skip


ONE = """
    async def test_it(asyncdb_session):
        assert await names(asyncdb_session) == []
        await add(asyncdb_session, "ada")
        await asyncdb_session.commit()

    @pytest.mark.asyncdb(isolation="reset")
    async def test_again(asyncdb_session):
        assert await names(asyncdb_session) == []
        await add(asyncdb_session, "ada")
        await asyncdb_session.commit()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[URL]:
    """A PostgreSQL server on this host."""
    provider, backend = REGISTRY.provider("container"), REGISTRY.backend("postgres")
    spec = BackendSpec("postgres", written="postgres")
    try:
        found = provider.find(spec, backend, None)
    except ProviderUnavailable as reason:
        pytest.skip(f"postgres-container: {reason}")
    with provider.obtain(found, spec, backend, REGISTRY.driver(spec), print) as obtained:
        yield backend.url(obtained, "asyncpg", None)


@contextlib.contextmanager
def relay(host: str, port: int) -> Iterator[int]:
    """Forward connections to *host* to the same machine's 127.0.0.1; the port on *host*."""

    async def copy(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        with contextlib.closing(to):
            while data := await source.read(65536):
                to.write(data)

    async def forward(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        answers, server = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(OSError):
            await asyncio.gather(copy(source, server), copy(answers, to))

    started: concurrent.futures.Future[tuple[int, Callable[[], object]]]
    started = concurrent.futures.Future()

    async def serve() -> None:
        end, loop = asyncio.Event(), asyncio.get_running_loop()
        async with await asyncio.start_server(forward, host, 0) as listening:
            own = listening.sockets[0].getsockname()[1]
            started.set_result((own, lambda: loop.call_soon_threadsafe(end.set)))
            await end.wait()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, serve())
        own, stop = started.result(10)
        try:
            yield own
        finally:
            stop()


@pytest.fixture
def reachable(server: URL, host: Host) -> Iterator[Target]:
    """That server, at an address that both hosts reach."""
    assert server.port is not None
    with relay(host.here, server.port) as port:
        url = server.set(host=host.here, port=port)
        yield Target("postgres+asyncpg", url, observer_of(server))


def test_a_url_works(project: Project, host: Host, reachable: Target) -> None:
    project.tests(ONE)
    run_there(project, host, *reachable.arguments).assert_outcomes(passed=2)
    assert reachable.observer.databases() == set()


def test_workers_here_and_there_use_one_server(
    project: Project, host: Host, reachable: Target
) -> None:
    """Each host has databases of its own, and the summary has the times and outcomes of both."""
    project.tests(
        """
        @pytest.mark.parametrize("n", range(12))
        async def test_it(n, asyncdb_session, worker_id):
            assert await names(asyncdb_session) == []
            await add(asyncdb_session, "ada")
            print(f"in {worker_id}")
        """
    )
    extra = ("-rP", "--asyncdb-stats", *reachable.arguments)
    result = run_there(project, host, "--tx", "popen", *extra)
    result.assert_outcomes(passed=12)
    assert {line for line in result.outlines if line.startswith("in gw")} == {"in gw0", "in gw1"}
    result.stdout.fnmatch_lines(["asyncdb: times of a run of * by 2 workers"])
    assert reachable.observer.databases() == set()


def test_sqlite_works_everywhere(project: Project, host: Host) -> None:
    project.tests(ONE)
    run_there(project, host, "--asyncdb=sqlite").assert_outcomes(passed=2)


@pytest.mark.everyday("postgres")
@pytest.mark.parametrize("spec", ["postgres", "mariadb"])
def test_a_server_is_started_there(
    project: Project, host: Host, servers: Servers, spec: str
) -> None:
    """The worker's 127.0.0.1 is another one. Nothing stays on the host."""
    servers.need(spec, "local")
    project.tests(ONE)
    before = {folder for folder, _ in server_folders.find()}
    result = run_there(project, host, f"--asyncdb={spec}", "--asyncdb-server=local")
    result.assert_outcomes(passed=2)
    left = {folder for folder, owner in server_folders.find() if not owner.alive()}
    assert not left - before


def test_a_control_connects_to_nothing_there(network: tuple[str, str, str]) -> None:
    """The other host's 127.0.0.1 is not ours: what listens here is not there."""
    name, _, ours = network
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server((ours, 0)) as far:
        code = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"

        def connect(address: str, port: int) -> int:
            command = ("ip", "netns", "exec", name, sys.executable, "-c", code, address, str(port))
            return subprocess.run(command, capture_output=True, timeout=30).returncode

        assert connect("127.0.0.1", listener.getsockname()[1]) != 0
        assert connect(ours, far.getsockname()[1]) == 0


@pytest.mark.complete
@pytest.mark.parametrize(
    "extra",
    [
        pytest.param((), id="load"),
        pytest.param(("--dist", "each"), id="each", marks=pytest.mark.complete),
    ],
)
def test_workers_of_this_host_need_no_url(project: Project, extra: tuple[str, ...]) -> None:
    """Also with an interpreter and a folder of their own."""
    project.tests(ONE)
    elsewhere = project.path / "elsewhere"
    elsewhere.mkdir()
    result = project.pytester.runpytest_subprocess(
        *QUIET, "--dist", "load", "--tx", f"popen//python={sys.executable}",
        "--tx", f"popen//chdir={project.path}", *extra,
        "--asyncdb=postgres", "--asyncdb-server=local",
    )  # fmt: skip
    result.assert_outcomes(passed=4 if extra else 2)
