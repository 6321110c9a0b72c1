"""Prints lines for the user while a server starts."""

from __future__ import annotations

import contextlib
import os

#: The name of this object among pytest's plugins.
PROGRESS = "asyncdb-progress"


class Progress:
    """Prints lines on the terminal, also from a thread, and while pytest captures a test's output.

    It is a plugin of pytest that is created before pytest begins to capture.
    """

    def __init__(self) -> None:
        self._stderr: int | None = None
        with contextlib.suppress(OSError):  # a process without stderr
            self._stderr = os.dup(2)

    def __call__(self, line: str) -> None:
        """Print *line* on a line of its own: the dots of tests may stand on the present one."""
        text = f"{os.linesep}asyncdb: {line}{os.linesep}"
        with contextlib.suppress(OSError):
            if self._stderr is not None:
                os.write(self._stderr, text.encode(errors="replace"))

    def pytest_unconfigure(self) -> None:
        if self._stderr is not None:
            os.close(self._stderr)
            self._stderr = None
