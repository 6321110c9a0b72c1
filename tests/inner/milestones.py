"""A plugin for runs that have accidents: how far a run is, for who looks at it from outside.

Writes a line to the file ``MILESTONES``: the run's id as soon as there is one, then whenever a test
begins or has ended, with the time of the machine's monotonic clock.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pytest_asyncdb._run.stash import RUN

_FILE = Path(os.environ["MILESTONES"])


def _note(line: str) -> None:
    with _FILE.open("a") as file:  # one write for a line: workers do not get into each other's
        file.write(f"{line}\n")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    _note(f"id {session.config.stash[RUN].id}")


def pytest_runtest_setup() -> None:
    _note(f"begun {time.monotonic()}")


def pytest_runtest_logfinish() -> None:
    _note(f"ended {time.monotonic()}")
