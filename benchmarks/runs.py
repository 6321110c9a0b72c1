"""One variant of a case: its project, and pytest runs in it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks import projects
from benchmarks.servers import Servers

#: Plugins that take no part; what is measured is on, the others are off.
OFF = ("anyio", "cacheprovider", "faker", "hypothesispytest", "pytest_alembic", "randomly")
#: Those that are compared.
PLUGINS = {"asyncdb", "sqla", "pytest_postgresql", "pytest_databases"}
_DRIVERS = {"sqlite": "aiosqlite", "postgres": "asyncpg"}
_TIMEOUT = 900.0
#: Variables that make Python slower. Without bytecode on disk each run compiles anew what was
#: edited or rewritten, but not what pip has compiled.
_SLOWER = {"PYTHONDEVMODE", "PYTHONDONTWRITEBYTECODE"}


class Turns(NamedTuple):
    """How a run takes turns with another one, a number of tests each.

    Args:
        own: A named pipe: a byte in it is a turn of ours.
        other: The other run's.
        first: The number of the first test that does, from 0.
        end: Of that after the last.
        turn: So many tests are a turn.
    """

    own: str
    other: str
    first: int
    end: int
    turn: int


class RunFailed(Exception):
    """A pytest run did not pass; the text is the end of its output."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """One of the things that a case compares.

    Args:
        name: In the tables.
        source: Where the tests' session comes from.
        loop: ``session``, or ``function``: pytest-asyncio's default.
        tables: How large the schema is.
        arguments: More of pytest's command line.
        word: The word in ``--asyncdb``, where it is not the case's.
        mark: A marker for the tests that are measured.
        every: Only each of so many tests is measured.
        pause: Seconds that each test spends with something else.
        tests: How many, where not as many as the command line says.
        times: So many times as many as the command line says.
        warm: Does it find what its own earlier runs have kept in the user's cache?
        sample: After each of so many tests a look at what the process holds; 0: none.
        turns: Does it take turns with another run?
        calls: Are all calls of functions counted? That makes the run slower.
        text: A file of one test, in place of those that are measured.
    """

    name: str
    source: projects.Source
    loop: str = "session"
    tables: int = 5
    arguments: tuple[str, ...] = ()
    word: str = ""
    mark: str = ""
    every: int = 1
    pause: float = 0.0
    tests: int | None = None
    times: int = 1
    warm: bool = False
    sample: int = 0
    turns: Turns | None = None
    calls: bool = False
    text: str = ""


class Sample(NamedTuple):
    """What a process holds: bytes in memory, threads, open descriptors; and how many functions the
    tests before that have called, the median of some, in their own thread."""

    memory: int
    threads: int
    files: int
    calls: float


@dataclasses.dataclass(frozen=True)
class Run:
    """What one pytest run took.

    Args:
        tests: Seconds of each measured test, the first ones dropped.
        cpu: Seconds of the processor of each of these.
        others: The same of each of the tests between them.
        ready: Seconds from the command to the first test's body, of the last worker.
        built: How often the schema was built.
        samples: What the process held, where the variant asks for that.
        calls: How many functions the main thread called, Python's and C's, where the variant asks
            for that.
    """

    tests: tuple[float, ...]
    cpu: tuple[float, ...]
    others: tuple[float, ...]
    ready: float
    built: int
    samples: tuple[Sample, ...]
    calls: int

    def halves(self) -> tuple[Run, Run]:
        """The measured tests and the others as two runs; their times are the processor's."""
        return (
            dataclasses.replace(self, tests=self.cpu),
            dataclasses.replace(self, tests=self.others),
        )


class Project:
    """The project of a variant, written at once, run as often as wanted."""

    def __init__(
        self, folder: Path, variant: Variant, word: str, tests: int, servers: Servers
    ) -> None:
        self._folder = folder
        self._source = variant.source
        self._word = variant.word or word
        self._arguments = variant.arguments
        self._added = {
            "BENCHMARK_SAMPLE": str(variant.sample),
            "BENCHMARK_CALLS": "1" if variant.calls else "",
            "BENCHMARK_TURNS": os.pathsep.join(map(str, variant.turns or ())),
        }
        self._warm = variant.warm
        self._servers = servers
        number = variant.tests or variant.times * tests + projects.DROPPED
        self._number = 1 if variant.text else number * variant.every
        text = variant.text or projects.tests(
            variant.source.fixture, number, variant.every, variant.mark, variant.pause
        )
        projects.write(folder, variant.source, variant.loop, variant.tables, text)

    def run(self) -> Run:
        """Run pytest once.

        Raises:
            RunFailed: It did not end with every test passed.
            AsyncdbError: There is no such server.
        """
        if self._source.own_database:
            with self._servers.database(self._word) as url:
                return self._run(url)
        wanted = any("{url}" in word for word in self._source.arguments)
        return self._run(self._servers.url(self._word) if wanted else "")

    def close(self) -> None:
        """End the servers that the runs have kept."""
        if self._warm:
            with tempfile.TemporaryDirectory() as times:
                subprocess.run(
                    [sys.executable, "-m", "pytest_asyncdb", "reap"],
                    env=environment(self._folder, times, True),
                    stdout=subprocess.DEVNULL,
                    timeout=_TIMEOUT,
                    check=True,
                )

    def _run(self, url: str) -> Run:
        backend, _, driver = self._word.partition("+")
        driver = driver or _DRIVERS.get(backend, "asyncmy")
        conftest = self._source.conftest.format(url=url, driver=driver)
        (self._folder / "conftest.py").write_text(conftest, encoding="utf-8")
        # Without a URL nothing is said about the server: SQLite has none.
        words = [
            word.format(word=self._word, url=url)
            for word in (*self._source.arguments, *self._arguments)
            if not (word.startswith(("--asyncdb-url", "--asyncdb-server")) and backend == "sqlite")
        ]
        off = [*OFF, *(PLUGINS - {self._source.plugin})]
        if "-n" not in words:
            off.append("xdist")
        with tempfile.TemporaryDirectory() as times:
            command = [sys.executable, "-m", "pytest", "-qx", "-p", "benchmark_timing"]
            command += [word for name in off for word in ("-p", f"no:{name}")]
            begun = time.monotonic()
            done = subprocess.run(
                [*command, *words],
                cwd=self._folder,
                env={**environment(self._folder, times, self._warm), **self._added},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_TIMEOUT,
            )
            if done.returncode or f"{self._number} passed" not in done.stdout:
                raise failed(done, url)
            return _read(Path(times), begun)


def failed(done: subprocess.CompletedProcess[str], url: str) -> RunFailed:
    """The end of what a run printed, without the server's password."""
    shown = done.stdout.replace(url, "(url)") if url else done.stdout
    return RunFailed(shown[-3000:] or f"exit code {done.returncode}")


def _read(times: Path, begun: float) -> Run:
    noted = [json.loads(path.read_text("utf-8")) for path in times.glob("*.json")]
    tests: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for process in noted:
        for name, *seconds in process["tests"]:
            tests[name.startswith("test_measured")].append(tuple(seconds))
    measured, others = (tests[which][projects.DROPPED :] for which in (True, False))
    built = times / "built"
    return Run(
        tests=tuple(seconds for seconds, _ in measured),
        cpu=tuple(cpu for _, cpu in measured),
        others=tuple(cpu for _, cpu in others),
        samples=tuple(Sample(*values) for process in noted for values in process["samples"]),
        calls=sum(process["calls"] for process in noted),
        ready=max(process["begun"] for process in noted) - begun,
        built=len(built.read_text("utf-8").splitlines()) if built.exists() else 0,
    )


def environment(folder: Path, times: str, warm: bool) -> dict[str, str]:
    """This process's, without what would change a run."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ASYNCDB_", "PYTEST_")) and name not in _SLOWER
    }
    return {
        **environment,
        "PYTHONPATH": str(folder),
        "BENCHMARK_TIMES": times,
        "XDG_CACHE_HOME": f"{folder}/cache" if warm else times,
    }
