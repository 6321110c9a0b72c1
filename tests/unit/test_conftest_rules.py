"""Mistakes in conftests: each rule on a conftest that makes it, and on one that does not."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from pytest_asyncdb.reports.conftest_rules import RULES, mistakes

WRONG = {
    "default join mode": """
        @pytest.fixture
        async def session(engine):
            async with engine.connect() as connection:
                outer = await connection.begin()
                yield AsyncSession(bind=connection)
                await outer.rollback()
    """,
    "SQLite without real transactions": """
        URL = "sqlite+aiosqlite://"
        engine = create_async_engine(URL)
        async def session(connection):
            await connection.begin_nested()
    """,
    "event_loop override": """
        @pytest.fixture(scope="session")
        def event_loop():
            yield asyncio.new_event_loop()
    """,
    "StaticPool shared by tasks": """
        engine = create_async_engine("sqlite+aiosqlite://", poolclass=pool.StaticPool)
    """,
    "drop_all at the end": """
        @pytest.fixture
        async def tables(engine):
            yield
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.drop_all)
    """,
    "an engine per test": """
        @pytest_asyncio.fixture
        async def engine():
            return create_async_engine("postgresql+asyncpg://127.0.0.1/x")
    """,
}

RIGHT = {
    "default join mode": WRONG["default join mode"].replace(
        "bind=connection", 'bind=connection, join_transaction_mode="create_savepoint"'
    ),
    "SQLite without real transactions": WRONG["SQLite without real transactions"].replace(
        "(URL)", '(URL, connect_args={"autocommit": False})'
    ),
    "event_loop override": "def event_loop(): ...",
    "StaticPool shared by tasks": 'engine = create_async_engine("sqlite+aiosqlite://")',
    "drop_all at the end": WRONG["drop_all at the end"]
    .replace("    yield\n", "")
    .replace("drop_all)", "drop_all)\n            yield"),
    "an engine per test": WRONG["an engine per test"].replace(
        "pytest_asyncio.fixture", 'pytest_asyncio.fixture(scope="session")'
    ),
}


def found(text: str, folder: Path) -> list[str]:
    path = folder / "conftest.py"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return [mistake.rule.name for mistake in mistakes(path, "conftest.py")]


@pytest.mark.parametrize("name", WRONG)
def test_each_mistake_is_seen(name: str, tmp_path: Path) -> None:
    """It alone: no other rule takes the example for its own."""
    assert found(WRONG[name], tmp_path) == [name]


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_written_rightly_is_no_mistake(name: str, tmp_path: Path) -> None:
    assert found(RIGHT[name], tmp_path) == []


def test_a_file_that_does_not_parse_is_left_to_pytest(tmp_path: Path) -> None:
    assert found("def (", tmp_path) == []


def test_every_rule_has_an_example_and_a_line_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "howto" / "doctor.md").read_text(encoding="utf-8")
    section = page.partition("## Mistakes")[2].partition("## As JSON")[0]
    rows = re.findall(r"^\| (.+) \| (wrong|note) \|$", section, re.MULTILINE)
    assert rows == [(rule.name, "wrong" if rule.wrong else "note") for rule in RULES]
    assert {rule.name for rule in RULES} == set(WRONG) == set(RIGHT)
