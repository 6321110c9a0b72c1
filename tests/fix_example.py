"""Runs the projects of ``tests/examples`` as their users do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fix_project import INNER, WITHOUT

FOLDER = Path(__file__).with_name("examples")


def run(example: str, *arguments: str, passes: bool = True) -> str:
    """The output of pytest in the example's folder, in another process, as a user has it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ASYNCDB_", "PYTEST_"))}
    environment["PYTHONPATH"] = str(INNER)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *WITHOUT, *("-p", "run_id"), *arguments],
        cwd=FOLDER / example,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode == 0) == passes, done.stdout + done.stderr
    assert "not redirected" not in done.stdout
    return done.stdout
