"""The words of the docs, the docstrings and the texts of errors: spelling, and plain English.

``AVOID`` is the project's list. "python -m codespell_lib" has the list of common misspellings;
words that it takes for one are in ``pyproject.toml``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import codespell_lib
import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pytest_asyncdb"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Modules whose texts a user reads.
TEXTS = {"messages.py", "hints.py", "errors.py"}

#: What a reader whose first language is not English does not know, and what to write instead.
AVOID = {
    r"anew": "again, from the start",
    r"(be|being|was|were) had": "is available",
    r"ours": "the plugin's",
    r"for ever": "without a limit",
    r"(no|some)body": "name who or what it is",
    r"whose matter|(is|are) the matter": "say what it is about",
    r"tells": "reports, shows",
    r"dear": "expensive",
    r"whilst|amongst|thereof|therein|wherein|whither": "while, among, of it, in it, in which",
    r"lest": "so that … not",
}
_AVOID = re.compile("|".join(rf"\b({words})\b" for words in AVOID), re.IGNORECASE)


def of_page(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a page that are prose: no blocks of code, no comments, no code in a line."""
    fence = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        mark = re.match(r"\s*(`{3,})", line)
        if mark:
            fence = "" if fence == mark[1] else fence or mark[1]
        elif not fence and not line.startswith("<!--"):
            yield number, re.sub(r"`[^`]*`", "", line)


def of_module(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a module's docstrings; of those in ``TEXTS`` all literal strings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if path.name in TEXTS and isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                for number, line in enumerate(value.value.splitlines(), value.lineno):
                    yield number, re.sub(r"`[^`]*`", "", line)


def found(lines: Iterator[tuple[int, str]], name: str) -> list[str]:
    """The places of words to avoid, with the word."""
    return [f"{name}:{number}: {m[0]}" for number, line in lines for m in _AVOID.finditer(line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_has_no_word_to_avoid(page: Path) -> None:
    assert found(of_page(page), page.name) == []


def test_docstrings_and_errors_have_no_word_to_avoid() -> None:
    modules = sorted(PACKAGE.rglob("*.py"))
    places = [
        place for path in modules for place in found(of_module(path), str(path.relative_to(ROOT)))
    ]
    assert places == []


@pytest.mark.parametrize(
    "text",
    ["Begins anew.", "No server could be had.", "A loop of ours", "Nobody's data", "It tells why."],
)
def test_a_word_to_avoid_is_found(text: str) -> None:
    """The control."""
    assert len(found(iter([(1, text)]), "page")) == 1


def test_nothing_is_misspelt(capsys: pytest.CaptureFixture[str]) -> None:
    """Common misspellings in docs, docstrings, comments and error texts."""
    files = [*map(str, PAGES), *map(str, sorted(PACKAGE.rglob("*.py")))]
    number = codespell_lib.main("--toml", str(ROOT / "pyproject.toml"), *files)
    assert (number, capsys.readouterr().out) == (0, "")


def test_a_misspelling_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The control."""
    page = tmp_path / "page.md"
    page.write_text("It is recieved.\n", encoding="utf-8")
    assert codespell_lib.main(str(page)) != 0
    assert "recieved ==> received" in capsys.readouterr().out
