"""The files of docs/howto/ci.md: they parse, and their commands work as far as one machine can try."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fix_project import WITHOUT

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "howto" / "ci.md").read_text(encoding="utf-8")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "optional-dependencies"
]


def files() -> list[dict[str, Any]]:
    """Each file of the page, parsed."""
    return [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)]


def jobs() -> Iterator[tuple[list[str], dict[str, str]]]:
    """The commands of each job and its variables."""
    for file in files():
        if "jobs" in file:
            for job in file["jobs"].values():
                commands = [step["run"] for step in job["steps"] if "run" in step]
                yield commands, job.get("env", {})
        else:
            for job in file.values():
                yield job["script"], job.get("variables", {})


JOBS = list(jobs())


def test_the_files_have_the_form_of_their_systems() -> None:
    """GitHub's begin with these keys ("on" is YAML's true); GitLab's have an image."""
    for file in files():
        if "jobs" in file:
            assert [*file] == ["name", True, "jobs"]
            assert all({"runs-on", "steps"} <= job.keys() for job in file["jobs"].values())
        else:
            assert all({"image", "script"} <= job.keys() for job in file.values())
    assert len(JOBS) == 5


@pytest.mark.parametrize(("commands", "variables"), JOBS)
def test_the_extras_are_those_of_the_package(
    commands: list[str], variables: dict[str, str]
) -> None:
    (extras,) = re.findall(r"pytest-asyncdb\[([\w,]+)\]", "\n".join(commands))
    assert set(extras.split(",")) <= EXTRAS.keys()


@pytest.mark.parametrize(("commands", "variables"), JOBS)
def test_the_runs_have_tests_on_each_backend(
    commands: list[str],
    variables: dict[str, str],
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The options and the URLs are accepted: their hosts count as test servers."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function")
    pytester.makepyfile("def test_it(asyncdb_session): pass")
    (command,) = (line for line in commands if line.startswith("pytest "))
    words = shlex.split(command)[1:]
    assert words[:2] == ["-n", "auto"]
    result = pytester.runpytest_inprocess(*WITHOUT, *words[2:], "--collect-only", "-q")
    assert result.ret == 0
    backends = words[2].removeprefix("--asyncdb=").split(",")
    ids = [f"test_it[{backend.replace('@', '-')}]" for backend in backends]
    assert [line.rpartition("::")[2] for line in result.outlines if "::" in line] == ids
