"""Runs that something happens to, and who looks for what they have left.

The observer uses nothing of ours: processes are those below the run and those that bear its
variable, folders, containers and databases are told by what is written in them. ``/proc`` tells which
shared memory the processes had.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from fix_observer import PREFIX
from fix_project import INNER, QUIET, Project
from fix_servers import Target

#: How many moments each kind of accident is tried at, and where their random numbers begin.
NUMBER = int(os.environ.get("ASYNCDB_TEST_CHAOS", "2"))
SEED = int(os.environ.get("ASYNCDB_TEST_SEED", "1"))
#: Seconds in which a run must have ended, whatever happens to it.
IN_TIME = 90
#: Seconds in which the watchdog must have seen that a run is gone.
WATCHDOG = 15

at_moments = pytest.mark.parametrize("seed", range(SEED, SEED + NUMBER))

PLACES = ("/dev/shm", tempfile.gettempdir())


def listen_to_ctrl_c() -> None:
    """What a shell starts in the background ignores it, and so would what that starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def processes() -> Iterator[tuple[int, int, str]]:
    """Every process that is no zombie, its parent, and its start time."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if fields[0] not in "ZX":
                    yield int(entry.name), int(fields[1]), fields[19]


class Run:
    """A run of pytest in a process group of its own, and what is seen of it from outside."""

    def __init__(self, project: Project, *arguments: str, wrap: Sequence[str] = ()) -> None:
        self.marker = f"CHAOS={os.urandom(8).hex()}"
        self.output = project.path / f"output-{self.marker[-6:]}.txt"
        name, _, value = self.marker.partition("=")
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*wrap, sys.executable, "-m", "pytest", *QUIET, "-p", "run_id", *arguments],
                cwd=project.path,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    name: value,
                    "PYTHONPATH": str(INNER),
                    "PYTHONFAULTHANDLER": "1",
                },
                start_new_session=True,
                preexec_fn=listen_to_ctrl_c,
            )
        self.pid = self.process.pid
        self.began = time.monotonic()
        self._seen: dict[int, str] = {}
        self._memory: set[str] = set()
        self._sessions: set[str] = set()

    def look(self) -> list[int]:
        """Remember what belongs to the run now; its processes, parents first."""
        everything = list(processes())
        found = [self.pid]
        for pid, _, start in everything:
            if self._seen.get(pid) == start or self._is_marked(pid):
                found.append(pid)
        for pid in found:
            found += [
                child for child, parent, _ in everything if parent == pid and child not in found
            ]
        starts = {pid: start for pid, _, start in everything}
        found = [pid for pid in dict.fromkeys(found) if pid in starts]
        self._seen |= {pid: starts[pid] for pid in found}
        for pid in found:
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                    words = line.split(maxsplit=5)
                    if len(words) == 6 and words[5].startswith("/dev/shm/PostgreSQL."):
                        self._memory.add(words[5].split()[0])
                    elif len(words) == 6 and words[5].startswith("/SYSV"):
                        self._memory.add(f"segment {words[4]}")
        return found

    def _is_marked(self, pid: int) -> bool:
        try:
            return self.marker.encode() in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False

    def at(self, seconds: float) -> bool:
        """Wait until the run is so old; False: it has ended before."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, self.began + seconds - time.monotonic()))
        return self.process.poll() is None

    @property
    def age(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self.began

    def end(self) -> int:
        """Wait for its end, which must come in time; the exit code."""
        try:
            return self.process.wait(IN_TIME)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                os.kill(self.pid, signal.SIGABRT)  # faulthandler says where it hangs
                self.process.wait(5)
            text = self.text
            for pid in self.look():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"the run hangs:\n{text}") from None

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace")

    @property
    def id(self) -> str | None:
        found = re.search(r"^run id: (\w{8})$", self.text, re.MULTILINE)
        return found and found.group(1)

    def left(self, target: Target | None = None) -> list[str]:
        """All that is left of it, in words."""
        found = [f"process {pid}: {_command(pid)}" for pid in self.look()]
        found += [f"folder {path}" for path in self._folders()]
        found += [f"container {name}" for name in self.containers()]
        segments = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
        there = {f"segment {line.split()[1]}" for line in segments}
        found += sorted(m for m in self._memory if m in there or Path(m).exists())
        if target is not None and self.id is not None:
            begin = f"{PREFIX}{self.id}_"
            found += [f"database {n}" for n in target.observer.databases() if n.startswith(begin)]
        return found

    def _folders(self) -> Iterator[Path]:
        for place in PLACES:
            for path in Path(place).glob("pytest-asyncdb-*"):
                with contextlib.suppress(OSError, ValueError):
                    if json.loads((path / "owner.json").read_text())["pid"] in self._seen:
                        yield path

    def containers(self) -> list[str]:
        """The containers of this run, by the label that says whose they are, and its Ryuk."""
        lines = _docker(
            "ps", "-a", "--no-trunc", "--format", "{{.ID}}\t{{.Names}}\t{{json .Labels}}"
        )
        found = []
        for line in lines.splitlines():
            number, name, labels = line.split("\t")
            if f'\\"pid\\": {self.pid},' in labels:
                found.append(number)
                if session := re.search(r"org.testcontainers.session-id=([\w-]+)", labels):
                    self._sessions.add(session.group(1))
            elif any(session in name for session in self._sessions):
                found.append(name)
        return found

    def leaves_nothing(self, target: Target | None = None, seconds: float = WATCHDOG) -> None:
        """Wait until the observer finds nothing any more."""
        until = time.monotonic() + seconds
        while left := self.left(target):
            assert time.monotonic() < until, "\n".join([*left, self.text])
            time.sleep(0.1)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return "?"


def _docker(*arguments: str) -> str:
    try:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        return ""
    return done.stdout


def kill(pids: list[int]) -> None:
    """SIGKILL, parents first, so that nobody sees it coming."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


#: Databases are made and dropped all the time, by tests of both kinds.
TESTS = """
    @pytest.mark.parametrize("n", range(30))
    @pytest.mark.parametrize("isolation", [
        "rollback", pytest.param("copy", marks=pytest.mark.asyncdb(isolation="copy")),
    ])
    async def test_each(n, isolation, asyncdb_session):
        assert await names(asyncdb_session) == []
        await add(asyncdb_session, "ada")
        await asyncdb_session.commit()
        await asyncio.sleep(0.05)
        assert await names(asyncdb_session) == ["ada"]
"""
ONE = """
    async def test_one(asyncdb_session):
        assert await names(asyncdb_session) == []
"""


class Chaos:
    """A project whose runs have accidents."""

    def __init__(self, project: Project) -> None:
        self.project = project
        project.tests(TESTS, name="test_many.py")
        project.tests(ONE, name="test_one.py")

    def start(self, *arguments: str) -> Run:
        """A run of some seconds."""
        return Run(self.project, "test_many.py", *arguments)

    def next(self, *arguments: str) -> None:
        """The next run, after which nothing may be left of those before it."""
        run = Run(self.project, "test_one.py", *arguments)
        assert run.end() == 0, run.text
        run.leaves_nothing()


@pytest.fixture
def chaos(project: Project) -> Chaos:
    if not Path("/proc/self/maps").exists():
        pytest.skip("processes are observed through /proc")
    return Chaos(project)


def moment(seed: int, kind: str, first: float, last: float) -> float:
    """A random moment of a run, in seconds after its start; printed."""
    seconds = random.Random(f"{seed} {kind}").uniform(first, last)
    print(f"seed {seed}, {kind}: after {seconds:.3f} s")
    return seconds
