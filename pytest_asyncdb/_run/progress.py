"""Lines for the user while a server starts."""

from __future__ import annotations

import contextlib
import os

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
        self._config: pytest.Config | None = None

    def pytest_configure(self, config: pytest.Config) -> None:
        self._config = config

    def __call__(self, line: str) -> None:
        """Print *line*, on a line of its own."""
        if self._stderr is None:
            return
        text = f"{os.linesep if self._is_within_line() else ''}asyncdb: {line}{os.linesep}"
        with contextlib.suppress(OSError):
            os.write(self._stderr, text.encode(errors="replace"))

    def _is_within_line(self) -> bool:
        """Do dots of tests stand on the terminal's line?"""
        config = self._config
        if config is None or not config.pluginmanager.has_plugin("terminalreporter"):
            return False
        return config.get_terminal_writer().width_of_current_line > 0

    def pytest_unconfigure(self) -> None:
        if self._stderr is not None:
            os.close(self._stderr)
            self._stderr = None
