"""The SQL of a failed test, and counting statements, on every driver."""

from __future__ import annotations

import re

import pytest
from fix_project import Outcome, Project
from fix_servers import Servers, Target

FAILING = """
async def test_it(asyncdb_session):
    asyncdb_session.add(User(name="ada"))
    await asyncdb_session.commit()
    assert await names(asyncdb_session) == ["bob"]
"""
TWO = """
async def test_it(asyncdb_session, asyncdb):
    await add(asyncdb_session, "ada")
    with asyncdb.count(max=2, min=1) as count:
        assert await names(asyncdb_session) == ["ada"]
        assert len(count) == 1
    await names(asyncdb_session)
    assert len(count.statements) == 1
    assert len(asyncdb.statements) == 3
    assert asyncdb.statements[0].sql.startswith("INSERT INTO users")
"""
EACH_ROW = """
async def test_it(asyncdb_session, asyncdb):
    await add(asyncdb_session, "ada", "bob", "cyd")
    await asyncdb_session.commit()
    with asyncdb.count(max=2):
        for number in (1, 2, 3):
            await asyncdb_session.scalars(
                select(Post).where(Post.user_id == number)
            )
"""
SECRET = """
async def test_it(asyncdb_connection):
    await asyncdb_connection.execute(
        text("SELECT :name AS name, :word AS password"), {"name": "ada", "word": "hunter2"}
    )
    await asyncdb_connection.execute(text("SELECT 1 WHERE 1 = :token"), {"token": 7})
    await asyncdb_connection.execute(text("SELECT 'hunter2' AS passwd"))
    await asyncdb_connection.execute(
        text("SELECT :data AS data"), {"data": '{"password": "hunter2"}'}
    )
    assert False
"""


def section(outcome: Outcome) -> str:
    """The report's section, with what differs from run to run left out."""
    text = outcome.text
    assert text.count("- asyncdb: SQL -") == 1, text
    found = text.partition("- asyncdb: SQL -")[2].partition("\n")[2]
    lines = []
    for line in found.splitlines():
        if line.startswith(("---", "===")):
            break
        assert len(line) <= 80 or "/" in line, line
        lines.append(re.sub(r"\d+\.\d ms", "# ms", line))
    return "\n".join(lines)


@pytest.mark.parametrize("strategy", ["rollback", "reset", "copy"])
def test_a_failed_test_shows_its_statements(
    project: Project, target: Target, strategy: str
) -> None:
    """In order, with parameters, rows, time and place; nothing of ours among them."""
    project.tests(FAILING)
    outcome = project.run(target, f"--asyncdb-isolation={strategy}").had(failed=1)
    lines = section(outcome).splitlines()
    assert lines[0] == f"{target.word}, {strategy}: 2 statements, # ms"
    text = " ".join("\n".join(lines[1:]).split())
    assert re.search(
        r"^1 INSERT INTO users \(name\) VALUES \S+( RETURNING users\.id)? \[('ada'|name='ada')\] "
        r"-- (1 row, )?# ms, test_it\.py:\d+ in test_it "
        r"2 COMMIT 3 SELECT users\.name FROM users ORDER BY users\.name "
        r"-- (\d rows?, )?# ms, test_it\.py:\d+ in names$",
        text,
    ), text


def test_a_passed_test_shows_nothing(project: Project, target: Target) -> None:
    project.tests(FAILING.replace('"bob"', '"ada"'))
    outcome = project.run(target, "-rA").passed(1)
    assert "asyncdb: SQL" not in outcome.text


def test_a_statement_that_failed_says_so(project: Project, target: Target) -> None:
    """The driver's error is named below the statement that it is about."""
    project.tests(
        """
        async def test_it(asyncdb_session):
            await asyncdb_session.execute(text("SELECT no_such_column FROM users"))
        """
    )
    found = section(project.run(target).had(failed=1)).splitlines()
    assert found[1] == "   1  SELECT no_such_column FROM users"
    assert re.fullmatch(r"      -- # ms, test_it\.py:\d+ in test_it", found[2])
    assert re.fullmatch(r"      -- \w+", found[3])


def test_texts_of_statements_about_secrets_are_masked(project: Project, target: Target) -> None:
    project.tests(SECRET)
    outcome = project.run(target).had(failed=1)
    text = section(outcome)
    assert "hunter2" not in text
    assert "***" in text
    assert re.search(r"\[(token=)?7\]", text), text


def test_workers_send_it_too(project: Project, servers: Servers) -> None:
    project.tests(FAILING)
    outcome = project.run_apart(servers.target("sqlite"), "-n1")
    outcome.result.assert_outcomes(failed=1)
    assert section(outcome).startswith("sqlite, rollback: 2 statements, # ms")


def test_the_applications_engine_is_seen(project: Project, servers: Servers) -> None:
    """An engine that is led to the test's database runs its statements there."""
    project.write(
        "app/db.py",
        """
        from sqlalchemy.ext.asyncio import create_async_engine
        engine = create_async_engine("sqlite+aiosqlite:///never.db")
        """,
    )
    project.ini(asyncdb_app_engines="app.db:engine")
    project.tests(
        """
        from app.db import engine

        async def test_it(asyncdb_session):
            async with engine.begin() as connection:
                await connection.execute(insert(User), [{"name": "ada"}])
            assert False
        """
    )
    outcome = project.run(servers.target("sqlite")).had(failed=1)
    assert "INSERT INTO users" in section(outcome)


def test_only_the_last_ones_are_shown(project: Project, servers: Servers) -> None:
    project.tests(
        """
        async def test_it(asyncdb_session):
            for number in range(30):
                await asyncdb_session.execute(text("SELECT :n"), {"n": number})
            assert False
        """
    )
    lines = section(project.run(servers.target("sqlite")).had(failed=1)).splitlines()
    assert lines[0] == "sqlite, rollback: 30 statements, # ms; the last 20 of 30 lines"
    assert lines[1] == "  11  SELECT ?"
    assert lines[2] == "      [10]"


def test_statements_are_counted(project: Project, target: Target) -> None:
    project.tests(TWO)
    project.run(target).passed(1)


def test_too_many_statements_are_shown_together(project: Project, target: Target) -> None:
    """What is loaded for each row is said, with what cures it."""
    project.tests(EACH_ROW)
    outcome = project.run(target).had(failed=1)
    text = outcome.text
    assert "AssertionError: 3 statements, at most 2 expected" in text
    assert re.search(r"E +3 × SELECT posts\.id, posts\.user_id, posts\.text FROM posts", text)
    assert re.search(r"E +test_it\.py:\d+ in test_it", text)
    assert "one for each row? load them with the rows: selectinload()" in text


def test_too_few_statements_fail_too(project: Project, servers: Servers) -> None:
    project.tests(
        """
        async def test_it(asyncdb):
            with asyncdb.count(min=1):
                pass
        """
    )
    outcome = project.run(servers.target("sqlite")).had(failed=1)
    assert "AssertionError: 0 statements, at least 1 expected" in outcome.text


def test_a_block_that_fails_keeps_its_own_error(project: Project, servers: Servers) -> None:
    project.tests(
        """
        async def test_it(asyncdb):
            with asyncdb.count(min=1):
                raise KeyError("mine")
        """
    )
    outcome = project.run(servers.target("sqlite")).had(failed=1)
    assert "KeyError: 'mine'" in outcome.text
    assert "expected" not in outcome.text
