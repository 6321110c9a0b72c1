"""Columns that a server refuses although SQLAlchemy compiles them.

tests/contract/test_portability.py provokes each refusal on a server.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """One property of a column that some backends refuse.

    Args:
        backends: Their names, separated by spaces.
        fits: Takes the column, and its type on the backend.
        means: What happens there.
        instead: The portable alternative.
    """

    backends: str
    fits: Callable[[Any, Any], object]
    means: str
    instead: str


def _is(native: Any, *names: str) -> bool:
    return any(cls.__name__ in names for cls in type(native).__mro__)


def _is_uuid(column: Any, native: Any) -> bool:
    return _is(native, "UUID")


def _unbounded_key(column: Any, native: Any) -> bool:
    if not _is(native, "Text", "LargeBinary") or native.length is not None:
        return False
    indexes = column.table.indexes
    unique = [one for one in column.table.constraints if type(one).__name__ == "UniqueConstraint"]
    in_key = column.primary_key or any(column.name in key.columns for key in (*indexes, *unique))
    return in_key and not any(index.dialect_options["mysql"]["length"] for index in indexes)


def _autoincremented(column: Any, native: Any) -> bool:
    """Is it autoincremented, but not SQLite's INTEGER PRIMARY KEY?"""
    plain = type(native).__name__.upper() == "INTEGER" and len(column.table.primary_key) == 1
    return column.table.autoincrement_column is column and not plain


def _postgres_default(column: Any, native: Any) -> bool:
    default = getattr(column.server_default, "arg", "")
    text = str(getattr(default, "text", default))
    return re.search(r"(?i)gen_random_uuid|uuid_generate|nextval|::", text) is not None


_KEY = 'BigInteger().with_variant(Integer, "sqlite"), a key of one column'
_OTHERS = "sqlite mysql mariadb"

RULES = (
    Rule("mysql", _is_uuid, "the type UUID does not exist there", "sqlalchemy.Uuid"),
    Rule(
        "mysql",
        _unbounded_key,
        "a key on text or bytes of any length is refused",
        "String(255), or Index(…, mysql_length=…)",
    ),
    Rule(
        "sqlite",
        _autoincremented,
        "only an INTEGER column that is the whole primary key is autoincremented",
        _KEY,
    ),
    Rule(_OTHERS, _postgres_default, "the default is PostgreSQL's own", "default= in Python"),
)
