"""Columns that a server refuses, or treats differently, although SQLAlchemy compiles them.

tests/contract/test_portability.py provokes each refusal on a server, tests/plugin/test_matrix.py
each difference.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

#: What to use instead of a type that a dialect does not have.
ALTERNATIVES = {
    "ARRAY": "JSON, or a table of its own",
    "JSONB": 'JSON().with_variant(JSONB(), "postgresql")',
    "HSTORE": "JSON",
    "INET": "String(45)",
    "TSVECTOR": 'Text().with_variant(TSVECTOR(), "postgresql")',
    "CITEXT": "String, compared by func.lower()",
}


class Rule(NamedTuple):
    """One property of a column that some backends refuse or treat differently.

    Args:
        backends: Their names, separated by spaces.
        means: What happens there.
        instead: The portable alternative.
        fits: Takes the column, and its type on the backend.
        refused: The server refuses it, else it treats it differently.
    """

    backends: str
    means: str
    instead: str
    fits: Callable[[Any, Any], object]
    refused: bool = True


def _is(native: Any, *names: str) -> bool:
    return any(cls.__name__ in names for cls in type(native).__mro__)


def _postgres_default(column: Any, native: Any) -> bool:
    default = getattr(column.server_default, "arg", "")
    text = str(getattr(default, "text", default))
    return re.search(r"(?i)gen_random_uuid|uuid_generate|nextval|::", text) is not None


def _in_key(column: Any, unique: bool = False) -> bool:
    keys = [key for key in column.table.indexes if key.unique or not unique]
    keys += [key for key in column.table.constraints if type(key).__name__ == "UniqueConstraint"]
    return column.primary_key or any(column.name in key.columns for key in keys)


def _unbounded_key(column: Any, native: Any) -> bool:
    prefixes = [index.dialect_options["mysql"]["length"] for index in column.table.indexes]
    unbounded = _is(native, "Text", "LargeBinary") and native.length is None
    return unbounded and _in_key(column) and not any(prefixes)


def _autoincremented(column: Any, native: Any) -> bool:
    """Is it autoincremented, but not SQLite's INTEGER PRIMARY KEY?"""
    plain = type(native).__name__.upper() == "INTEGER" and len(column.table.primary_key) == 1
    return column.table.autoincrement_column is column and not plain


def _unique_text(column: Any, native: Any) -> bool:
    text = _is(native, "String") and not _is(native, "Text", "Enum") and not native.collation
    return text and _in_key(column, unique=True)


RULES = (
    Rule(
        "mysql",
        "the type UUID does not exist there",
        "sqlalchemy.Uuid",
        lambda column, native: _is(native, "UUID"),
    ),
    Rule(
        "mysql",
        "a key on text or bytes of any length is refused",
        "String(255), or Index(…, mysql_length=…)",
        _unbounded_key,
    ),
    Rule(
        "sqlite",
        "only an INTEGER column that is the whole primary key is autoincremented",
        'BigInteger().with_variant(Integer, "sqlite"), a key of one column',
        _autoincremented,
    ),
    Rule(
        "sqlite mysql mariadb",
        "the default is PostgreSQL's own",
        "default= in Python",
        _postgres_default,
    ),
    Rule(
        "sqlite mysql mariadb",
        "the time zone is dropped: values come back naive",
        "a TypeDecorator that stores UTC and returns aware values",
        lambda column, native: getattr(native, "timezone", False),
        refused=False,
    ),
    Rule(
        "mysql mariadb",
        "fractions of a second are rounded away",
        'DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")',
        lambda column, native: _is(native, "DateTime", "Time") and not getattr(native, "fsp", None),
        refused=False,
    ),
    Rule(
        "mysql mariadb",
        "unique text is compared without case: 'Ada' and 'ada' are equal",
        'lower() it in Python, or with_variant(String(n, collation="utf8mb4_bin"), …)',
        _unique_text,
        refused=False,
    ),
)
