"""The kind of cause of an exception, by its code or its class."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError

from pytest_asyncdb.reports.causes import CAUSES, cause, chain


@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [
        ("sqlalchemy.exc.DBAPIError", "40P01", "locking"),
        ("sqlalchemy.exc.OperationalError", "SQLITE_BUSY_SNAPSHOT", "locking"),
        ("sqlalchemy.exc.IntegrityError", "23505", "constraint"),
        ("sqlalchemy.exc.OperationalError", "4025", "constraint"),
        ("sqlalchemy.exc.IntegrityError", "SQLITE_CONSTRAINT_UNIQUE", "constraint"),
        ("sqlalchemy.exc.DBAPIError", "22001", "type"),
        ("sqlalchemy.exc.ProgrammingError", "42804", "type"),
        ("sqlalchemy.exc.ProgrammingError", "42601", "dialect-only SQL"),
        ("sqlalchemy.exc.OperationalError", "1305", "dialect-only SQL"),
        ("sqlalchemy.exc.IntegrityError", "9999", "constraint"),
        ("sqlalchemy.exc.CompileError", None, "dialect-only SQL"),
        ("AssertionError", None, "values"),
        ("KeyError", None, "other"),
        ("app.errors.Mine", "08006", "other"),
    ],
)
def test_the_code_decides_before_the_class(name: str, code: str | None, expected: str) -> None:
    assert cause(name, code) == expected
    assert expected in CAUSES


def test_a_code_has_one_cause() -> None:
    codes = " ".join(CAUSES.values()).split()
    assert len(codes) == len(set(codes))


def test_the_chain_has_each_exception_once() -> None:
    """What an exception group holds, a cause, a context and SQLAlchemy's ``orig``; loops end."""
    original = ValueError("driver")
    database = IntegrityError("INSERT", {}, original)
    group = ExceptionGroup("two", [database, KeyError("a")])
    original.__context__ = group
    found = list(chain(group))
    assert found[:3] == [group, database, group.exceptions[1]]
    assert original in found
    assert len(found) == 4
