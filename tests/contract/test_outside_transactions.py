"""Statements that a transaction does not allow, on a connection with AUTOCOMMIT.

``rollback`` runs them in the test's transaction, so they fail: with the remedy, which helps. And
tables that have no transactions.
"""

from __future__ import annotations

import pytest
from fix_project import QUIET, Project
from fix_servers import Servers, Target

#: Statements by backend, each of which succeeds with AUTOCOMMIT.
STATEMENTS = {
    "sqlite": ["VACUUM", "PRAGMA synchronous = 1"],
    "postgres": [
        "VACUUM users",
        "CREATE INDEX CONCURRENTLY by_name ON users (name)",
        "REINDEX TABLE CONCURRENTLY users",
        "DO 'BEGIN COMMIT; END'",
    ],
    "mysql": ["SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"],
    "mariadb": ["SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"],
}

TESTS = """
STATEMENTS = {statements!r}

@pytest.mark.parametrize("sql", STATEMENTS)
async def test_autocommit(asyncdb_engine, sql):
    async with asyncdb_engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        await connection.commit()
    async with asyncdb_engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.exec_driver_sql(sql)
"""


@pytest.mark.everyday("sqlite", "postgres+asyncpg", "postgres+psycopg", "mysql+aiomysql")
def test_a_statement_that_no_transaction_allows_fails_with_the_remedy(
    project: Project, target: Target
) -> None:
    """Control: with the remedy every one of them succeeds."""
    statements = STATEMENTS[target.backend]
    project.tests(TESTS.format(statements=statements))
    outcome = project.run(target).had(failed=len(statements))
    for number, statement in enumerate(statements):
        outcome.shows(
            f"""
            in 'rollback' the whole test is one transaction, in which this statement fails

            test: test_it.py::test_autocommit[{target.id}-{statement}]
            statement: {statement}
            at {project.place("await connection.exec_driver_sql(sql)", "test_autocommit")}
            With AUTOCOMMIT, or after a commit, it may succeed in production.

            To fix this: mark the test @pytest.mark.asyncdb(isolation="reset"), or isolation="copy"
            """
        )
        assert outcome.text.count(f"statement: {statement}") == 1, number
    for strategy in ("reset", "copy"):
        project.pytester.runpytest_inprocess(
            *target.arguments, f"--asyncdb-isolation={strategy}"
        ).assert_outcomes(passed=len(statements))


@pytest.mark.everyday("postgres+asyncpg")
@pytest.mark.parametrize("target", ["postgres+asyncpg", "postgres+psycopg"], indirect=True)
def test_a_new_value_of_an_enum_that_the_same_test_uses_fails_with_the_remedy(
    project: Project, target: Target
) -> None:
    project.tests(
        """
        async def test_it(asyncdb_session):
            await asyncdb_session.execute(text("CREATE TYPE mood AS ENUM ('sad')"))
            await asyncdb_session.commit()
            await asyncdb_session.execute(text("ALTER TYPE mood ADD VALUE 'happy'"))
            await asyncdb_session.commit()
            await asyncdb_session.execute(text("SELECT CAST('happy' AS mood)"))
        """
    )
    project.run(target).had(failed=1).shows(
        "in 'rollback' the whole test is one transaction, in which this statement fails"
    )
    project.pytester.runpytest_inprocess(
        *target.arguments, "--asyncdb-isolation=reset"
    ).assert_outcomes(passed=1)


def test_a_failure_of_another_kind_has_no_such_note(project: Project, target: Target) -> None:
    project.tests(
        """
        async def test_it(asyncdb_session):
            await asyncdb_session.execute(text("SELECT nonsense"))
        """
    )
    outcome = project.run(target).had(failed=1)
    assert "one transaction" not in outcome.text


@pytest.mark.parametrize("word", ["mysql+aiomysql", "mariadb+asyncmy"])
def test_rows_of_tables_without_transactions_stay(
    project: Project, servers: Servers, word: str
) -> None:
    """In `rollback`; `reset` puts them back."""
    target = servers.target(word)
    project.ini(asyncdb_metadata=None)
    project.write(
        "conftest.py",
        """
        import pytest


        @pytest.fixture(scope="session")
        def asyncdb_migrate():
            async def migrate(connection):
                await connection.exec_driver_sql("CREATE TABLE old (id INT) ENGINE = MyISAM")
            return migrate
        """,
    )
    project.tests(
        """
        @pytest.mark.parametrize("number", [0, 1])
        async def test_it(asyncdb_session, asyncdb_backend, pytestconfig, number):
            stays = "--asyncdb-isolation=rollback" in pytestconfig.invocation_params.args
            found = await asyncdb_session.scalar(text("SELECT count(*) FROM old"))
            assert found == (number if stays else 0)
            await asyncdb_session.execute(text("INSERT INTO old VALUES (1)"))
            await asyncdb_session.rollback()  # in production it stays, too
        """
    )
    for strategy in ("rollback", "reset"):
        result = project.pytester.runpytest_inprocess(
            *QUIET, *target.arguments, f"--asyncdb-isolation={strategy}"
        )
        result.assert_outcomes(passed=2)
