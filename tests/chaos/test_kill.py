"""Whatever is killed, and whenever: a run ends in time, and the next one leaves nothing of it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import re
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from fix_chaos import TESTS_OF_MANY, Chaos, Run, at_moments, kill, moments
from fix_servers import Servers, Target

pytestmark = pytest.mark.usefixtures("untouched")

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


def killed(run: Run, pids: Sequence[int]) -> bool:
    """SIGKILL, the run among them; False: it ended by itself before."""
    kill(pids)
    return run.end() == -signal.SIGKILL


@at_moments
def test_the_whole_tree(chaos: Chaos, case: Case, seed: int) -> None:
    """SIGKILL for the run, its workers, the supervisor, and the server."""

    def act(run: Run) -> bool:
        run.left(case.target)
        return killed(run, run.look())

    run, _ = chaos.strike(moments(seed, f"tree {case.word}"), act, *case.arguments)
    over(chaos, run, case)


@pytest.mark.complete
@at_moments
def test_the_controller(chaos: Chaos, case: Case, seed: int) -> None:
    """Its workers and its server end by themselves; without a next run, too."""

    def act(run: Run) -> bool:
        run.left(case.target)
        return killed(run, [run.pid])

    run, _ = chaos.strike(moments(seed, f"controller {case.word}"), act, *case.arguments)
    if case.waits_for_nobody:
        run.leaves_nothing(case.target)
    over(chaos, run, case)


@pytest.mark.complete
def test_the_controller_while_initdb_runs(
    chaos: Chaos, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory that its processes share is gone, too."""
    servers.need("postgres", "embedded")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # else it does not run
    run = chaos.start("--asyncdb=postgres", "--asyncdb-server=embedded")
    while not (shared := {path for pid in run.look() for path in _shared_memory(pid)}):
        assert run.at(run.age + 0.005), run.text
    assert killed(run, [run.pid])
    run.leaves_nothing()
    assert not [path for path in shared if path.exists()]


@pytest.mark.complete
@at_moments
def test_a_worker(chaos: Chaos, case: Case, seed: int) -> None:
    """The others go on, another one takes its place, and its tests run there."""

    def act(run: Run) -> bool:
        workers = [pid for pid in run.look() if _is_worker(pid)]
        if workers:
            kill([random.Random(seed).choice(workers)])
        return bool(workers)

    at = moments(seed, f"worker {case.word}", start=3.0)
    run, begun = chaos.strike(at, act, *case.arguments, "-n2")
    code = run.end()
    # Before its tests are known xdist cannot go on; at the end of the run nobody misses it.
    assert code in ((0, 1, 3) if not 0 < begun < TESTS_OF_MANY else (0, 1)), run.text
    if 0 < begun < TESTS_OF_MANY - 10:
        assert re.search(r"\[gw\d\] node down: Not properly terminated", run.text), run.text
    for heading, text in run.failures().items():
        assert re.search(r"worker 'gw\d' crashed while running 'test_many", text), heading + text
    run.leaves_nothing(case.target)
    over(chaos, run, case)


def _shared_memory(pid: int) -> list[Path]:
    """The files in which PostgreSQL's processes share memory."""
    try:
        text = Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return []
    found = re.findall(r"/\S+/(?:PostgreSQL\.\d+|pg_dynshmem/\S+)", text)
    return [Path(path) for path in found]


def _is_worker(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"sys.stdin.readline()" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


@pytest.mark.complete
@at_moments
def test_the_server(chaos: Chaos, servers: Servers, seed: int) -> None:
    """Every test after it says that the server has gone; none hangs."""
    backend, program = (("postgres", "postgres"), ("mariadb", "mariadbd"))[seed % 2]
    workers = 2 * (seed // 2 % 2)
    case = server(servers, f"{backend}-local")

    def act(run: Run) -> bool:
        programs = [pid for pid in run.look() if _is_server(pid, program)]
        kill(programs[:1])
        return bool(programs)

    at = moments(seed, f"server {backend} -n{workers}")
    run, begun = chaos.strike(at, act, *case.arguments, f"-n{workers}")
    says_what_happened(run, begun, backend, "local")
    run.leaves_nothing()
    over(chaos, run, case)


def _is_server(pid: int, program: str) -> bool:
    """Others of that name only fill the data folder, or say their version."""
    with contextlib.suppress(OSError):
        is_program = Path(f"/proc/{pid}/exe").readlink().name == program
        return is_program and b"port=" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


@pytest.mark.complete
@at_moments
def test_the_container(chaos: Chaos, servers: Servers, seed: int) -> None:
    """As when somebody else ends it, or the memory of the machine is short."""
    case = server(servers, "postgres-container")
    workers = 2 * (seed % 2)

    def act(run: Run) -> bool:
        run.look()
        names = [name for name in run.containers() if "ryuk" not in name]
        return bool(names) and _kill_container(names[0])

    at = moments(seed, f"container -n{workers}", start=6.0)
    run, begun = chaos.strike(at, act, *case.arguments, f"-n{workers}")
    says_what_happened(run, begun, "postgres", "container")
    over(chaos, run, case)


def _kill_container(name: str) -> bool:
    done = subprocess.run(["docker", "kill", name], capture_output=True, timeout=60)
    return done.returncode == 0


def says_what_happened(run: Run, begun: int, backend: str, provider: str) -> None:
    """Every failure does, and tests that came after the end of the server have failed.

    Args:
        begun: How many tests had begun then.
    """
    code = run.end()
    # The last ones may have been through, and the databases dropped.
    assert code == 1 or (code == 0 and begun >= TESTS_OF_MANY - 2), run.text
    run.says_that_the_server_is_gone(backend, provider, begun=begun)
    if begun < TESTS_OF_MANY - 2:
        assert run.failures(), run.text


@pytest.mark.complete
@at_moments
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c(chaos: Chaos, case: Case, seed: int, times: int) -> None:
    """Every process of the terminal's group gets it; the second one comes while the first one
    is being dealt with. After one, nothing is left when the run has ended."""

    def act(run: Run) -> bool:
        for number in range(times):
            if number:
                run.at(run.age + random.Random(seed).uniform(0.0, 0.5))
            run.left(case.target)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGINT)
        return run.end() != 0

    run, begun = chaos.strike(moments(seed, f"{times} ctrl-c {case.word}"), act, *case.arguments)
    if run.crashed_in_asyncpg:
        over(chaos, run, case)
        return
    # Python itself may be interrupted while it starts, and while it ends.
    codes = (1, 2, -signal.SIGINT) if times > 1 or not 0 < begun < TESTS_OF_MANY else (2,)
    assert run.end() in codes, run.text
    # Before it has come so far, the signal simply ends it.
    assert "KeyboardInterrupt" in run.text or (run.end(), run.text) == (-signal.SIGINT, "")
    if times == 1:
        run.leaves_nothing(case.target)
    over(chaos, run, case)
