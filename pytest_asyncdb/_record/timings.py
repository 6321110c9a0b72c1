"""How long the plugin's own work took; ``reports/timing_table.py`` shows it.

Each process measures; the report of a test takes its times to xdist's controller. This code runs
for every test and only reads a clock.
"""

from __future__ import annotations

import time
from array import array
from collections import defaultdict
from typing import Any


class Timer:
    """The clock of one process.

    Args:
        worker: The name of xdist's worker.
    """

    def __init__(self, worker: str) -> None:
        #: The start of the run, by :func:`time.perf_counter`.
        self.began = time.perf_counter()
        #: Seconds of schema and seed of each template built here, by backend as written.
        self.templates: dict[str, list[tuple[float | None, float | None]]] = {}
        self._worker = worker
        self._mark = 0.0
        self._first = False
        self._set_up = 0.0
        self._test: list[Any] | None = None

    def setting_up(self) -> None:
        """The set-up of a test begins."""
        self._first = False
        self._mark = time.perf_counter()

    def prepared(self) -> None:
        """Server and template are ready, which does not count as set-up of the test. It is the
        first test on its worker's database, which is made now."""
        self._first = True
        self._mark = time.perf_counter()

    def ready(self) -> None:
        """The test's database is open."""
        self._set_up = time.perf_counter() - self._mark

    def ending(self) -> None:
        """The teardown of the test begins."""
        self._mark = time.perf_counter()

    def ended(self, word: str, isolation: str) -> None:
        """The teardown is complete."""
        teardown = time.perf_counter() - self._mark
        self._test = [word, isolation, self._first, self._set_up, teardown]

    def take(self) -> dict[str, Any] | None:
        """The times since the last call, as JSON values for the report of a test."""
        test, self._test = self._test, None
        built = []
        for word, templates in self.templates.items():
            while templates:  # another thread may append meanwhile
                built.append([word, *templates.pop(0)])
        if test is None and not built:
            return None
        return {"worker": self._worker, "test": test, "built": built}


class Durations:
    """The times of one kind of work, in seconds; eight bytes each, for they are kept to the end."""

    __slots__ = ("longest", "longest_test", "seconds")

    def __init__(self) -> None:
        self.seconds = array("d")
        self.longest = 0.0
        #: The test with the longest time; None: the work is not that of a test.
        self.longest_test: str | None = None

    def add(self, seconds: float, test: str | None = None) -> None:
        if seconds > self.longest:
            self.longest, self.longest_test = seconds, test
        self.seconds.append(seconds)


class TimingTotals:
    """The times of all processes of a run; as a plugin, it takes them out of the reports of xdist's
    workers, which pytest keeps to the end."""

    def __init__(self) -> None:
        self.workers: set[str] = set()
        #: By the backend as written, and ``schema`` or ``seed``.
        self.built: defaultdict[tuple[str, str], Durations] = defaultdict(Durations)
        #: By the backend as written, the strategy, and ``database`` (a worker's first), ``set_up``
        #: or ``teardown``.
        self.tests: defaultdict[tuple[str, str, str], Durations] = defaultdict(Durations)

    def pytest_runtest_logreport(self, report: Any) -> None:
        times = report.__dict__.pop("asyncdb_times", None)
        if times is not None:
            self.add(times, report.nodeid)

    def add(self, times: dict[str, Any], test: str) -> None:
        """Add what :meth:`Timer.take` returned after *test*."""
        self.workers.add(times["worker"])
        for word, *seconds in times["built"]:
            for part, value in zip(("schema", "seed"), seconds, strict=True):
                if value is not None:
                    self.built[word, part].add(value)
        if times["test"] is not None:
            word, isolation, first, set_up, teardown = times["test"]
            self.tests[word, isolation, "database" if first else "set_up"].add(set_up, test)
            self.tests[word, isolation, "teardown"].add(teardown, test)
