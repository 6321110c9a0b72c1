"""How long the plugin's own work took; ``reports/timing_table.py`` shows it.

Noted where it happens, and taken by the report of the test, with which it gets out of xdist's
workers. It is on the path of every test: reading a clock is all that it costs.
"""

from __future__ import annotations

import time
from array import array
from collections import defaultdict
from typing import Any


class Timer:
    """The clock of one process.

    Args:
        worker: Its name.
    """

    def __init__(self, worker: str) -> None:
        #: When the run began, by :func:`time.perf_counter`.
        self.began = time.perf_counter()
        #: Seconds of schema and seeds of the templates that were built, by backend as written.
        self.templates: dict[str, list[tuple[float | None, float | None]]] = {}
        self._worker = worker
        self._mark = 0.0
        self._first = False
        self._set_up: float = 0.0
        self._test: list[Any] | None = None

    def setting_up(self) -> None:
        """A test's database is to be opened."""
        self._first = False
        self._mark = time.perf_counter()

    def prepared(self) -> None:
        """Server and template are there: that was not this test's. It is the first one to use
        its worker's database, though, which is made now."""
        self._first = True
        self._mark = time.perf_counter()

    def ready(self) -> None:
        """The test's database is open."""
        self._set_up = time.perf_counter() - self._mark

    def ending(self) -> None:
        """The test's work is to be undone."""
        self._mark = time.perf_counter()

    def ended(self, word: str, isolation: str) -> None:
        """It is undone."""
        teardown = time.perf_counter() - self._mark
        self._test = [word, isolation, self._first, self._set_up, teardown]

    def take(self) -> dict[str, Any] | None:
        """What was noted since the last call, as plain data: for the report of a test."""
        test, self._test = self._test, None
        built = []
        for word, templates in self.templates.items():
            while templates:
                built.append([word, *templates.pop(0)])
        if test is None and not built:
            return None
        return {"worker": self._worker, "test": test, "built": built}


class Series:
    """How long the same thing took, each time it was done, in seconds."""

    __slots__ = ("longest", "numbers", "test")

    def __init__(self) -> None:
        self.numbers = array("d")
        self.longest = 0.0
        #: Which test the longest one was for; None: for none in particular.
        self.test: str | None = None

    def add(self, seconds: float, test: str | None = None) -> None:
        if seconds > self.longest:
            self.longest, self.test = seconds, test
        self.numbers.append(seconds)


class TimingTotals:
    """What :meth:`Timer.take` has given in all processes of a run; a plugin that takes it out of
    the reports of xdist's workers. pytest keeps these to the end, and here a number is eight bytes.
    """

    def __init__(self) -> None:
        self.workers: set[str] = set()
        #: By the backend as written, and ``schema`` or ``seed``.
        self.built: defaultdict[tuple[str, str], Series] = defaultdict(Series)
        #: By the backend, the strategy, and ``database`` (a worker's first), ``set_up`` or
        #: ``teardown``.
        self.tests: defaultdict[tuple[str, str, str], Series] = defaultdict(Series)

    def pytest_runtest_logreport(self, report: Any) -> None:
        times = report.__dict__.pop("asyncdb_times", None)
        if times is not None:
            self.add(times, report.nodeid)

    def add(self, times: dict[str, Any], test: str) -> None:
        """Take up what *test* has brought."""
        self.workers.add(times["worker"])
        for word, *seconds in times["built"]:
            for part, value in zip(("schema", "seed"), seconds, strict=True):
                if value is not None:
                    self.built[word, part].add(value)
        if times["test"] is not None:
            word, isolation, first, set_up, teardown = times["test"]
            self.tests[word, isolation, "database" if first else "set_up"].add(set_up, test)
            self.tests[word, isolation, "teardown"].add(teardown, test)
