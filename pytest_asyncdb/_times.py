"""How long the plugin's own work took in this process; ``reports/_times.py`` shows it.

Noted where it happens, and taken by the report of the test, with which it gets out of xdist's
workers. It is on the path of every test: reading a clock is all that it costs.
"""

from __future__ import annotations

import time
from typing import Any


class Times:
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
