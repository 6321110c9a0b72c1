"""Lines for the user while a server starts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

#: Its name among pytest's plugins.
PROGRESS = "asyncdb-progress"


class Progress:
    """Prints lines on the terminal, also from a thread, and while pytest captures a test's output.

    A plugin of pytest's, made before pytest begins to capture.
    """

    def __init__(self) -> None:
        self._stderr: int | None = None
        with contextlib.suppress(OSError):  # a process without stderr
            self._stderr = os.dup(2)
        #: Number of characters on the terminal's current line, such as dots for tests.
        self._column: Callable[[], int] = int

    def pytest_configure(self, config: pytest.Config) -> None:
        if config.pluginmanager.has_plugin("terminalreporter"):
            writer = config.get_terminal_writer()
            self._column = lambda: writer.width_of_current_line

    def __call__(self, line: str) -> None:
        """Print *line*, on a line of its own."""
        if self._stderr is None:
            return
        text = f"{os.linesep if self._column() else ''}asyncdb: {line}{os.linesep}"
        with contextlib.suppress(OSError):
            os.write(self._stderr, text.encode(errors="replace"))

    def pytest_unconfigure(self) -> None:
        if self._stderr is not None:
            os.close(self._stderr)
            self._stderr = None
