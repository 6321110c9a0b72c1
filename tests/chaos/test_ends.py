"""The end of a run is quick, and a server ends with its supervisor, which need not do anything."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fix_chaos import TESTS, Chaos, Run, kill
from fix_servers import Servers

pytestmark = pytest.mark.usefixtures("untouched")


@pytest.fixture(scope="module")
def usual() -> dict[int, float]:
    """What the end of a run on SQLite takes, by the number of workers; the best of those seen."""
    return {}


@pytest.mark.complete
@pytest.mark.parametrize(
    ("backend", "provider", "workers", "more"),
    [
        ("postgres", "local", 0, 1.0),
        ("mariadb", "local", 0, 1.0),
        ("postgres", "container", 0, 2.0),
        ("postgres", "local", 2, 2.0),
        ("postgres", "container", 2, 3.0),
    ],
)
def test_the_end_is_quick(
    chaos: Chaos,
    servers: Servers,
    usual: dict[int, float],
    backend: str,
    provider: str,
    workers: int,
    more: float,
) -> None:
    """A server that is thrown away is not shut down with care: the end takes at most so many
    seconds *more* than on SQLite."""
    servers.need(backend, provider)
    chaos.project.tests(TESTS.replace("range(30)", "range(4)"), name="test_many.py")
    where = (f"--asyncdb={backend}", f"--asyncdb-server={provider}", f"-n{workers}")
    found: list[float] = []
    for again in range(4):  # the machine may be busy with something else
        if again or workers not in usual:
            seconds = _end_takes(chaos, "--asyncdb=sqlite", f"-n{workers}")
            usual[workers] = min(seconds, usual.get(workers, seconds))
        found.append(_end_takes(chaos, *where))
        if min(found) <= usual[workers] + more:
            break
    said = f"{backend}-{provider} -n{workers}: {found}, SQLite: {usual[workers]} s"
    print(said)
    assert min(found) <= usual[workers] + more, said


def _end_takes(chaos: Chaos, *arguments: str) -> float:
    """Seconds from the end of the last test to that of the process."""
    run = chaos.start(*arguments)
    assert run.end() == 0, run.text
    run.leaves_nothing()
    assert run.ended is not None
    return run.ended - run.tests_ended


PROGRAMS = {"postgres": "postgres", "mariadb": "mariadbd"}


def _in_its_tests(chaos: Chaos, servers: Servers, backend: str) -> tuple[Run, list[str]]:
    servers.need(backend, "local")
    arguments = [f"--asyncdb={backend}", "--asyncdb-server=local"]
    run = chaos.start(*arguments)
    while run.begun < 5:
        assert run.at(run.age + 0.005), run.text
    return run, arguments


def _supervisor(run: Run) -> int:
    (found,) = [pid for pid in run.look() if b"supervisor.py" in _read(pid, "cmdline")]
    return found


def _servers_of(run: Run, backend: str) -> list[int]:
    found = []
    for pid in run.look():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/exe").readlink().name == PROGRAMS[backend]:
                found.append(pid)
    return found


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _all_end(run: Run, backend: str) -> None:
    """Wait until none of a server's processes is there, whoever is told to end them."""
    until = time.monotonic() + 10
    while found := _servers_of(run, backend):
        assert time.monotonic() < until, found


@pytest.mark.parametrize(
    "backend", ["postgres", pytest.param("mariadb", marks=pytest.mark.complete)]
)
def test_the_server_ends_with_a_supervisor_that_is_killed_with_the_run(
    chaos: Chaos, servers: Servers, backend: str
) -> None:
    """Nobody is left who would do anything: the kernel does it. The folder is for the next run."""
    run, arguments = _in_its_tests(chaos, servers, backend)
    os.kill(run.pid, signal.SIGSTOP)  # not dead yet, or another test's run would remove all of it
    assert _servers_of(run, backend)
    try:
        kill([_supervisor(run)])
        _all_end(run, backend)
    finally:
        kill([run.pid])
    assert run.end() == -signal.SIGKILL
    chaos.next(*arguments)
    run.leaves_nothing()


@pytest.mark.complete
@pytest.mark.parametrize(("backend", "stopped"), [("postgres", False), ("mariadb", True)])
def test_the_server_ends_with_a_supervisor_that_is_killed_alone(
    chaos: Chaos, servers: Servers, backend: str, stopped: bool
) -> None:
    """Also one that is stopped, which could not even see a signal."""
    run, arguments = _in_its_tests(chaos, servers, backend)
    supervisor = _supervisor(run)
    if stopped:
        os.kill(supervisor, signal.SIGSTOP)
    assert _servers_of(run, backend)
    kill([supervisor])
    _all_end(run, backend)
    assert run.end() == 1, run.text
    assert run.failures()
    run.says_that_the_server_is_gone(backend, "local", begun=5)
    chaos.next(*arguments)
    run.leaves_nothing()


@pytest.mark.complete
@pytest.mark.parametrize("backend", ["postgres"])
def test_a_supervisor_that_is_stopped_ends_the_server_when_it_goes_on(
    chaos: Chaos, servers: Servers, backend: str
) -> None:
    """The run is long gone then; the folder is removed, too."""
    run, _ = _in_its_tests(chaos, servers, backend)
    supervisor = _supervisor(run)
    os.kill(supervisor, signal.SIGSTOP)
    kill([run.pid])
    assert run.end() == -signal.SIGKILL
    assert _servers_of(run, backend)
    os.kill(supervisor, signal.SIGCONT)
    run.leaves_nothing()


def test_the_control_outlives_its_parent() -> None:
    """What is started the usual way does: it still answers."""
    code = (
        "import signal, subprocess; subprocess.Popen(['cat']); print('started', flush=True);"
        "signal.pause()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        parent.kill()
        parent.wait()
        parent.stdin.write("still here\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == "still here\n"
