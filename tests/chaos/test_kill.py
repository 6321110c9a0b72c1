"""Whatever is killed, and whenever: a run ends in time, and the next one leaves nothing of it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import re
import signal
import subprocess
from pathlib import Path

import pytest
from fix_chaos import Chaos, Run, at_moments, kill, moment
from fix_servers import Servers, Target

#: Backend and provider; each seed takes the next one, and then the other number of workers.
SERVERS = ("postgres-local", "postgres-url", "mariadb-local", "postgres-container", "mariadb-url")


@dataclasses.dataclass(frozen=True)
class Case:
    """What a run of the project is to be.

    Args:
        word: Backend and provider.
        arguments: Its command line.
        target: How to look at the server where it stays.
    """

    word: str
    arguments: list[str]
    target: Target | None

    @property
    def waits_for_nobody(self) -> bool:
        """Is all gone without a next run? A server by URL knows no watchdog."""
        return self.word.endswith("local")


def server(servers: Servers, word: str) -> Case:
    backend, _, provider = word.partition("-")
    if provider == "url":
        target = servers.target(f"{backend}+{'asyncpg' if backend == 'postgres' else 'asyncmy'}")
        return Case(word, target.arguments, target)
    servers.need(backend, provider)
    return Case(word, [f"--asyncdb={backend}", f"--asyncdb-server={provider}"], None)


@pytest.fixture
def case(seed: int, servers: Servers) -> Case:
    found = server(servers, SERVERS[seed % len(SERVERS)])
    workers = 2 * (seed // len(SERVERS) % 2)
    return dataclasses.replace(
        found, word=f"-n{workers} {found.word}", arguments=[*found.arguments, f"-n{workers}"]
    )


def over(chaos: Chaos, run: Run, case: Case) -> None:
    """What holds after every accident: the next run works, and nothing is left."""
    chaos.next(*case.arguments)
    run.leaves_nothing(case.target)


@at_moments
def test_the_whole_tree(chaos: Chaos, case: Case, seed: int) -> None:
    """SIGKILL for the run, its workers, the supervisor, and the server."""
    run = chaos.start(*case.arguments)
    if run.at(moment(seed, f"tree {case.word}", 0.2, 6.0)):
        run.left(case.target)
        kill(run.look())
    assert run.end() in (0, -signal.SIGKILL), run.text
    over(chaos, run, case)


@at_moments
def test_the_controller(chaos: Chaos, case: Case, seed: int) -> None:
    """Its workers and its server end by themselves; without a next run, too."""
    run = chaos.start(*case.arguments)
    if run.at(moment(seed, f"controller {case.word}", 0.2, 6.0)):
        run.left(case.target)
        kill([run.pid])
    assert run.end() in (0, -signal.SIGKILL), run.text
    if case.waits_for_nobody:
        run.leaves_nothing(case.target)
    over(chaos, run, case)


@at_moments
def test_a_worker(chaos: Chaos, case: Case, seed: int) -> None:
    """The others go on, another one takes its place, and its tests run there."""
    run = chaos.start(*case.arguments, "-n2")
    killed = False
    if run.at(moment(seed, f"worker {case.word}", 1.0, 6.0)):
        workers = [pid for pid in run.look() if _is_worker(pid)]
        if workers:
            kill([random.Random(seed).choice(workers)])
            killed = True
    code = run.end()
    assert code in ((0, 1, 3) if killed else (0,)), run.text
    if code == 1:
        assert re.search(r"worker 'gw\d' crashed while running|node down", run.text), run.text
    run.leaves_nothing(case.target)
    over(chaos, run, case)


def _is_worker(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"execnet" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


@at_moments
def test_the_server(chaos: Chaos, servers: Servers, seed: int) -> None:
    """Every test after it says that the server has gone; none hangs."""
    backend, program = (("postgres", "postgres"), ("mariadb", "mariadbd"))[seed % 2]
    case = server(servers, f"{backend}-local")
    run = chaos.start(*case.arguments)
    if run.at(moment(seed, f"server {backend}", 0.5, 6.0)):
        programs = [pid for pid in run.look() if _is(pid, program)]
        kill(programs[:1])
    assert run.end() in (0, 1), run.text
    run.leaves_nothing()
    over(chaos, run, case)


def _is(pid: int, program: str) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/exe").readlink().name == program
    return False


@at_moments
def test_the_container(chaos: Chaos, servers: Servers, seed: int) -> None:
    """As when somebody else ends it, or the memory of the machine is short."""
    case = server(servers, "postgres-container")
    run = chaos.start(*case.arguments)
    if run.at(moment(seed, "container", 1.5, 7.0)):
        run.look()
        for number in run.containers():
            _kill_container(number)
    assert run.end() in (0, 1), run.text
    over(chaos, run, case)


def _kill_container(number: str) -> None:
    subprocess.run(["docker", "kill", number], capture_output=True, timeout=60)


@at_moments
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c(chaos: Chaos, case: Case, seed: int, times: int) -> None:
    """Every process of the terminal's group gets it; the second one comes while the first one
    is being dealt with. After one, nothing is left when the run has ended."""
    run = chaos.start(*case.arguments)
    running = run.at(moment(seed, f"{times} ctrl-c {case.word}", 1.0, 6.0))
    for number in range(times if running else 0):
        if number:
            run.at(0.0)
            pause = random.Random(seed).uniform(0.0, 0.5)
            with contextlib.suppress(Exception):
                run.process.wait(pause)
        run.left(case.target)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGINT)
    code = run.end()
    assert code in (0, 1, 2, -signal.SIGINT), run.text
    if times == 1:
        run.leaves_nothing(case.target)
    over(chaos, run, case)
