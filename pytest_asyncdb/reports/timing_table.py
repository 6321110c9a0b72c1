"""The times of servers, schemas, set-up and teardown: the table of ``--asyncdb-stats``, and advice
if something took long."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from pytest_asyncdb._record.text import counted, duration
from pytest_asyncdb._record.timings import SLOW
from pytest_asyncdb._run.run import Run
from pytest_asyncdb.values import BackendSpec

#: Seconds and test, by the backend as written and the line of the table.
_Times = defaultdict[tuple[str, str], list[tuple[float, str]]]
_COLUMNS = ("count", "total", "median", "longest")
#: From this number of seconds on, for all slow tests together, there is advice.
_LONG = 10.0


def collect(reports: Iterable[Any]) -> tuple[_Times, int]:
    """Return the times in pytest's reports of all tests, and the number of processes."""
    found: _Times = defaultdict(list)
    workers = set()
    for report in reports:
        if hasattr(report, "asyncdb_times"):
            worker, times = report.asyncdb_times  # from Timer.take()
            workers.add(worker)
            for word, line, seconds in times:
                found[word, line].append((seconds, report.nodeid))
    return found, len(workers)


def table(run: Run, reports: Iterable[object]) -> list[str]:
    """Return the lines for ``--asyncdb-stats``."""
    found, number = collect(reports)
    backends = [line for spec in run.settings.all_specs for line in _of_backend(run, spec, found)]
    if not backends:
        return ["asyncdb: no times: the run used no database"]
    seconds = duration(time.perf_counter() - run.began)
    by = f" by {number} workers" if number > 1 else ""
    return [f"asyncdb: times of a run of {seconds}{by}", *backends]


def _of_backend(run: Run, spec: BackendSpec, found: _Times) -> Iterator[str]:
    word = str(spec)
    server = run.owned.started(spec) if run.owned is not None else None
    lines = sorted((":" in line, line) for backend, line in found if backend == word)
    if server is None and not lines:
        return
    yield f"  {word:<26}" + "".join(f"{name:>12}" for name in _COLUMNS)
    if server is not None:
        yield f"{f'    server ({server.provider})':<40}{duration(server.seconds):>12}"
    for of_tests, line in lines:
        times = sorted(found[word, line])
        longest, test = times[-1]
        cells = (sum(seconds for seconds, _ in times), times[len(times) // 2][0], longest)
        yield f"    {line:<24}{len(times):>12}" + "".join(f"{duration(cell):>12}" for cell in cells)
        if of_tests and len(times) > 1:
            yield f"      longest: {test}"


def advice(reports: Iterable[object]) -> Iterator[str]:
    """Yield advice if ``reset`` or ``copy`` took long, for example because of a large seed."""
    took: _Times = defaultdict(list)
    for (word, line), times in collect(reports)[0].items():
        strategy, _, part = line.partition(": ")
        if strategy != "rollback" and part in ("set-up", "teardown"):
            took[word, strategy] += [one for one in times if one[0] >= SLOW]
    for (word, strategy), times in took.items():
        if (total := sum(seconds for seconds, _ in times)) >= _LONG:
            tests = counted(len({test for _, test in times}), "test")
            yield f"asyncdb: {strategy} took {duration(total)} in {tests} on {word}: seed less,"
            yield "  or use rollback for the run and mark the tests that need another strategy"
