"""Applications of web frameworks with engines of their own, run as they are."""

from __future__ import annotations

import pytest
from fix_example import run, run_on
from fix_servers import WORDS, Servers, Target

#: The folder of each example, with the number of its tests.
EXAMPLES = {"fastapi_app": 11, "litestar_app": 4, "starlette_app": 4}


@pytest.mark.complete
@pytest.mark.parametrize("example", EXAMPLES)
def test_all_backends_in_one_run_with_workers(example: str, servers: Servers) -> None:
    output = run_on(example, [servers.target(word) for word in WORDS], "-n", "2")
    assert f"{EXAMPLES[example] * len(WORDS)} passed" in output


@pytest.mark.everyday(("fastapi_app", "postgres+asyncpg"))
@pytest.mark.parametrize("example", EXAMPLES)
def test_it_passes_on_each_backend(example: str, target: Target) -> None:
    assert f"{EXAMPLES[example]} passed" in run_on(example, [target])


@pytest.mark.everyday("fastapi_app")
@pytest.mark.parametrize("example", EXAMPLES)
def test_without_the_ini_line_the_application_uses_its_own_database(example: str) -> None:
    """The control."""
    output = run(example, "--tb=native", "-o", "asyncdb_app_engines=", passes=False)
    assert " passed" not in output
    assert "an engine connected that is not redirected" in output
