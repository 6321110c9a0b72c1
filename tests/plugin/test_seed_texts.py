"""A seed or a migration that runs a text of several SQL statements, such as a file."""

from __future__ import annotations

import pytest
from fix_project import Project
from fix_servers import Target
from fix_suite import EACH_DRIVER

#: Semicolons in strings, comments and names, and no parameter.
SQL = """
-- a comment; with a semicolon
INSERT INTO users (id, name) VALUES (1, 'a; commit; b');
/* another; one */
INSERT INTO users (id, name) VALUES (2, 'it''s -- no comment');
INSERT INTO posts (id, user_id, text) VALUES (1, 1, ';'), (2, 2, '12:30, 5% d');

UPDATE users SET name = 'c' WHERE id = 2;
"""

CONFTEST = """
import pytest
from app.models import Base
from sqlalchemy import text

SQL = {sql!r}


@pytest.fixture(scope="session")
def asyncdb_migrate():
    async def migrate(connection):
        await connection.run_sync(Base.metadata.create_all)
        await connection.exec_driver_sql(
            "INSERT INTO users (id, name) VALUES (8, 'm;'); DELETE FROM posts"
        )

    return migrate


async def one(session):
    connection = await session.connection()
    await connection.exec_driver_sql(SQL)
    await session.execute(text("INSERT INTO users (id, name) VALUES (9, :name)"), {{"name": "n;"}})


async def other(session):
    await session.execute(
        text("UPDATE users SET name = 'd%' WHERE id = 2; DELETE FROM posts WHERE id = 1;")
    )
    rows = await session.execute(text("SELECT id, '; ' FROM users ORDER BY id"))
    assert [tuple(row) for row in rows] == [(1, "; "), (2, "; "), (8, "; "), (9, "; ")]


@pytest.fixture(scope="session")
def asyncdb_seed():
    return [one, other]
"""

TESTS = """
async def test_it(asyncdb_session):
    assert await names(asyncdb_session) == ["a; commit; b", "d%", "m;", "n;"]
    assert (await asyncdb_session.scalars(select(Post.id))).all() == [2]
"""

pytestmark = pytest.mark.everyday(*EACH_DRIVER)


def test_a_text_of_several_statements_is_run(project: Project, target: Target) -> None:
    """On every driver, in seeds and in a migration function; by ``exec_driver_sql`` and
    ``text``."""
    project.write("conftest.py", CONFTEST.format(sql=SQL))
    project.tests(TESTS)
    rows = {
        "users": [(1, "a; commit; b"), (2, "d%"), (8, "m;"), (9, "n;")],
        "posts": [(2, 2, "12:30, 5% d")],
    }
    project.run(target, expected=rows).passed(1)


def test_an_error_in_the_second_statement_is_one_of_the_seed(
    project: Project, target: Target
) -> None:
    """A driver that leaves further results unread must not hide it."""
    project.write(
        "conftest.py",
        """
        import pytest


        @pytest.fixture(scope="session")
        def asyncdb_seed():
            async def seed(session):
                connection = await session.connection()
                insert = "INSERT INTO users (id, name) VALUES (1, 'ada')"
                await connection.exec_driver_sql(f"{insert}; {insert}; SELECT 1")

            return seed
        """,
    )
    project.tests(TESTS)
    outcome = project.run(target).had(errors=1)
    assert "asyncdb_seed failed on" in outcome.text


def test_files_that_the_ini_file_names_are_run(project: Project, target: Target) -> None:
    """In the order of their names, whatever their statements hold, and below layers of functions."""
    project.write("seeds/2_more.sql", "DELETE FROM posts WHERE id = 1 -- 50%%\n")
    project.write("seeds/1_first.sql", f"{SQL}-- the end; 100%\n")
    project.ini(asyncdb_seed="seeds/*.sql")
    project.write(
        "conftest.py",
        """
        import pytest
        from app.models import User


        @pytest.fixture(scope="session")
        def asyncdb_seed(asyncdb_seed):
            async def more(session):
                session.add(User(id=3, name="d"))

            return [asyncdb_seed, more]
        """,
    )
    project.tests(
        """
        async def test_it(asyncdb_session):
            assert await names(asyncdb_session) == ["a; commit; b", "c", "d"]
        """
    )
    rows = {
        "users": [(1, "a; commit; b"), (2, "c"), (3, "d")],
        "posts": [(2, 2, "12:30, 5% d")],
    }
    project.run(target, expected=rows).passed(1)


def test_a_file_that_fails_is_named(project: Project, target: Target) -> None:
    project.write("seeds/first.sql", "INSERT INTO users (id, name) VALUES (1, 'a');")
    project.write("seeds/second.sql", "INSERT INTO users (id, name) VALUES (1, 'a');")
    project.ini(asyncdb_seed="seeds/first.sql, seeds/second.sql")
    project.tests(TESTS)
    outcome = project.run(target).had(errors=1)
    assert f"the seed {project.path}/seeds/second.sql failed (asyncdb_seed)" in outcome.text
