"""The spelling of savepoints is the dialect's."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.dialects import mssql, oracle, postgresql, sqlite

from pytest_asyncdb.isolation.savepoints import Savepoints


@pytest.mark.parametrize(
    ("dialect", "opened", "released", "undone"),
    [
        (sqlite, "SAVEPOINT a", ["RELEASE SAVEPOINT a"], "ROLLBACK TO SAVEPOINT a"),
        (postgresql, "SAVEPOINT a", ["RELEASE SAVEPOINT a"], "ROLLBACK TO SAVEPOINT a"),
        (oracle, "SAVEPOINT a", [], "ROLLBACK TO SAVEPOINT a"),
        (mssql, "SAVE TRANSACTION a", [], "ROLLBACK TRANSACTION a"),
    ],
)
def test_statements_are_those_of_the_dialect(
    dialect: Any, opened: str, released: list[str], undone: str
) -> None:
    """What SQLAlchemy would send, and nothing if it sends nothing."""
    savepoints = Savepoints(dialect.dialect())
    named = [text for text in savepoints.open("a", "b") if "IF @@TRANCOUNT" not in text]
    assert named == [opened, f"{opened[:-1]}b"]
    assert savepoints.release("a") == released
    assert savepoints.undo("a") == [undone]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SAVE TRANSACTION asyncdb_1_2", ("savepoint", "asyncdb_1_2")),
        ("ROLLBACK TRANSACTION asyncdb_1_2", ("rollback", "asyncdb_1_2")),
        ("SAVEPOINT asyncdb_1_2", ("savepoint", "asyncdb_1_2")),
        ("ROLLBACK TRANSACTION", None),
        ("INSERT INTO asyncdb_1 VALUES (1)", None),
    ],
)
def test_a_statement_of_the_dialect_is_recognised(
    statement: str, expected: tuple[str, str] | None
) -> None:
    """Besides the standard's, which a user may write by hand."""
    savepoints = Savepoints(mssql.dialect())
    assert savepoints.read(statement) == savepoints.read_own(statement) == expected


def test_only_savepoints_of_sqlalchemy_are_its_own() -> None:
    """The application's own names are not those of the plugin's savepoints."""
    savepoints = Savepoints(mssql.dialect())
    assert savepoints.read("SAVE TRANSACTION mine") == ("savepoint", "mine")
    assert savepoints.read_own("SAVE TRANSACTION mine") is None
