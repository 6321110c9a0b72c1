"""Runs that something happens to, and who looks for what they have left.

The observer uses nothing of ours: processes are those below the run and those that bear its
variable, folders, containers and databases are told by what is written in them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from fix_observer import PREFIX
from fix_project import INNER, QUIET, Project
from fix_servers import Target
from fix_suite import COMPLETE

from pytest_asyncdb._config.registry import Registry

#: How many moments each kind of accident is tried at, and where their random numbers begin.
NUMBER = int(os.environ.get("ASYNCDB_TEST_CHAOS", "5" if COMPLETE else "1"))
SEED = int(os.environ.get("ASYNCDB_TEST_SEED", "1"))
#: Seconds in which a run must have ended, whatever happens to it.
IN_TIME = 90
#: Seconds in which the watchdog must have seen that a run is gone.
WATCHDOG = 15
#: Seconds in which Ryuk must have removed the containers of a killed run: it waits for ten.
RYUK = 30

at_moments = pytest.mark.parametrize("seed", range(SEED, SEED + NUMBER))

#: Of every run that is looked at.
PLUGINS = (*QUIET, "-p", "run_id", "-p", "milestones")

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
        self._milestones = self.output.with_suffix(".milestones")
        name, _, value = self.marker.partition("=")
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*wrap, sys.executable, "-m", "pytest", *PLUGINS, *arguments],
                cwd=project.path,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    name: value,
                    "MILESTONES": str(self._milestones),
                    "PYTHONPATH": str(INNER),
                    "PYTHONFAULTHANDLER": "1",
                },
                start_new_session=True,
                preexec_fn=listen_to_ctrl_c,
            )
        self.pid = self.process.pid
        self.began = time.monotonic()
        #: When :meth:`end` saw its end, by the monotonic clock.
        self.ended: float | None = None
        self._seen: dict[int, str] = {}

    def look(self) -> list[int]:
        """Remember what belongs to the run now; its processes, parents first."""
        everything = list(processes())
        found = [self.pid]
        folders = {str(path) for path in self._folders()}
        for pid, _, start in everything:
            if self._seen.get(pid) == start or self._is_marked(pid) or _place(pid) in folders:
                found.append(pid)
        for pid in found:
            found += [
                child for child, parent, _ in everything if parent == pid and child not in found
            ]
        starts = {pid: start for pid, _, start in everything}
        found = [pid for pid in dict.fromkeys(found) if pid in starts]
        self._seen |= {pid: starts[pid] for pid in found}
        return found

    def _is_marked(self, pid: int) -> bool:
        """Has it the run's environment? Server programs do not; they work in their folder."""
        try:
            return self.marker.encode() in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False

    def at(self, seconds: float) -> bool:
        """Wait until the run is so old; False: it has ended before."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, self.began + seconds - time.monotonic()))
        return self.process.poll() is None

    def reach(self, moment: Moment) -> bool:
        """Wait for a moment of the run's life; False: it has ended before."""
        while self.begun < moment.tests:
            if not self.at(self.age + 0.005):
                return False
        begun = self.age if moment.tests else 0.0
        return self.at(begun + moment.seconds)

    @property
    def begun(self) -> int:
        """How many tests have begun."""
        return len(self._noted("begun"))

    @property
    def tests_ended(self) -> float:
        """When the last test ended, by the monotonic clock."""
        return float(self._noted("ended")[-1])

    def _noted(self, word: str) -> list[str]:
        """The milestones of that kind."""
        try:
            lines = self._milestones.read_text().splitlines()
        except FileNotFoundError:
            return []
        return [line.split()[1] for line in lines if line.startswith(f"{word} ")]

    @property
    def age(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self.began

    def end(self) -> int:
        """Wait for its end, which must come in time; the exit code."""
        try:
            code = self.process.wait(IN_TIME)
            self.ended = self.ended or time.monotonic()
            return code
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
    def crashed_in_asyncpg(self) -> bool:
        """Whether a signal handler raised an error inside of asyncpg's code in C, which then uses a
        null pointer. A plain connection of asyncpg crashes in the same way."""
        _, _, thread = self.text.partition("Current thread ")
        place = thread.split("\n")[1:2]
        return self.end() == -signal.SIGSEGV and "_read_ready__data_received" in str(place)

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace")

    @property
    def id(self) -> str | None:
        """The run id; None as long as there is none."""
        return next(iter(self._noted("id")), None)

    def failures(self) -> dict[str, str]:
        """What the output says of each failed test, by pytest's heading of it."""
        before, _, rest = self.text.partition(" short test summary info ")
        assert rest or not re.search(r"^=+ (ERRORS|FAILURES) =+$", before, re.MULTILINE), self.text
        parts = re.split(r"^(?:_{2,} (.+) _{2,}|=+ (?:ERRORS|FAILURES) =+)$", before, flags=re.M)
        found: dict[str, str] = {}
        for heading, text in zip(parts[1::2], parts[2::2], strict=True):
            if heading is not None:
                found[f"{heading} ({len(found)})"] = text
        # What could not be dropped is said below the last line of pytest.
        last = re.search(r"^=+ (.+) in [\d.]+s", rest, re.MULTILINE)
        counts = re.findall(r"\b(\d+) (?:failed|errors?)\b", last[1] if last else "")
        assert len(found) == sum(map(int, counts)), self.text
        return found

    def says_that_the_server_is_gone(self, backend: str, provider: str, *, begun: int) -> None:
        """Check that every failure says it, or names an equal one, whatever else it says.

        Args:
            begun: How many tests had begun. Each worker's first one waits for the server, which may
                have gone while it was started.
        """
        label = {"postgres": "PostgreSQL", "mariadb": "MariaDB"}[backend]
        one = "(local|embedded)" if provider == "local" else provider
        pattern = rf"the {label} server is gone \(provider {one}, \S+:\d+\)"
        if begun < 3:
            pattern += rf"|the {label} server (of provider {one} did not start|did not answer \()"
        pattern += r"|the same as (in|on) \S+: \w"
        for heading, text in self.failures().items():
            unwrapped = " ".join(text.split())
            assert re.search(pattern, unwrapped), f"{heading}:\n{text}"

    def left(self, target: Target | None = None) -> list[str]:
        """All that is left of it, in words."""
        found = [f"process {pid}: {_command(pid)}" for pid in self.look()]
        found += [f"folder {path}" for path in self._folders()]
        found += [f"container {name}" for name in self.containers()]
        if target is not None and self.id is not None:
            begin = f"{PREFIX}{self.id}_"
            found += [f"database {n}" for n in target.observer.databases() if n.startswith(begin)]
        return found

    def _folders(self) -> Iterator[Path]:
        for place in PLACES:
            # What is called otherwise is foreign (fix_foreign); its pid may have been given again.
            for path in Path(place).glob("pytest-asyncdb-" + 12 * "[0-9a-f]"):
                with contextlib.suppress(OSError, ValueError):
                    if json.loads((path / "owner.json").read_text())["pid"] in self._seen:
                        yield path

    def containers(self) -> list[str]:
        """The containers of this run, by the label that says whose they are."""
        listed = _docker("ps", "-a", "--no-trunc", "--format", "{{.Names}}\t{{json .Labels}}")
        lines = [line.split("\t") for line in listed.splitlines()]
        return [name for name, labels in lines if f'\\"pid\\": {self.pid},' in labels]

    def lets_go_of(self, target: Target) -> None:
        """Wait until the server has noticed that the run's connections are closed: a run that
        comes earlier leaves its databases alone."""
        assert self.id is not None
        begin, observer = f"{PREFIX}{self.id}_", target.observer
        lock = Registry().backend(target.backend).hold_lock(self.id)
        assert lock is not None
        began = time.monotonic()
        while observer.query(lock) not in ([(1,)], [(True,)]) or any(
            observer.connections(name) for name in observer.databases() if name.startswith(begin)
        ):
            assert time.monotonic() < began + WATCHDOG, self.text
            time.sleep(0.1)

    def leaves_nothing(self, target: Target | None = None) -> None:
        """Wait until the observer finds nothing any more."""
        began = time.monotonic()
        while left := self.left(target):
            patience = RYUK if all("container " in line for line in left) else WATCHDOG
            assert time.monotonic() < began + patience, "\n".join([*left, self.text])
            time.sleep(0.1)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return "?"


def _place(pid: int) -> str | None:
    """The folder that a process works in."""
    try:
        place = os.readlink(f"/proc/{pid}/cwd")  # noqa: PTH115  # " (deleted)" is no path
    except OSError:
        return None
    return place.removesuffix(" (deleted)")


def _docker(*arguments: str) -> str:
    try:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        return ""
    return done.stdout


def kill(pids: Sequence[int]) -> None:
    """SIGKILL, parents first, so that nobody sees it coming."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


#: How many tests :data:`TESTS` makes.
TESTS_OF_MANY = 60
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


@dataclasses.dataclass(frozen=True)
class Moment:
    """A moment of a run's life.

    Args:
        seconds: After the start of the run, or of a test.
        tests: How many tests have begun then; 0: counted from the start of the run.
    """

    seconds: float
    tests: int = 0


def moments(seed: int, kind: str, start: float = 2.0) -> Iterator[Moment]:
    """Random moments while a run starts, while its tests run, and at its end; printed.

    Args:
        start: How long it takes to start, in seconds.
    """
    numbers = random.Random(f"{seed} {kind}")
    while True:
        if numbers.random() < 0.4:
            found = Moment(numbers.uniform(0.2, start))
        else:
            found = Moment(numbers.uniform(0.0, 0.1), numbers.randint(1, TESTS_OF_MANY))
        print(f"seed {seed}, {kind}: {found}")
        yield found


class Chaos:
    """A project whose runs have accidents."""

    def __init__(self, project: Project) -> None:
        self.project = project
        project.tests(TESTS, name="test_many.py")
        project.tests(ONE, name="test_one.py")

    def start(self, *arguments: str) -> Run:
        """A run of some seconds."""
        return Run(self.project, "test_many.py", *arguments)

    def strike(
        self, at: Iterator[Moment], act: Callable[[Run], bool], *arguments: str
    ) -> tuple[Run, int]:
        """A run that something happens to, and how many of its tests had begun then.

        A run that was missed must have passed, and counts for nothing: there is another one.

        Args:
            act: Does it; False: there was nothing yet that it could happen to.
        """
        for moment in itertools.islice(at, 3):
            run = self.start(*arguments)
            running = run.reach(moment)
            while running:
                begun = run.begun
                if act(run):
                    return run, begun
                running = run.at(run.age + 0.02)
            print("missed")
            assert run.end() == 0, run.text
        raise AssertionError(f"three runs were missed, the last one:\n{run.text}")

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
