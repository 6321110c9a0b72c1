"""The rows that a failed test has changed: read before anything is undone, disturbing nothing."""

from __future__ import annotations

import pytest
from fix_project import Outcome, Project
from fix_servers import Servers, Target
from fix_suite import EACH_ONCE

STRATEGIES = ("rollback", "reset", "copy")
REAL = ("reset", "copy")

SEED = """
import pytest
from sqlalchemy import text


async def seed(session):
    await session.execute(text("INSERT INTO users (id, name) VALUES (1, 'ada'), (2, 'bob')"))


@pytest.fixture(scope="session")
def asyncdb_seed():
    return seed
"""
SEEDED = {"posts": [], "users": [(1, "ada"), (2, "bob")]}

#: Shows all rows.
ALL = "--asyncdb-sql=all"

ALL_KINDS = """
async def test_it(asyncdb_session):
    await asyncdb_session.execute(text("UPDATE users SET name = 'eve' WHERE id = 1"))
    await asyncdb_session.execute(text("DELETE FROM users WHERE id = 2"))
    await asyncdb_session.execute(insert(User).values(id=7, name="cyd"))
    await asyncdb_session.execute(insert(Post).values(id=1, user_id=7, text="hers"))
    await asyncdb_session.commit()
    assert False

async def test_next(asyncdb_session):
    assert await names(asyncdb_session) == ["ada", "bob"]
"""
NOT_COMMITTED = """
async def test_it(asyncdb_session):
    await asyncdb_session.execute(insert(User).values(id=7, name="cyd"))
    assert False
"""


def section(outcome: Outcome) -> list[str]:
    """The lines of the one section."""
    text = outcome.text
    assert text.count("- asyncdb: changed rows -") == 1, text
    found = []
    for line in text.partition("- asyncdb: changed rows -")[2].splitlines()[1:]:
        if line.startswith(("---", "===", "___")):
            break
        assert len(line) <= 80, line
        found.append(line)
    return found


@pytest.mark.everyday(*EACH_ONCE)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_failed_test_shows_the_rows_it_changed(
    project: Project, target: Target, strategy: str
) -> None:
    project.write("conftest.py", SEED)
    project.tests(ALL_KINDS)
    outcome = project.run(target, ALL, f"--asyncdb-isolation={strategy}", expected=SEEDED)
    outcome.had(failed=1, passed=1)
    assert section(outcome) == [
        "posts: 1 inserted",
        "  + id=1, user_id=7, text='hers'",
        "users: 1 inserted, 1 updated, 1 deleted",
        "  + id=7, name='cyd'",
        "  ~ id=1, name='ada' -> 'eve'",
        "  - id=2, name='bob'",
    ]


def test_rows_of_an_open_transaction_are_seen(project: Project, target: Target) -> None:
    """In rollback, where they are in the test's one transaction."""
    project.tests(NOT_COMMITTED)
    outcome = project.run(target, ALL).had(failed=1)
    assert section(outcome) == ["users: 1 inserted", "  + id=7, name='cyd'"]


@pytest.mark.everyday(
    *("sqlite", ("postgres+asyncpg", "reset")),
    *(("mysql+aiomysql", "copy"), ("mariadb+asyncmy", "reset")),
)
@pytest.mark.parametrize("strategy", REAL)
def test_of_real_transactions_only_committed_rows_are_seen(
    project: Project, target: Target, strategy: str
) -> None:
    """And what the section says does not pretend more."""
    project.tests(NOT_COMMITTED)
    outcome = project.run(target, ALL, f"--asyncdb-isolation={strategy}").had(failed=1)
    assert section(outcome) == ["no committed row differs from an untouched database"]


def test_a_failed_transaction_stays_what_it_is(project: Project, target: Target) -> None:
    """Looking neither cures a transaction that has failed nor keeps it from being rolled back."""
    project.write(
        "conftest.py",
        """
        import pytest
        from sqlalchemy import text
        from sqlalchemy.exc import DBAPIError


        @pytest.fixture
        async def session(asyncdb_session):
            yield asyncdb_session
            if asyncdb_session.bind.dialect.name == "postgresql":
                with pytest.raises(DBAPIError, match="transaction is aborted"):
                    await asyncdb_session.execute(text("SELECT 1"))
            await asyncdb_session.rollback()
            rows = await asyncdb_session.execute(text("SELECT name FROM users"))
            assert list(rows.scalars()) == ["ada"]
        """,
    )
    project.tests(
        """
        async def test_it(session):
            await session.execute(insert(User).values(id=1, name="ada"))
            await session.commit()
            await session.execute(insert(User).values(id=1, name="eve"))
        """
    )
    outcome = project.run(target, ALL).had(failed=1)
    assert section(outcome) == ["users: 1 inserted", "  + id=1, name='ada'"]


def test_work_that_goes_on_is_not_disturbed(project: Project, target: Target) -> None:
    """A fixture of the user's commits and undoes what was open when the test failed."""
    project.write(
        "conftest.py",
        """
        import pytest
        from sqlalchemy import text


        @pytest.fixture
        async def session(asyncdb_session, asyncdb_sessionmaker):
            async with asyncdb_sessionmaker() as inner:
                yield asyncdb_session, inner
                await inner.rollback()
            await asyncdb_session.commit()
            rows = await asyncdb_session.execute(text("SELECT name FROM users"))
            assert list(rows.scalars()) == ["ada"]
        """,
    )
    project.tests(
        """
        async def test_it(session):
            outer, inner = session
            await outer.execute(insert(User).values(id=1, name="ada"))
            async with inner.begin_nested():
                await inner.execute(insert(User).values(id=2, name="bob"))
            assert False
        """
    )
    outcome = project.run(target, ALL).had(failed=1)
    assert section(outcome) == [
        "users: 2 inserted",
        "  + id=1, name='ada'",
        "  + id=2, name='bob'",
    ]


def test_a_stream_is_left_alone(project: Project, target: Target) -> None:
    """A connection in the middle of an answer is not asked anything else."""
    project.tests(
        """
        async def test_it(asyncdb_connection):
            await add(asyncdb_connection, "ada", "bob", "cyd")
            await asyncdb_connection.stream(select(User))
            assert False
        """
    )
    text = project.run(target, ALL).had(failed=1).text
    assert "could not be read" not in text
    assert "asyncdb: SQL" in text


@pytest.mark.everyday(
    *("postgres+asyncpg", ("sqlite", "rollback")),
    *(("mysql+aiomysql", "reset"), ("mariadb+asyncmy", "copy")),
)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_is_said_of_tests_that_pass_or_only_read(
    project: Project, target: Target, strategy: str
) -> None:
    project.tests(
        """
        async def test_passes(asyncdb_session):
            await add(asyncdb_session, "ada")

        async def test_reads(asyncdb_session):
            assert await names(asyncdb_session) == ["ada"]
        """
    )
    outcome = project.run(target, ALL, "-rA", f"--asyncdb-isolation={strategy}")
    assert "changed rows" not in outcome.had(passed=1, failed=1).text


def test_a_fixture_that_fails_shows_them_too(project: Project, servers: Servers) -> None:
    project.tests(
        """
        @pytest.fixture
        async def filled(asyncdb_session):
            await add(asyncdb_session, "ada")
            raise LookupError

        async def test_it(filled):
            pass
        """
    )
    outcome = project.run(servers.target("sqlite"), ALL).had(errors=1)
    assert section(outcome) == ["users: 1 inserted", "  + id=1, name='ada'"]


def test_workers_send_them(project: Project, servers: Servers) -> None:
    project.tests(NOT_COMMITTED)
    outcome = project.run_apart(servers.target("sqlite"), ALL, "-n1")
    outcome.result.assert_outcomes(failed=1)
    assert section(outcome) == ["users: 1 inserted", "  + id=7, name='cyd'"]


def test_the_first_ten_are_shown(project: Project, servers: Servers) -> None:
    project.tests(
        """
        async def test_it(asyncdb_session):
            await add(asyncdb_session, *(f"u{n}" for n in range(1, 13)))
            assert False
        """
    )
    found = section(project.run(servers.target("sqlite"), ALL).had(failed=1))
    assert found[0] == "users: 12 inserted"
    assert found[1:11] == [f"  + id={n}, name='u{n}'" for n in range(1, 11)]
    assert found[11:] == ["  and 2 more"]


def test_large_tables_are_left_out(project: Project, servers: Servers) -> None:
    project.tests(
        """
        async def test_it(asyncdb_session):
            await add(asyncdb_session, *(f"u{n}" for n in range(5001)))
            await asyncdb_session.execute(insert(Post).values(id=1, user_id=1, text="his"))
            assert False
        """
    )
    assert section(project.run(servers.target("sqlite"), ALL).had(failed=1)) == [
        "posts: 1 inserted",
        "  + id=1, user_id=1, text='his'",
        "users: not compared: more than 5000 rows",
    ]


@pytest.mark.everyday("sqlite", "postgres+asyncpg")
def test_secrets_are_masked(project: Project, target: Target) -> None:
    project.write(
        "app/models.py",
        """
        from sqlalchemy import String
        from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


        class Base(DeclarativeBase):
            pass


        class Post(Base):
            __tablename__ = "posts"
            id: Mapped[int] = mapped_column(primary_key=True)


        class User(Base):
            __tablename__ = "users"
            id: Mapped[int] = mapped_column(primary_key=True)
            name: Mapped[str] = mapped_column(String(40))
            password: Mapped[str] = mapped_column(String(40))
        """,
    )
    project.tests(
        """
        async def test_it(asyncdb_session):
            asyncdb_session.add(User(id=1, name="ada", password="hunter2"))
            await asyncdb_session.flush()
            pytest.fail("no", pytrace=False)
        """
    )
    outcome = project.run(target, ALL).had(failed=1)
    assert section(outcome) == ["users: 1 inserted", "  + id=1, name='ada', password=***"]
    assert "hunter2" not in outcome.text


@pytest.mark.everyday("sqlite", "postgres+asyncpg")
def test_hidden_parameters_stay_hidden(project: Project, target: Target) -> None:
    """``hide_parameters`` of the engine holds for what we show of its statements and rows."""
    project.write(
        "conftest.py",
        """
        import pytest


        @pytest.fixture(scope="session")
        def asyncdb_engine_options():
            return {"hide_parameters": True}
        """,
    )
    project.tests(
        """
        async def test_it(asyncdb_session):
            await add(asyncdb_session, "hunter2")
            pytest.fail("no", pytrace=False)
        """
    )
    outcome = project.run(target, ALL).had(failed=1)
    assert section(outcome) == ["users: 1 inserted"]
    assert "INSERT INTO users" in outcome.text
    assert "hunter2" not in outcome.text
