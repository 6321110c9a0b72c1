"""The quickstart of the docs: a project that never heard of us, run as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fix_observer import left_behind
from fix_project import INNER, WITHOUT
from fix_servers import WORDS, Servers, Target

FOLDER = Path(__file__).parent / "quickstart"
TESTS = 22


def run(*arguments: str, order: str = "as-written") -> str:
    """The output of pytest in the example's folder, in another process, as a user has it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ASYNCDB_", "PYTEST_"))}
    environment |= {"ORDER": order, "PYTHONPATH": str(INNER)}
    options = (*WITHOUT, "-p", "reorder", "-p", "run_id")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *arguments],
        cwd=FOLDER,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("order", ["as-written", "reversed", "random-1", "random-2"])
def test_it_passes_in_any_order_on_each_backend(target: Target, order: str) -> None:
    """The tests do not depend on one another, whichever came before."""
    output = run(*target.arguments, order=order)
    assert f"{TESTS} passed" in output
    assert left_behind(target.observer, output) == set()


@pytest.mark.parametrize("workers", [(), ("-n", "2"), ("-n", "4")], ids=["main", "n2", "n4"])
def test_all_backends_in_one_run(servers: Servers, workers: tuple[str, ...]) -> None:
    """One command, six backends and drivers, with and without workers."""
    targets = [servers.target(word) for word in WORDS]
    urls = {target.backend: target.url for target in targets if target.url}
    arguments = [
        "--asyncdb=" + ",".join(WORDS),
        *(f"--asyncdb-url={url}" for url in urls.values()),
        *workers,
    ]
    output = run(*arguments)
    assert f"{TESTS * len(WORDS)} passed" in output
    for target in targets:
        assert left_behind(target.observer, output) == set()


@pytest.mark.parametrize("workers", [(), ("-n", "4")], ids=["main", "n4"])
@pytest.mark.parametrize(
    ("provider", "backends"),
    [("container", ("postgres", "mysql", "mariadb")), ("local", ("postgres", "mariadb"))],
)
def test_it_passes_on_servers_of_each_provider(
    servers: Servers, provider: str, backends: tuple[str, ...], workers: tuple[str, ...]
) -> None:
    """Nobody starts a server beforehand: the run finds and ends its own."""
    for backend in backends:
        servers.need(backend, provider)
    words = [word for word in WORDS if word.partition("+")[0] in ("sqlite", *backends)]
    output = run(f"--asyncdb={','.join(words)}", f"--asyncdb-server={provider}", *workers)
    assert f"{TESTS * len(words)} passed" in output
