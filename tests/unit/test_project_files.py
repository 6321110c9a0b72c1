"""The files of CI and of GitHub name what exists, and the versions in them agree."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / ".github").rglob("*.yml"), ROOT / ".readthedocs.yaml"])
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
TOX = (ROOT / "tox.ini").read_text("utf-8")
#: Versions of Python that the project says it supports.
VERSIONS = {
    match[1] for word in PROJECT["classifiers"] if (match := re.search(r":: (3\.\d+)$", word))
}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = load(path)["jobs"]
    return found


def commands() -> Iterator[str]:
    """Every ``run:`` of every workflow."""
    for path in WORKFLOWS:
        for job in jobs(path).values():
            yield from (step["run"] for step in job["steps"] if "run" in step)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_is_yaml(path: Path) -> None:
    assert isinstance(load(path), dict)


def test_workflows_run_files_that_exist() -> None:
    named = {
        word
        for command in commands()
        for word in re.findall(r"(?<![\w./-])(?:\.ci|tests|docs|benchmarks)(?:/[\w.]+)*", command)
    }
    assert {".ci/run", ".ci/sdist", ".ci/with_postgres.py", "tests/unit"} <= named
    assert {word for word in named if not (ROOT / word).exists()} == set()


def test_workflows_install_extras_that_exist() -> None:
    named = {
        extra
        for command in commands()
        for words in re.findall(r'"\.\[(.*?)\]"', command)
        for extra in words.split(",")
    }
    named |= set(load(ROOT / ".readthedocs.yaml")["python"]["install"][0]["extra_requirements"])
    assert {"test", "docs"} <= named
    assert named <= set(PROJECT["optional-dependencies"])


def test_every_supported_python_is_tested() -> None:
    """By the workflow and by tox; the oldest is the one that pip accepts."""
    used = {
        str(python)
        for path in WORKFLOWS
        for job in jobs(path).values()
        for row in [job.get("strategy", {}).get("matrix", {})]
        for python in [*row.get("python", ()), *(one["python"] for one in row.get("include", ()))]
    }
    environments = set(re.findall(r"^    py(\d)(\d+)-", TOX, re.MULTILINE))
    assert used == VERSIONS
    assert {".".join(version) for version in environments} == VERSIONS
    assert PROJECT["requires-python"] == f">={min(VERSIONS, key=lambda v: int(v[2:]))}"


def test_the_workflow_runs_environments_of_tox() -> None:
    rows = jobs(ROOT / ".github/workflows/tests.yml")["versions"]["strategy"]["matrix"]["include"]
    listed = re.search(r"env_list =\n((?:    .*\n)+)", TOX)
    assert listed is not None
    assert {row["env"] for row in rows} <= set(listed[1].split())
    for row in rows:
        if match := re.match(r"py3(\d+)-", row["env"]):
            assert row["python"] == f"3.{match[1]}"


def test_only_the_job_that_publishes_gets_a_token() -> None:
    """And it has no step that could run code of the project."""
    for path in WORKFLOWS:
        assert load(path)["permissions"] == {"contents": "read"}
    release = jobs(ROOT / ".github/workflows/release.yml")
    assert [name for name, job in release.items() if "permissions" in job] == ["publish"]
    assert release["publish"]["permissions"] == {"id-token": "write"}
    assert [step["uses"].partition("@")[0] for step in release["publish"]["steps"]] == [
        "actions/download-artifact",
        "pypa/gh-action-pypi-publish",
    ]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_an_issue_form_has_what_github_wants(path: Path) -> None:
    form = load(path)
    assert {"name", "description", "body"} <= set(form)
    ids = [part["id"] for part in form["body"]]
    assert len(ids) == len(set(ids))
    assert all(part["attributes"]["label"] for part in form["body"])


def test_a_bug_report_has_the_doctors_output() -> None:
    form = load(ROOT / ".github/ISSUE_TEMPLATE/bug.yml")
    (doctor,) = (part for part in form["body"] if part["id"] == "doctor")
    assert "--asyncdb-doctor" in doctor["attributes"]["description"]
    assert doctor["validations"] == {"required": True}


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_links_and_files_that_a_page_names_exist(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    named = set(re.findall(r"\]\(((?!https:)[^)#]+)", text))
    named |= set(re.findall(r"(?<![\w./-])(?:\.ci|\.github|tests|docs)/[\w./]*\w", text))
    assert {word for word in named if not (ROOT / word).exists()} == set()


#: Addresses of the project's own pages and files, as they stand where links must be absolute.
PAGE = re.compile(r"https://pytest-asyncdb\.readthedocs\.io/en/latest/([\w./-]*\w)?")
FILE = re.compile(
    r"https://(?:raw\.githubusercontent\.com|github\.com)/pytest-asyncdb/pytest-asyncdb/(?:blob/)?"
    r"main/([\w./-]*\w)"
)


def test_absolute_links_to_the_project_lead_somewhere() -> None:
    """No network is needed: a page's address is that of its source."""
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("pytest_asyncdb/**/*.py")]
    text = "\n".join(path.read_text("utf-8") for path in texts)
    pages = {
        f"docs/{(page or 'index.html').replace('.html', '.md')}" for page in PAGE.findall(text)
    }
    files = set(FILE.findall(text))
    assert pages
    assert files
    assert {path for path in pages | files if not (ROOT / path).exists()} == set()
