"""``asyncdb.schema_differences()``: what it says, and that it says nothing without reason."""

from __future__ import annotations

import textwrap

import pytest
from fix_project import Project
from fix_servers import Servers, Target

pytestmark = pytest.mark.everyday("sqlite", "postgres+asyncpg")

#: What a real project has: every kind of type, default, index and constraint.
RICH = """
import datetime
import decimal
import enum
import uuid

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase):
    pass

class Colour(enum.Enum):
    red = 1
    blue = 2

class Thing(Base):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)
    big: Mapped[int] = mapped_column(sa.BigInteger, index=True)
    name: Mapped[str] = mapped_column(sa.String(40), unique=True)
    note: Mapped[str | None] = mapped_column(sa.Text)
    flag: Mapped[bool] = mapped_column(server_default=sa.true())
    ratio: Mapped[float] = mapped_column(sa.Float)
    price: Mapped[decimal.Decimal] = mapped_column(sa.Numeric(10, 2), server_default="0")
    count: Mapped[int] = mapped_column(server_default="7")
    word: Mapped[str] = mapped_column(sa.String(20), server_default="it's")
    made: Mapped[datetime.datetime] = mapped_column(server_default=sa.func.now())
    aware: Mapped[datetime.datetime] = mapped_column(sa.DateTime(timezone=True))
    day: Mapped[datetime.date]
    key: Mapped[uuid.UUID]
    data: Mapped[dict] = mapped_column(sa.JSON)
    raw: Mapped[bytes] = mapped_column(sa.LargeBinary)
    colour: Mapped[Colour]
    __table_args__ = (sa.Index("ix_two", "big", "name"), sa.CheckConstraint("count > 0"))

class Part(Base):
    __tablename__ = "parts"
    thing_id: Mapped[int] = mapped_column(sa.ForeignKey("things.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
"""

#: A database that differs from the models of the project in every way.
CONFTEST = """
import pytest
import sqlalchemy as sa

metadata = sa.MetaData()
sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(50), nullable=True, server_default="nobody"),
    sa.Column("age", sa.Integer),
    sa.Index("ix_age", "age"),
)
sa.Table("old", metadata, sa.Column("id", sa.Integer, primary_key=True))
sa.Table("alembic_version", metadata, sa.Column("version_num", sa.String(32)))

@pytest.fixture(scope="session")
def asyncdb_migrate():
    return lambda connection: metadata.create_all(connection)
"""


def test_a_schema_that_the_models_built_agrees_with_them(project: Project, target: Target) -> None:
    """Nothing is reported that is only a backend's way to write it."""
    project.write("app/models.py", RICH)
    project.write(
        "test_it.py",
        """
        async def test_it(asyncdb):
            assert await asyncdb.schema_differences() == []
        """,
    )
    project.run(target, expected={"parts": [], "things": []}).passed(1)


def test_schemas_are_compared_where_models_name_them(project: Project, servers: Servers) -> None:
    project.write(
        "app/models.py",
        """
        import sqlalchemy as sa
        Base = sa.MetaData()
        sa.Table("plain", Base, sa.Column("id", sa.Integer, primary_key=True))
        sa.Table("things", Base, sa.Column("id", sa.Integer, primary_key=True), schema="shop")
        """,
    )
    project.write(
        "test_it.py",
        """
        import sqlalchemy as sa

        async def test_same(asyncdb):
            assert await asyncdb.schema_differences() == []

        async def test_changed(asyncdb, asyncdb_session):
            for text in (
                "CREATE SCHEMA other", "CREATE TABLE other.x (id int)",
                "DROP TABLE shop.things", "ALTER TABLE plain ADD COLUMN more int",
            ):
                await asyncdb_session.execute(sa.text(text))
            assert await asyncdb.schema_differences() == [
                "table shop.things: in the models, not in the database",
                "column plain.more: in the database, not in the models",
            ]
        """,
    )
    target = servers.target("postgres+asyncpg")
    project.run(target, expected={"plain": []}).result.assert_outcomes(passed=2)


def test_every_difference_is_a_line(project: Project, target: Target) -> None:
    """The control: a check that could not fail would say nothing here either."""
    project.write("conftest.py", CONFTEST)
    project.tests(
        """
        async def test_it(asyncdb):
            for line in sorted(await asyncdb.schema_differences()):
                print("LINE", line)

        async def test_ignore(asyncdb):
            found = await asyncdb.schema_differences(ignore={"old", "posts", "users"})
            assert found == []
        """
    )
    default = {
        "sqlite": "'nobody'",
        "postgres": "'nobody'::character varying",
        "mysql": "'nobody'",
        "mariadb": "'nobody'",
    }[target.backend]
    expected = f"""
    LINE column users.age: in the database, not in the models
    LINE default of users.name: None in the models, {default} in the database
    LINE index ix_age on users(age): in the database, not in the models
    LINE nullable of users.name: False in the models, True in the database
    LINE table old: in the database, not in the models
    LINE table posts: in the models, not in the database
    LINE type of users.name: String(length=40) in the models, VARCHAR(length=50) in the database
    LINE unique constraint on users(name): in the models, not in the database
    """
    tables = {"users": [], "old": [], "alembic_version": []}
    outcome = project.run(target, "-s", expected=tables)
    outcome.result.assert_outcomes(passed=2)
    lines = [line[line.index("LINE") :] for line in outcome.result.outlines if "LINE" in line]
    assert lines == [line.strip() for line in expected.strip().splitlines()]


def text(block: str) -> str:
    return textwrap.dedent(block).strip()


@pytest.fixture
def sqlite(servers: Servers) -> Target:
    return servers.target("sqlite")


def test_models_must_be_named(project: Project, sqlite: Target) -> None:
    project.ini(asyncdb_metadata=None)
    project.write("conftest.py", CONFTEST)
    project.tests("async def test_it(asyncdb): await asyncdb.schema_differences()")
    tables = {"users": [], "old": [], "alembic_version": []}
    project.run(sqlite, expected=tables).had(failed=1).shows(
        """
        asyncdb.schema_differences() compares the models with the database, and asyncdb_metadata is not set

        To fix this: add to the ini file: asyncdb_metadata = app.models:Base
        """
    )


def test_alembic_is_an_extra(
    project: Project, sqlite: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "alembic" else real(name)
    )
    project.tests("async def test_it(asyncdb): await asyncdb.schema_differences()")
    project.run(sqlite).had(failed=1).shows(
        """
        the package alembic is not installed (asyncdb.schema_differences())

        To fix this: pip install "pytest-asyncdb[alembic]"
        """
    )
