"""How long the plugin's own work took; ``reports/timing_table.py`` shows it.

Each process measures; the report of a test takes its times to the summary, also from xdist's
workers: long ones, and with ``--asyncdb-stats`` all. This code runs for every test and only reads a
clock.
"""

from __future__ import annotations

import time
from typing import Any

#: Seconds that are long for a part of a test's set-up or teardown.
SLOW = 1.0


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
        self._times: list[tuple[str, str, float]] = []

    def start(self) -> None:
        """The set-up or the teardown of a test begins."""
        self._first = False
        self._mark = time.perf_counter()

    def prepared(self) -> None:
        """Server and template are ready, which does not count as set-up of the test. It is the
        first test on its worker's database, which is made now."""
        self._first = True
        self._mark = time.perf_counter()

    def stop(self, word: str, isolation: str, part: str) -> None:
        """The test's database is open, or the teardown is complete, as *part* says."""
        line = f"{isolation}: {'database' if self._first else part}"
        self._times.append((word, line, time.perf_counter() - self._mark))

    def take(self, least: float) -> list[Any] | None:
        """The worker and the times since the last call, as JSON values for the report of a test.

        A time is the backend as written, the line of the table, and seconds.

        Args:
            least: Seconds; shorter times are left out.
        """
        times, self._times = self._times, []
        for word, templates in self.templates.items():
            while templates:  # another thread may append meanwhile
                built = zip(("schema", "seed"), templates.pop(0), strict=True)
                times += [(word, part, seconds) for part, seconds in built if seconds is not None]
        times = [one for one in times if one[2] >= least]
        return [self._worker, times] if times else None
