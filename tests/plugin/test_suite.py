"""The everyday suite leaves out what its markers say, and the complete one nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fix_project import WITHOUT

TESTS = """
import pytest

EACH = ["sqlite", "postgres+asyncpg", "postgres+psycopg"]


@pytest.mark.parametrize("word", EACH)
def test_default(word):
    pass


@pytest.mark.everyday("postgres+psycopg")
@pytest.mark.parametrize("strategy", ["reset", pytest.param("copy", marks=pytest.mark.complete)])
@pytest.mark.parametrize("word", EACH)
def test_chosen(word, strategy):
    pass


@pytest.mark.everyday(("sqlite", "reset"), ("postgres+psycopg", "copy"), ("sqlite", "rollback"))
@pytest.mark.parametrize("strategy", ["reset", "copy"])
@pytest.mark.parametrize("word", EACH)
def test_pairs(word, strategy):
    pass


@pytest.mark.everyday("postgres-local")
@pytest.mark.parametrize("word", EACH)
def test_none_of_the_chosen(word):
    pass


@pytest.mark.parametrize("word", ["postgres+psycopg"])
def test_its_own_driver_only(word):
    pass


@pytest.mark.parametrize("value", [1, "other", [], None])
def test_other_parameters(value):
    pass


@pytest.mark.complete
def test_complete():
    pass
"""

EVERYDAY = [
    "test_default[sqlite]",
    "test_default[postgres+asyncpg]",
    "test_chosen[postgres+psycopg-reset]",
    "test_pairs[sqlite-reset]",
    "test_pairs[postgres+psycopg-copy]",
    "test_none_of_the_chosen[sqlite]",
    "test_none_of_the_chosen[postgres+asyncpg]",
    "test_its_own_driver_only[postgres+psycopg]",
    *(f"test_other_parameters[{value}]" for value in ("1", "other", "value2", "None")),
]


@pytest.mark.parametrize("variable", [None, "0", "1"])
def test_what_runs(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    pytester.makepyfile(TESTS)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("ASYNCDB_TEST_COMPLETE", raising=False)
    if variable is not None:
        monkeypatch.setenv("ASYNCDB_TEST_COMPLETE", variable)
    arguments = ("--collect-only", "-q", "--strict-markers", "-p", "fix_suite")
    result = pytester.run(sys.executable, "-m", "pytest", *WITHOUT, *arguments)
    found = [line.partition("::")[2] for line in result.outlines if "::" in line]
    if variable == "1":
        assert len(found) == 3 + 6 + 6 + 3 + 1 + 4 + 1
        assert set(found) > set(EVERYDAY)
    else:
        assert sorted(found) == sorted(EVERYDAY)
