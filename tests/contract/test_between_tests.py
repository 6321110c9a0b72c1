"""What ``reset`` and ``copy`` keep from test to test: connections, and what these know."""

from __future__ import annotations

import pytest
from fix_project import QUIET, Project
from fix_servers import Servers, Target


@pytest.mark.parametrize(("isolation", "databases"), [("reset", 1), ("copy", 3)])
def test_reading_alone_keeps_no_snapshot(
    project: Project, target: Target, isolation: str, databases: int
) -> None:
    """A transaction that only reads is ended with its test: it would hold locks that stand in
    the way of putting back, and the next test would see what was there before."""
    project.ini(asyncdb_isolation=isolation)
    project.tests(
        f"""
        seen = set()

        @pytest.mark.parametrize("number", [1, 2, 3])
        async def test_reads_last(asyncdb_session, asyncdb_sessionmaker, asyncdb_url, number):
            seen.add(asyncdb_url.database)
            assert await names(asyncdb_session) == []
            await asyncdb_session.rollback()
            async with asyncdb_sessionmaker.begin() as session:
                await add(session, "ada")
            assert await names(asyncdb_session) == ["ada"]

        def test_none_had_to_be_replaced():
            assert len(seen) == {databases}
        """
    )
    passed(project, target, 4)


@pytest.mark.parametrize("word", ["mysql+aiomysql", "mariadb+asyncmy"])
def test_a_transaction_that_has_just_ended_is_not_reported(
    project: Project, servers: Servers, word: str
) -> None:
    """InnoDB's table of transactions is renewed when nobody has read it for 100 ms; here another
    worker, say, has read it while the transaction was open."""
    project.ini(asyncdb_isolation="reset")
    project.tests(
        """
        @pytest.mark.parametrize("number", range(5))
        async def test_commits(asyncdb_sessionmaker, asyncdb_connection, number):
            async with asyncdb_sessionmaker.begin() as session:
                await add(session, "ada")
                await asyncio.sleep(0.12)  # until the table is renewed
                query = text("SELECT count(*) FROM information_schema.innodb_trx")
                assert await asyncdb_connection.scalar(query) >= 1
                await asyncdb_connection.rollback()
        """
    )
    passed(project, servers.target(word), 5)


@pytest.mark.parametrize("isolation", ["rollback", "reset"])
@pytest.mark.parametrize("target", ["postgres+asyncpg", "postgres+psycopg"], indirect=True)
def test_the_next_test_can_send_what_was_prepared_before(
    project: Project, target: Target, isolation: str
) -> None:
    """asyncpg does not notice that DEALLOCATE has ended what it has prepared. Control: a statement
    of the same test fails, as on a plain engine."""
    project.ini(asyncdb_isolation=isolation)
    project.tests(
        """
        async def test_before(asyncdb_session):
            assert await names(asyncdb_session) == []

        async def test_ends_what_is_prepared(asyncdb_session, asyncdb_backend):
            assert await names(asyncdb_session) == []
            await asyncdb_session.execute(text("DEALLOCATE ALL"))
            if asyncdb_backend.driver == "asyncpg":
                with pytest.raises(DBAPIError, match="does not exist"):
                    await names(asyncdb_session)

        async def test_next(asyncdb_session):
            assert await names(asyncdb_session) == []
        """
    )
    passed(project, target, 3)


def test_reflection_looks_into_the_copy_of_the_test(project: Project, target: Target) -> None:
    """SQLAlchemy asks for the database's name once, and MySQL's has another one in each test."""
    project.ini(asyncdb_isolation="copy")
    project.tests(
        """
        from sqlalchemy import inspect

        @pytest.mark.parametrize("number", [1, 2, 3])
        async def test_reflects(asyncdb_connection, number):
            await asyncdb_connection.execute(text(f"CREATE TABLE extra{number} (id INTEGER)"))
            found = await asyncdb_connection.run_sync(lambda sync: inspect(sync).get_table_names())
            assert sorted(found) == [f"extra{number}", "posts", "users"]
        """
    )
    passed(project, target, 3)


def passed(project: Project, target: Target, number: int) -> None:
    # Without the observer, which looks at databases that a thread is about to drop.
    result = project.pytester.runpytest_inprocess(*QUIET, *target.arguments)
    result.assert_outcomes(passed=number)


@pytest.mark.parametrize("word", ["postgres+asyncpg", "postgres+psycopg"])
@pytest.mark.parametrize(("isolation", "ahead"), [("copy", True), ("reset", False)])
def test_the_connection_to_the_next_copy_is_opened_ahead(
    project: Project, servers: Servers, word: str, isolation: str, ahead: bool
) -> None:
    """While the tests run that come before it; the others have no copies, and none ahead."""
    project.tests(
        f"""
        seen = set()
        OTHERS = text(
            "SELECT pid FROM pg_stat_activity WHERE datname <> current_database() "
            "AND datname LIKE substring(current_database() FROM '.*_') || '%'"
        )

        @pytest.mark.asyncdb(isolation={isolation!r})
        @pytest.mark.parametrize("number", range(6))
        async def test_runs(asyncdb_session, number):
            await names(asyncdb_session)
            for _ in range(3000 if {ahead} and number == 5 else 0):
                if not seen:
                    await asyncdb_session.rollback()  # what is seen is seen until its end
                    seen.update(await asyncdb_session.scalars(OTHERS))
                    await asyncio.sleep(0.01)

        @pytest.mark.asyncdb(isolation="copy")
        async def test_is_connected(asyncdb_session):
            assert (await asyncdb_session.scalar(text("SELECT pg_backend_pid()")) in seen) == {ahead}
        """
    )
    passed(project, servers.target(word), 7)
