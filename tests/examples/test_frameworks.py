"""Applications of web frameworks with engines of their own, run as they are."""

from __future__ import annotations

import subprocess
import sys

import pytest
from fix_example import FOLDER, run
from fix_observer import left_behind
from fix_project import WITHOUT
from fix_servers import WORDS, Servers, Target

#: The folder of each example, with the number of its tests.
EXAMPLES = {"fastapi_app": 11, "litestar_app": 4, "starlette_app": 4}


@pytest.mark.parametrize("example", EXAMPLES)
def test_it_passes_on_each_backend(example: str, target: Target) -> None:
    output = run(example, *target.arguments)
    assert f"{EXAMPLES[example]} passed" in output
    assert left_behind(target.observer, output) == set()


@pytest.mark.parametrize("example", EXAMPLES)
def test_all_backends_in_one_run_with_workers(example: str, servers: Servers) -> None:
    targets = [servers.target(word) for word in WORDS]
    urls = {target.backend: target.url for target in targets if target.url}
    arguments = ["--asyncdb=" + ",".join(WORDS), *(f"--asyncdb-url={u}" for u in urls.values())]
    assert f"{EXAMPLES[example] * len(WORDS)} passed" in run(example, *arguments, "-n", "2")


@pytest.mark.parametrize("example", EXAMPLES)
def test_without_the_ini_line_the_application_wants_its_own_database(example: str) -> None:
    """The control."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *WITHOUT, "-o", "asyncdb_app_engines="],
        cwd=FOLDER / example,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert " passed" not in done.stdout
    assert "an engine connected that is not redirected" in done.stdout
