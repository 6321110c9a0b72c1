"""Runs the projects of ``tests/examples`` as their users do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fix_observer import left_behind
from fix_project import INNER, WITHOUT
from fix_servers import Target

FOLDER = Path(__file__).with_name("examples")


def run(example: str, *arguments: str, order: str = "as-written", passes: bool = True) -> str:
    """The output of pytest in the example's folder, in another process.

    Args:
        order: Of its tests; see ``inner/reorder.py``.
        passes: Whether the run has to pass; otherwise it has to fail.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ASYNCDB_", "PYTEST_"))}
    environment |= {"ORDER": order, "PYTHONPATH": str(INNER)}
    plugins = (*WITHOUT, "-p", "reorder", "-p", "run_id")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *arguments],
        cwd=FOLDER / example,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode == 0) == passes, done.stdout + done.stderr
    if passes:
        assert "not redirected" not in done.stdout
    return done.stdout


def run_on(
    example: str, targets: Sequence[Target], *arguments: str, order: str = "as-written"
) -> str:
    """The output of one run on all *targets*, which leaves no database on their servers."""
    urls = {target.backend: target.url for target in targets if target.url}
    words = ",".join(target.word for target in targets)
    hosts = [f"--asyncdb-allow-hosts={t.server.host}" for t in targets if t.server]
    output = run(
        *(example, f"--asyncdb={words}", *(f"--asyncdb-url={url}" for url in urls.values())),
        *(*dict.fromkeys(hosts), *arguments),
        order=order,
    )
    for target in targets:
        assert left_behind(target.observer, output) == set()
    return output
