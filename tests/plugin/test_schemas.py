"""Tables with ``schema=``: where ``schema_translate_map`` leads them, and where they cannot be."""

from __future__ import annotations

import os

import pytest
from fix_project import Project
from fix_servers import WORDS, Servers, Target

MODELS = """
from sqlalchemy import ForeignKey, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    metadata = MetaData(schema="tenant")


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)


class Post(Base):
    __tablename__ = "posts"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("tenant.users.id"))
    text: Mapped[str] = mapped_column(String(200), index=True)
"""

MAPPED = """
import pytest


@pytest.fixture(scope="session")
def asyncdb_engine_options(asyncdb_backend):
    return {"execution_options": {"schema_translate_map": {"tenant": %s}}}
"""

TESTS = """
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("how", [
    pytest.param(how, marks=pytest.mark.asyncdb(isolation=how))
    for how in ("rollback", "reset", "copy")
])
async def test_it(asyncdb_session, asyncdb, how, n):
    assert await asyncdb.schema_differences() == []
    await add(asyncdb_session, "ada")
    await asyncdb_session.commit()
    assert await names(asyncdb_session) == ["ada"]
    assert [name.rpartition(".")[2] for name in await asyncdb.changes()] == ["users"]


@pytest.mark.asyncdb(isolation="copy")
async def test_a_difference_is_found(asyncdb_connection, asyncdb):
    await asyncdb_connection.execute(text("ALTER TABLE " + PLACE + "posts DROP COLUMN text"))
    await asyncdb_connection.commit()
    assert [line for line in await asyncdb.schema_differences() if line.startswith("column")] == [
        "column " + PLACE + "posts.text: in the models, not in the database"
    ]
"""


def test_mapped_schemas_are_created_and_compared(project: Project, target: Target) -> None:
    """In all strategies; to a schema of another name on PostgreSQL, to none elsewhere."""
    schema = "acme" if target.backend == "postgres" else None
    project.write("app/models.py", MODELS)
    project.write("conftest.py", MAPPED % repr(schema))
    if target.backend == "sqlite":  # its ALTER TABLE keeps columns that have an index
        project.tests(TESTS.partition('@pytest.mark.asyncdb(isolation="copy")')[0])
    else:
        project.tests(f"PLACE = {f'{schema}.' if schema else ''!r}", TESTS)
    expected = None if schema is None else {}
    project.run(target, expected=expected).passed(6 if target.backend == "sqlite" else 7)


@pytest.mark.everyday("postgres+asyncpg")
@pytest.mark.parametrize("word", [word for word in WORDS if word.startswith("postgres")])
def test_the_default_schema_by_its_name_is_no_difference(
    project: Project, servers: Servers, word: str
) -> None:
    """Alembic knows the default schema only as None."""
    project.write("app/models.py", MODELS)
    project.write("conftest.py", MAPPED % repr("public"))
    project.tests(
        "async def test_it(asyncdb): assert await asyncdb.schema_differences() == []",
    )
    project.run(servers.target(word)).passed(1)


@pytest.mark.parametrize("word", [word for word in WORDS if word.startswith(("mysql", "mariadb"))])
@pytest.mark.parametrize("how", ["create_all", "migration"])
@pytest.mark.everyday(("mysql+aiomysql", "migration"), ("mariadb+asyncmy", "create_all"))
def test_a_schema_that_is_another_database_is_refused(
    project: Project, servers: Servers, word: str, how: str
) -> None:
    """Nothing is sent to that database, though the account may use it."""
    target = servers.target(word)
    look, tenant = target.observer, f"tenant_{os.getpid()}"  # other workers use the server, too
    project.write("app/models.py", MODELS.replace("tenant", tenant))
    if how == "migration":
        project.write(
            "conftest.py",
            """
            import pytest
            from app.models import Base


            @pytest.fixture(scope="session")
            def asyncdb_migrate():
                return lambda engine: Base.metadata.create_all(engine)
            """,
        )
    project.tests("async def test_it(asyncdb_session): assert await names(asyncdb_session) == []")
    with look.throw_away(tenant):
        outcome = project.run(target).had(errors=1)
        assert look.query("SHOW TABLES", tenant) == []
    label = {"mysql": "MySQL", "mariadb": "MariaDB"}[target.backend]
    outcome.shows(
        f"""
        the table {tenant}.posts is not in the test's database ({label})

        On {label}, schema='{tenant}' names another database. Tests use only their own.

        To fix this, do one of:
        - lead the schema to the test's database: let asyncdb_engine_options return {{'execution_options': {{'schema_translate_map': {{{tenant!r}: None}}}}}}
        - keep the tests off {label}: @pytest.mark.asyncdb(exclude=…)
        """
    )
