"""A plan's fingerprint is equal wherever the same would be built."""

from __future__ import annotations

from sqlalchemy import Column, Enum, ForeignKey, Integer, MetaData, Table
from sqlalchemy.dialects import postgresql

from pytest_asyncdb._databases import fingerprint as fingerprints
from pytest_asyncdb._databases.plan import SchemaPlan


def metadata(*names: str) -> MetaData:
    made = MetaData()
    Table("things", made, *(Column(name, Integer, index=True) for name in names))
    return made


def fingerprint(made: MetaData) -> str:
    return fingerprints.fingerprint(SchemaPlan((made,)), postgresql.dialect(), {})


def test_the_order_of_a_tables_indexes_does_not_count() -> None:
    """SQLAlchemy keeps them in a set, and xdist's workers must not each build the schema."""
    kept = [metadata("a", "b", "c", "d") for _ in range(20)]  # at 20 times four addresses
    orders = {tuple(str(i.name) for i in one.tables["things"].indexes) for one in kept}
    assert len(orders) > 1  # control: the order does differ
    assert len(set(map(fingerprint, kept))) == 1


def linked(enum: str = "a") -> MetaData:
    made = MetaData()
    for name in "abcd":
        Table(name, made, Column("id", Integer, primary_key=True))
    keys = [ForeignKey(f"{name}.id") for name in "abcd"]
    Table("things", made, Column("id", Integer, *keys), Column("kind", Enum(enum, "b", name="k")))
    return made


def test_the_order_of_a_columns_foreign_keys_does_not_count() -> None:
    kept = [linked() for _ in range(20)]
    assert len({repr(one.tables["things"]) for one in kept}) > 1  # control
    assert len(set(map(fingerprint, kept))) == 1
    assert fingerprint(linked("c")) != fingerprint(kept[0])


def test_one_more_index_counts() -> None:
    """Control: indexes are part of the fingerprint."""
    assert fingerprint(metadata("a", "b")) != fingerprint(metadata("a", "b", "c"))
