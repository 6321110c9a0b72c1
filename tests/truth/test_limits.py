"""docs/isolation.md lists the limits that scenarios or other tests show: all of them, and no other."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "isolation.md"
#: The sections of the page that list limits, and the strategies for which.
SECTIONS = {
    "What `rollback` cannot do": ("rollback",),
    "What differs in every strategy": ("rollback", "reset", "copy"),
}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The modules of the judge, as the inner run imports them."""
    monkeypatch.syspath_prepend(HERE)
    names = ["stage", "sync_stage", "limits", "sync_scenarios"]
    names += [path.stem for path in HERE.glob("scenarios_*.py")]
    yield {name: importlib.import_module(name) for name in names}
    for name in names:
        del sys.modules[name]


def _section(title: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return [heading.rstrip(".") for heading in re.findall(r"^- \*\*(.+?)\*\*", text, re.MULTILINE)]


def test_there_are_150_scenarios(table: dict[str, Any]) -> None:
    assert len(table["stage"].SCENARIOS) >= 150


def test_there_are_30_scenarios_for_sync_code(table: dict[str, Any]) -> None:
    assert len(table["sync_stage"].SYNC_SCENARIOS) >= 30


@pytest.mark.parametrize("title", SECTIONS)
def test_the_page_lists_exactly_the_limits_that_are_shown(
    table: dict[str, Any], title: str
) -> None:
    """A limit without a scenario or test is not true; one that is not on the page, nobody is told."""
    shown = {
        limit.heading
        for scenario in table["stage"].SCENARIOS.values()
        for limit in scenario.limits
        if tuple(limit.strategies) == SECTIONS[title]
    }
    if title == "What `rollback` cannot do":
        shown |= set(table["limits"].SHOWN_BY) - {"One writer on SQLite"}
    else:
        shown |= set(table["limits"].SHOWN_BY_ALL)
    assert sorted(_section(title)) == sorted(shown)


def test_the_tests_that_show_a_limit_are_there(table: dict[str, Any]) -> None:
    limits = table["limits"]
    for heading, where in (limits.SHOWN_BY | limits.SHOWN_BY_ALL).items():
        file, _, name = where.partition("::")
        tree = ast.parse((HERE.parent / file).read_text(encoding="utf-8"))
        names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        assert name in names, f"{heading}: {where}"
        assert heading in PAGE.read_text(encoding="utf-8")
