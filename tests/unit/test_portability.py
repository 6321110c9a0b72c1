"""Portability, without a server: what is found in which metadata, and its texts."""

from __future__ import annotations

import pytest
from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    func,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects.postgresql import INET, JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from pytest_asyncdb.reports.portability import problems

ALL = {"sqlite": "sqlite", "postgres": "postgresql", "mysql": "mysql", "mariadb": "mariadb"}


def found(*columns: Column, backends: dict[str, str] = ALL) -> list[tuple[str, str, str]]:
    metadata = MetaData()
    Table("t", metadata, Column("id", Integer, primary_key=True), *columns)
    return [*problems([metadata], backends)]


INSTEAD = (
    "a type of sqlalchemy itself, with this one by with_variant(), "
    'as in JSON().with_variant(JSONB(), "postgresql")'
)


class Upper(TypeDecorator):
    impl = INET
    cache_ok = True


def test_portable_tables_are_left_alone() -> None:
    """Variants and types of each backend's own included."""
    stamp = DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
    assert (
        found(
            Column("a", Integer, unique=True),
            Column("b", JSON().with_variant(JSONB(), "postgresql")),
            Column("c", stamp, server_default=func.now()),
            Column("d", Double),
            Column("e", BigInteger, ForeignKey("t.id")),
        )
        == []
    )


@pytest.mark.parametrize("column", [Column("x", INET), Column("x", Upper)])
def test_a_type_that_a_dialect_lacks_is_named(column: Column) -> None:
    """In a decorator, too."""
    says = "the type INET does not exist there"
    where = "sqlite, mysql, mariadb cannot hold: t.x"
    assert found(column) == [(where, says, INSTEAD)]


class OneForEach(TypeDecorator):
    """A type of each dialect's own, as UUID columns had before sqlalchemy.Uuid."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine:
        one = INET() if dialect.name == "postgresql" else String(45)
        return dialect.type_descriptor(one)


class OnlyOnOne(OneForEach):
    """It does not say what it is elsewhere."""

    impl = INET
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine:
        if dialect.name == "mysql":
            return dialect.type_descriptor(String(45))
        return self.impl_instance


def test_a_decorator_is_what_it_is_on_each_dialect() -> None:
    """So it is neither blamed for the type of another one, nor hides its own."""
    assert found(Column("x", OneForEach), Column("y", OneForEach, index=True)) == []
    says = "the type INET does not exist there"
    assert found(Column("x", OnlyOnOne)) == [("sqlite, mariadb cannot hold: t.x", says, INSTEAD)]


def test_only_the_backends_of_the_run_count() -> None:
    postgres = {"postgres": "postgresql"}
    assert found(Column("x", ARRAY(Integer)), backends=postgres) == []


def test_equal_findings_are_grouped_and_cut() -> None:
    columns = [Column(f"c{n}", INET) for n in range(8)]
    assert found(*columns) == [
        (
            "sqlite, mysql, mariadb cannot hold: t.c0, t.c1, t.c2, t.c3, t.c4, t.c5 and 2 more",
            "the type INET does not exist there",
            INSTEAD,
        )
    ]


def test_text_without_a_length_is_refused_by_mysql() -> None:
    (lines,) = found(Column("x", String))
    assert lines == (
        "mysql, mariadb cannot hold: t.x",
        "text without a length",
        "String(255), or Text",
    )
