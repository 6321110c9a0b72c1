"""Measure a case: its variants in turns, round by round."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.cases import Case, fastest, per_test, tenth
from benchmarks.runs import Project, Run, RunFailed
from benchmarks.servers import Servers
from pytest_asyncdb.errors import AsyncdbError


@dataclasses.dataclass(frozen=True)
class Measured:
    """A median with its spread, in seconds or as a ratio."""

    median: float
    low: float
    high: float
    number: int


@dataclasses.dataclass
class Result:
    """A line of the table.

    Args:
        reached: Over the rounds; None where it could not be measured.
        fastest: The same for the fastest tenth of the tests, or of the runs.
        variants: What each variant took, in seconds.
        problem: Why there is nothing, or what was wrong.
        failed: It is a fault, not something that this machine lacks.
    """

    key: str
    what: str
    word: str
    unit: str
    target: float | None
    reached: Measured | None = None
    fastest: Measured | None = None
    variants: dict[str, Measured] = dataclasses.field(default_factory=dict)
    problem: str = ""
    failed: bool = False

    @property
    def verdict(self) -> str:
        if self.reached is None or self.problem:
            return "failed" if self.failed else "skipped"
        if self.target is None:
            return ""
        return "ok" if self.reached.median <= self.target else "missed"


def measure(case: Case, word: str, tests: int, rounds: int, servers: Servers) -> Result:
    """Measure *case* on *word*; what cannot be measured is said in the result."""
    target = case.other_targets.get(word.partition("+")[0], case.target)
    result = Result(case.key, case.what, word, case.unit, target)
    missing = [need for need in case.needs if not there(need)]
    if missing:
        result.problem = f"there is no {missing[0]}"
        return result
    rounds *= case.rounds
    try:
        _measure(case, word, tests, min(rounds, case.most or rounds), servers, result)
    except AsyncdbError as error:
        result.problem = str(error)
    except RunFailed as error:
        result.problem, result.failed = str(error), True
    return result


def _measure(
    case: Case, word: str, tests: int, rounds: int, servers: Servers, result: Result
) -> None:
    reached: list[float] = []
    fast: list[float] = []
    taken: dict[str, list[float]] = {variant.name: [] for variant in case.variants}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark_"))
        projects = [
            Project(Path(folder, str(number)), variant, word, tests, servers)
            for number, variant in enumerate(case.variants[: 1 if case.paired else None])
        ]
        for project in projects:
            stack.callback(project.close)
            if case.value is not per_test:  # the first tests of a run are left out
                project.run()  # compiles the project's modules
        for _ in range(rounds):
            values, lows = [], []
            runs: Iterator[Run] = (project.run() for project in projects)
            if case.paired:
                runs = iter(next(runs).halves())
            for number, (variant, run) in enumerate(zip(case.variants, runs, strict=True)):
                if case.built and run.built != case.built[number]:
                    raise RunFailed(f"{variant.name}: the schema was built {run.built} times")
                values.append(case.value(run))
                if case.value is per_test:
                    taken[variant.name] += run.tests
                    lows.append(fastest(run))
                else:
                    taken[variant.name].append(values[-1])
            reached.append(case.compare(values))
            if lows:
                fast.append(case.compare(lows))
    if not fast:  # one value from each run: the fastest of the runs
        fast.append(case.compare([tenth(taken[variant.name]) for variant in case.variants]))
    result.reached = measured(reached)
    result.fastest = measured(fast)
    result.variants = {name: measured(values) for name, values in taken.items()}


def words(case: Case, chosen: list[str]) -> Iterator[str]:
    """Those of the chosen words that *case* is for."""
    if not case.backends:
        yield ""
    left = set(case.backends)
    for word in chosen:
        backend = word.partition("+")[0]
        if backend in left:
            yield word
            if case.once:
                left.remove(backend)


def measured(values: Sequence[float]) -> Measured:
    """The median with the tenth and ninetieth percentile; of few values the extremes."""
    low, high = min(values), max(values)
    if len(values) >= 10:
        low, *_, high = statistics.quantiles(values, n=10)
    return Measured(statistics.median(values), low, high, len(values))


def there(need: str) -> bool:
    if need == "Docker":
        return subprocess.run(["docker", "info"], capture_output=True, timeout=30).returncode == 0
    try:
        importlib.metadata.version(need)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
