"""The SQL of a failed test, and counting statements, on every driver."""

from __future__ import annotations

import re

import pytest
from fix_project import Outcome, Project
from fix_servers import Servers, Target

from pytest_asyncdb._record import statement_log

pytestmark = pytest.mark.everyday("sqlite", "postgres+asyncpg")

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

BROKEN = """
async def test_it(asyncdb_session):
    await asyncdb_session.execute(text("SELECT * FROM nowhere"))
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
        lines.append(re.sub(r"\d+(\.\d+)? m?s\b", "# ms", line))
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
        r"^BEGIN 1 INSERT INTO users \(name\) VALUES \S+( RETURNING users\.id)? \[('ada'|name='ada')\] "
        r"-- (1 row, )?# ms, test_it\.py:\d+ "
        r"COMMIT BEGIN 2 SELECT users\.name FROM users ORDER BY users\.name "
        r"-- (\d rows?, )?# ms, test_it\.py:\d+$",
        text,
    ), text


def test_a_passed_test_shows_nothing(project: Project, target: Target) -> None:
    project.tests(FAILING.replace('"bob"', '"ada"'))
    outcome = project.run(target, "-rA").passed(1)
    assert "- asyncdb: SQL -" not in outcome.text


def test_a_statement_that_failed_says_so(project: Project, target: Target) -> None:
    """The driver's error is named beside the statement that it is about."""
    project.tests(
        """
        async def test_it(asyncdb_session):
            await asyncdb_session.execute(text("SELECT no_such_column FROM users"))
        """
    )
    found = section(project.run(target).had(failed=1)).splitlines()
    assert found[1:3] == ["      BEGIN", "   1    SELECT no_such_column FROM users"]
    said = {"asyncpg": "UndefinedColumnError", "psycopg": "UndefinedColumn"}
    error = said.get(target.driver, "OperationalError")
    assert re.fullmatch(rf"        -- {error}, # ms, test_it\.py:\d+", found[3])


def test_texts_of_statements_about_secrets_are_masked(project: Project, target: Target) -> None:
    project.tests(SECRET)
    outcome = project.run(target).had(failed=1)
    text = section(outcome)
    assert "hunter2" not in text
    assert "***" in text
    assert re.search(r"\[(token=)?7\]", text), text


def test_texts_of_statements_in_our_errors_are_masked(project: Project, servers: Servers) -> None:
    project.tests(
        """
        async def test_it(asyncdb_connection):
            word = "hunter" + "2"
            await asyncdb_connection.execute(text(f"ALTER USER ada IDENTIFIED BY '{word}'"))
        """
    )
    # Else pytest shows the arguments of functions.
    outcome = project.run(servers.target("mariadb+asyncmy"), "--tb=short").had(failed=1)
    assert "refused before it ran: ALTER USER ada IDENTIFIED BY '***'\n" in outcome.text
    assert "hunter2" not in outcome.text


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


NESTED = """
async def test_it(asyncdb_session):
    await asyncdb_session.execute(text("SELECT 1"))
    async with asyncdb_session.begin_nested():
        await asyncdb_session.execute(text("SELECT 2"))
        try:
            async with asyncdb_session.begin_nested():
                await asyncdb_session.execute(text("SELECT 3"))
                raise KeyError
        except KeyError:
            await asyncdb_session.execute(text("SELECT 4"))
    await asyncdb_session.commit()
    await asyncdb_session.execute(text("SELECT 5"))
    assert False
"""
TWO_AT_ONCE = """
async def test_it(asyncdb_sessionmaker, asyncdb_engine):
    async with asyncdb_sessionmaker() as one:
        await one.execute(text("SELECT 1"))
        async with asyncdb_sessionmaker() as two:
            await two.execute(text("SELECT 2"))
        await one.commit()
    async with asyncdb_engine.connect() as three:
        three = await three.execution_options(isolation_level="AUTOCOMMIT")
        await three.execute(text("SELECT 3"))
    assert False
"""


def without_facts(outcome: Outcome) -> list[str]:
    """The section's lines without the head, and without rows, times and places."""
    found = section(outcome).splitlines()[1:]
    return [re.sub(r" -- .*# ms.*", "", line) for line in found]


@pytest.mark.parametrize("strategy", ["rollback", "reset"])
def test_statements_stand_as_deep_as_their_transaction(
    project: Project, target: Target, strategy: str
) -> None:
    """As the user sees it: BEGIN, SAVEPOINT, and back; the same in every strategy."""
    project.tests(NESTED)
    arguments = (f"--asyncdb-isolation={strategy}", "--asyncdb-sql=all")
    outcome = project.run(target, *arguments).had(failed=1)
    assert without_facts(outcome) == [
        "      BEGIN",
        "   1    SELECT 1",
        "   2    SAVEPOINT sa_savepoint_1",
        "   3      SELECT 2",
        "   4      SAVEPOINT sa_savepoint_2",
        "   5        SELECT 3",
        "   6      ROLLBACK TO SAVEPOINT sa_savepoint_2",
        "   7      SELECT 4",
        "   8    RELEASE SAVEPOINT sa_savepoint_1",
        "      COMMIT",
        "      BEGIN",
        "   9    SELECT 5",
    ]


@pytest.mark.parametrize("strategy", ["rollback", "reset"])
def test_connections_are_told_apart_where_two_are_in_transactions(
    project: Project, target: Target, strategy: str
) -> None:
    """One that commits by itself is in none."""
    project.tests(TWO_AT_ONCE)
    outcome = project.run(target, f"--asyncdb-isolation={strategy}").had(failed=1)
    assert without_facts(outcome) == [
        "      BEGIN -- connection 1",
        "   1    SELECT 1",
        "      BEGIN -- connection 2",
        "   2    SELECT 2",
        "      ROLLBACK -- connection 2",
        "      COMMIT -- connection 1",
        "   3  SELECT 3",
    ]
    facts = [line for line in section(outcome).splitlines() if "# ms, " in line]
    assert [re.findall(r"connection \d", line) for line in facts] == [
        ["connection 1"],
        ["connection 2"],
        [],
    ]


def test_the_last_five_are_shown_and_the_others_counted(project: Project, servers: Servers) -> None:
    """On a line each where it holds them; --asyncdb-sql=all shows all of them, =no none."""
    project.tests(
        """
        async def test_it(asyncdb_session):
            await asyncdb_session.execute(text("SELECT 'hunter2' AS password"))
            for number in range(40):
                await asyncdb_session.execute(text("SELECT :n"), {"n": number})
                await asyncdb_session.commit()
            with pytest.raises(DBAPIError):
                await asyncdb_session.execute(text("SELECT nothing"))
            for number in range(30):
                await asyncdb_session.execute(text("SELECT 1 + :n"), {"n": number})
            assert False
        """
    )
    target = servers.target("sqlite")
    lines = section(project.run(target).had(failed=1)).splitlines()
    assert [re.sub(r"py:\d+", "py:#", line) for line in lines] == [
        "sqlite, rollback: 72 statements, # ms",
        "      67 before these",
        *(f"  {n}    SELECT 1 + ? [{n - 43}] -- # ms, test_it.py:#" for n in range(68, 73)),
    ]
    lines = section(project.run(target, "--asyncdb-sql=all").had(failed=1)).splitlines()
    assert [int(found[1]) for line in lines if (found := re.match(r" *(\d+)  ", line))] == [
        *range(1, 73)
    ]
    assert "hunter2" not in "".join(lines)
    for way in ("--asyncdb-sql=no", "--tb=line", "--tb=no"):
        assert "- asyncdb: SQL -" not in project.run(target, way).had(failed=1).text


def test_many_statements_do_not_add_up(
    project: Project, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are not kept are counted; ``count()`` counts all."""
    monkeypatch.setattr(statement_log, "_MOST", 50)
    project.tests(
        """
        async def test_it(asyncdb_connection, asyncdb):
            with asyncdb.count(max=200, min=200) as count:
                for number in range(200):
                    await asyncdb_connection.execute(text(f"SELECT {number % 2}"))
            assert len(count) == 200
            assert len(count.statements) == 50 == len(asyncdb.statements)
            with asyncdb.count(max=59):
                for number in range(60):
                    await asyncdb_connection.execute(text("SELECT 'hunter2'"))
        """
    )
    place = project.place(
        """await asyncdb_connection.execute(text("SELECT 'hunter2'"))""", "test_it"
    )
    outcome = project.run(servers.target("sqlite"), "--tb=auto").had(failed=1)
    assert "AssertionError: 60 statements, at most 59 expected" in outcome.text
    assert re.search(
        r"E +10 before these, which are not kept\nE +50 × SELECT 'hunter2'", outcome.text
    ), outcome.text
    assert section(outcome).splitlines()[:3] == [
        "sqlite, rollback: 260 statements, # ms",
        "      255 before these",
        f" 256    SELECT 'hunter2' -- # ms, {place.split()[0]}",
    ]


def test_statements_are_counted(project: Project, target: Target) -> None:
    project.tests(TWO)
    project.run(target).passed(1)


def test_too_many_statements_are_shown_together(project: Project, target: Target) -> None:
    """What is loaded for each row is said, with what cures it."""
    project.tests(EACH_ROW)
    outcome = project.run(target, "--tb=auto").had(failed=1)
    text = outcome.text
    assert "AssertionError: 3 statements, at most 2 expected" in text
    assert re.search(r"E +3 × SELECT posts\.id, posts\.user_id, posts\.text FROM posts", text)
    assert re.search(r"E +test_it\.py:\d+ in test_it", text)
    assert "one for each row? load them with the rows: selectinload()" in text


def test_what_was_counted_is_masked_and_fits_80_columns(project: Project, servers: Servers) -> None:
    project.tests(
        """
        async def test_it(asyncdb_session, asyncdb):
            with asyncdb.count(max=1):
                for number in range(3):
                    await asyncdb_session.execute(
                        select(Post, User).join(User).where(Post.user_id == number)
                    )
                await asyncdb_session.execute(text("SELECT 'hunter2' AS password"))
        """
    )
    outcome = project.run(servers.target("sqlite"), "--tb=auto").had(failed=1)
    lines = outcome.result.outlines
    first = lines.index("E       AssertionError: 4 statements, at most 1 expected")
    assert lines[first - 1] == ">       with asyncdb.count(max=1):"
    found = [re.sub(r":\d+", ":#", line) for line in lines[first + 1 : first + 12]]
    assert found == [
        "E          3 × SELECT posts.id, posts.user_id, posts.text, users.id AS id_1,",
        "E              users.name FROM posts JOIN users ON users.id = posts.user_id",
        "E              WHERE posts.user_id = ?",
        "E              test_it.py:# in test_it",
        "E              one for each row? load them with the rows: selectinload() for a",
        "E              collection, joinedload() for a single object",
        "E          1 × SELECT '***' AS password",
        "E              test_it.py:# in test_it",
        "",
        "test_it.py:#: AssertionError",
        "--------------------------------- asyncdb: SQL ---------------------------------",
    ]


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


LONG = """
async def test_it(asyncdb_session):
    statement = text("SELECT :when, :number, :key, :word, id, name FROM users WHERE name = :word")
    parameters = {
        "when": datetime.datetime(2026, 1, 2, 3, 4, 5),
        "number": decimal.Decimal("1.50"),
        "key": uuid.UUID(int=7),
        "word": "ada " * 50,
    }
    await asyncdb_session.execute(statement, parameters)
    assert False
"""


@pytest.mark.everyday("mysql+asyncmy")
def test_a_stream_has_no_number_of_rows(project: Project, target: Target) -> None:
    """MySQL's drivers have -1 as an unsigned number for it."""
    project.tests(
        """
        async def test_it(asyncdb_session, asyncdb):
            await add(asyncdb_session, "ada", "bob")
            async for _ in await asyncdb_session.stream(select(User.name)):
                pass
            assert asyncdb.statements[-1].rows in (None, 0, 1, 2)
        """
    )
    project.run(target).passed(1)


@pytest.mark.everyday("postgres+psycopg")
def test_a_long_statement_is_cut_in_the_middle(project: Project, servers: Servers) -> None:
    """Its values are shown as SQL would have them, dates in ISO form."""
    project.tests("import datetime, decimal, uuid", LONG)
    target = servers.target("postgres+psycopg")
    lines = section(project.run(target).had(failed=1)).splitlines()
    assert len(lines) <= 5
    assert lines[2].startswith("   1    SELECT %(when)s")
    assert re.search(
        r"…[ad ]+'\] -- (1 row, |0 rows, )?# ms, test_it\.py:\d+$", " ".join(lines[2:])
    ), lines
    whole = section(project.run(target, "--asyncdb-sql=all").had(failed=1))
    text = " ".join(whole.split())
    assert "[when=2026-01-02T03:04:05, number=1.50, " in text
    assert "key=00000000-0000-0000-0000-000000000007, word='ada" in text
    assert "…" in text  # of a value of 200 characters


@pytest.mark.everyday(
    ("sqlite", "rollback"), ("postgres+asyncpg", "reset"), ("postgres+asyncpg", "copy")
)
@pytest.mark.parametrize("strategy", ["rollback", "reset", "copy"])
def test_the_traceback_of_a_database_error_has_the_users_lines(
    project: Project, target: Target, strategy: str
) -> None:
    """Not those of SQLAlchemy, the driver and the plugin, and not the driver's error, which is in
    SQLAlchemy's; --full-trace shows all."""
    project.tests(BROKEN)
    arguments = (f"--asyncdb-isolation={strategy}", "--tb=short")
    outcome = project.run(target, *arguments).had(failed=1)
    # The line, the message, its [SQL: …], and our section; psycopg's message quotes the statement.
    assert outcome.text.count("nowhere") == (5 if target.driver == "psycopg" else 4)
    for word in ("sqlalchemy/", "pytest_asyncdb/", "greenlet", "direct cause"):
        assert word not in outcome.text
    whole = project.run(target, *arguments, "--full-trace").text
    for word in ("sqlalchemy/engine/", "pytest_asyncdb/", "direct cause"):
        assert word in whole


def test_the_traceback_of_an_error_of_the_plugin_has_the_users_lines(
    project: Project, servers: Servers
) -> None:
    """Such as that of a statement which is refused; --full-trace shows all."""
    project.tests(
        """
        async def test_it(asyncdb_session):
            await asyncdb_session.execute(text("COMMIT"))
        """
    )
    sqlite = servers.target("sqlite")
    outcome = project.run(sqlite, "--tb=short").had(failed=1)
    assert outcome.text.count('execute(text("COMMIT"))') == 1
    for word in ("sqlalchemy/", "pytest_asyncdb/", "greenlet"):
        assert word not in outcome.text
    whole = project.run(sqlite, "--tb=short", "--full-trace").text
    for word in ("sqlalchemy/engine/", "pytest_asyncdb/"):
        assert word in whole


def test_other_errors_keep_their_tracebacks(project: Project, servers: Servers) -> None:
    """Those of the user's code that SQLAlchemy calls, and causes that the user has given."""
    project.tests(
        """
        from sqlalchemy import event

        async def test_listener(asyncdb_engine, asyncdb_session):
            @event.listens_for(asyncdb_engine.sync_engine, "before_cursor_execute")
            def broken(*arguments):
                raise KeyError("mine")
            await asyncdb_session.execute(text("SELECT 1"))

        async def test_cause(asyncdb_session):
            try:
                await asyncdb_session.execute(text("SELECT * FROM nowhere"))
            except DBAPIError as error:
                raise LookupError("mine, too") from error
        """
    )
    text = project.run(servers.target("sqlite"), "--tb=short").had(failed=2).text
    assert "sqlalchemy/engine/" in text  # pytest's own way with an error that is no database's
    assert "in broken" in text
    assert text.count("The above exception was the direct cause") == 1
    assert "LookupError: mine, too" in text
