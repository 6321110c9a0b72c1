"""The time that the plugin's own work took; ``reports/timing_table.py`` shows it.

Each process measures. The report of a test takes the times to the summary, also from xdist's
workers: only long ones, with ``--asyncdb-stats`` all. This code runs for every test, so it only
reads a clock.
"""

from __future__ import annotations

import time
from typing import Any

#: From this number of seconds on, a part of a test's set-up or teardown is slow.
SLOW = 1.0


class Timer:
    """The clock of one process.

    Args:
        worker: The name of xdist's worker, or ``main``.
    """

    def __init__(self, worker: str) -> None:
        #: Seconds of schema and seed for each template built here, by backend as written.
        self.templates: dict[str, list[tuple[float | None, float | None]]] = {}
        self._worker = worker
        self._mark = 0.0
        self._first = False
        self._times: list[tuple[str, str, float]] = []

    def start(self) -> None:
        """Note that the set-up or the teardown of a test begins."""
        self._first = False
        self._mark = time.perf_counter()

    def prepared(self) -> None:
        """Note that server and template are ready, which does not count as set-up of the test.

        The test is the first one on its worker's database, which is created now.
        """
        self._first = True
        self._mark = time.perf_counter()

    def stop(self, word: str, isolation: str, part: str) -> None:
        """Note that the test's database is open, or that the teardown is complete, as *part*
        says."""
        line = f"{isolation}: {'database' if self._first else part}"
        self._times.append((word, line, time.perf_counter() - self._mark))

    def take(self, least: float) -> list[Any] | None:
        """Return the worker and the times since the last call, as JSON values for the report of a
        test.

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
