"""The case ``suite``: all tests of an application, with the plugin and with each contender.

``suite/`` holds the application, its tests, and a conftest for each contender, which is the only
file that differs. Here are the contenders, one run, and the ratios of their times.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.cases import tenth
from benchmarks.measure import Result, measured, there
from benchmarks.runs import OFF, PLUGINS, RunFailed, environment, failed
from benchmarks.servers import Servers
from pytest_asyncdb.errors import AsyncdbError

KEY = "suite"
BACKENDS = ("sqlite", "postgres")
SUITE = Path(__file__).with_name("suite")
_TIMEOUT = 1800.0
#: The suite is run in one process, and with so many workers.
_WORKERS = (0, 2)


@dataclasses.dataclass(frozen=True)
class Contender:
    """A way to give the suite its sessions.

    Args:
        name: In the table.
        conftest: A file of ``suite/conftests``, without its suffix.
        plugin: Which of the plugins is on.
        arguments: More of the command line; ``{url}`` and ``{word}`` are filled in.
        own_database: Does it need an empty database? Otherwise it makes its databases on the
            server, or starts one.
        targets: For each backend that it is for: how much of its processor time the plugin may
            take; None: shown for comparison.
        needs: What it is left out without: packages, or ``Docker``.
        most: No more rounds than this: for what takes long.
    """

    name: str
    conftest: str
    plugin: str = ""
    arguments: tuple[str, ...] = ()
    own_database: bool = True
    targets: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    needs: tuple[str, ...] = ()
    most: int | None = None


OURS = Contender(
    "asyncdb",
    "asyncdb",
    plugin="asyncdb",
    arguments=("--asyncdb={word}", "--asyncdb-url={url}", "--asyncdb-allow-hosts=*"),
    own_database=False,
)
CONTENDERS = (
    Contender("conftest by hand", "by_hand", targets={"sqlite": 1.0, "postgres": 1.0}),
    Contender(
        "pytest-sqla",
        "pytest_sqla",
        plugin="sqla",
        targets={"sqlite": 0.9, "postgres": 0.7},
        needs=("pytest-sqla",),
    ),
    Contender(
        "pytest-postgresql",
        "pytest_postgresql",
        plugin="pytest_postgresql",
        targets={"postgres": 0.7},
        needs=("pytest-postgresql",),
        most=1,
    ),
    Contender(
        "pytest-databases",
        "pytest_databases",
        plugin="pytest_databases",
        targets={"postgres": 0.7},
        needs=("Docker", "pytest-databases"),
        most=1,
    ),
)


class Taken(NamedTuple):
    """Seconds of the processor, in all processes of pytest, and of a clock."""

    cpu: float
    wall: float


class SuiteProject:
    """The suite with a contender's conftest.

    Args:
        folder: Is made.
        contender: Whose conftest.
        word: The backend and driver, as in ``--asyncdb``.
        workers: Of pytest-xdist; 0: one process.
        servers: Where the databases are.
    """

    def __init__(
        self, folder: Path, contender: Contender, word: str, workers: int, servers: Servers
    ) -> None:
        self._folder = folder
        self._contender = contender
        self._word = word
        self._workers = workers
        self._servers = servers
        shutil.copytree(SUITE, folder, ignore=shutil.ignore_patterns("__pycache__", "conftests"))
        shutil.copy(SUITE / "conftests" / f"{contender.conftest}.py", folder / "conftest.py")

    def run(self, each: int) -> Taken:
        """Run pytest on each of so many tests.

        Raises:
            RunFailed: It did not end with every test passed.
            AsyncdbError: There is no such server.
        """
        if self._contender.own_database:
            with self._servers.database(self._word) as url:
                return self._run(url, each)
        return self._run(self._servers.url(self._word), each)

    def _run(self, url: str, each: int) -> Taken:
        off = [*OFF, *(PLUGINS - {self._contender.plugin})]
        workers = ["-n", str(self._workers), "--dist=load"] if self._workers else []
        off += [] if workers else ["xdist"]
        words = [
            word.format(word=self._word, url=url)
            for word in self._contender.arguments
            if not (self._word == "sqlite" and word.startswith("--asyncdb-url"))
        ]
        command = [sys.executable, "-m", "pytest", "-qx", *workers, *words]
        command += [word for name in off for word in ("-p", f"no:{name}")]
        with tempfile.TemporaryDirectory() as kept:
            before, begun = _children(), time.monotonic()
            done = subprocess.run(
                command,
                cwd=self._folder,
                env={
                    **environment(self._folder, kept, warm=False),
                    "SUITE_URL": url,
                    "SUITE_EACH": str(each),
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_TIMEOUT,
            )
            taken = Taken(_children() - before, time.monotonic() - begun)
        if done.returncode:
            raise failed(done, url)
        return taken


def words(chosen: Sequence[str]) -> list[str]:
    """The first of the chosen words for each backend."""
    first = {word.partition("+")[0]: word for word in reversed(chosen)}
    return [first[backend] for backend in BACKENDS if backend in first]


def measure(word: str, each: int, rounds: int, servers: Servers) -> Iterator[Result]:
    """Measure the suite on *word*: a line for each contender, number of workers and clock."""
    for workers in _WORKERS:
        with tempfile.TemporaryDirectory(prefix="benchmark_") as folder:
            yield from _measure(Path(folder), word, workers, each, rounds, servers)


def _measure(
    folder: Path, word: str, workers: int, each: int, rounds: int, servers: Servers
) -> Iterator[Result]:
    backend = word.partition("+")[0]
    wanted = [one for one in CONTENDERS if backend in one.targets]
    problems: dict[str, tuple[str, bool]] = {}
    for one in wanted:
        if missing := [need for need in one.needs if not there(need)]:
            problems[one.name] = f"there is no {missing[0]}", False
    taken: dict[str, list[Taken]] = {one.name: [] for one in (OURS, *wanted)}
    projects: dict[str, SuiteProject] = {}
    for number in range(-1, rounds):
        for one in (OURS, *wanted):
            if one.name in problems or number >= (one.most or rounds):
                continue
            with _noting(problems, one.name):
                if number < 0:  # one test, which compiles the project's modules
                    place = folder / one.conftest
                    projects[one.name] = SuiteProject(place, one, word, workers, servers)
                    projects[one.name].run(sys.maxsize)
                else:
                    taken[one.name].append(projects[one.name].run(each))
    for one in wanted:
        for clock, what in (("cpu", "processor time"), ("wall", "wall time")):
            text = f"whole suite{f' with -n {workers}' if workers else ''}, {what} : {one.name}"
            target = one.targets[backend] if clock == "cpu" else None
            result = Result(KEY, text, word, "×", target)
            for name in (OURS.name, one.name):
                if name in problems:
                    result.problem, result.failed = problems[name]
            if not result.problem:
                ours, theirs = (
                    [getattr(seconds, clock) for seconds in taken[name]]
                    for name in (OURS.name, one.name)
                )
                _fill(result, one.name, ours, theirs)
            yield result


def _fill(result: Result, name: str, ours: list[float], theirs: list[float]) -> None:
    # Of a contender with fewer rounds the first ones are compared.
    pairs = zip(ours, theirs, strict=False)
    result.reached = measured([mine / other for mine, other in pairs])
    result.fastest = measured([tenth(ours) / tenth(theirs)])
    result.variants = {OURS.name: measured(ours), name: measured(theirs)}


@contextlib.contextmanager
def _noting(problems: dict[str, tuple[str, bool]], name: str) -> Iterator[None]:
    try:
        yield
    except AsyncdbError as error:
        problems[name] = str(error), False
    except RunFailed as error:
        problems[name] = str(error), True


def _children() -> float:
    """Seconds of the processor that ended children have taken, with all that they waited for."""
    times = os.times()
    return times.children_user + times.children_system
