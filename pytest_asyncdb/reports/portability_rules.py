"""What backends refuse or understand otherwise although SQLAlchemy compiles it; data only.

What is refused is measured by tests/contract/test_portability.py; what is treated differently
is from the servers' manuals.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

_MY = ("mysql", "mariadb")
_NOT_POSTGRES = (*_MY, "sqlite")


@dataclasses.dataclass(frozen=True)
class ColumnRule:
    """A column that *backends* refuse or treat differently.

    Args:
        matches: Takes the column, and its type on that backend.
    """

    backends: tuple[str, ...]
    refused: bool
    says: str
    instead: str
    matches: Callable[[Any, Any], bool]


@dataclasses.dataclass(frozen=True)
class TableRule:
    """Constraints, indexes or names of a table; *places* names those that are meant."""

    backends: tuple[str, ...]
    refused: bool
    says: str
    instead: str
    places: Callable[[Any], Iterator[str]]


#: Instead of a type that a dialect does not know, by the type's name in capitals.
ALTERNATIVES = {
    "ARRAY": "JSON, or a table of its own",
    "JSONB": 'JSON().with_variant(JSONB(), "postgresql")',
    "HSTORE": "JSON",
    "INET": "String(45)",
    "CIDR": "String(49)",
    "MACADDR": "String(17)",
    "TSVECTOR": 'Text().with_variant(TSVECTOR(), "postgresql")',
    "INTERVAL": "sqlalchemy.Interval",
    "BYTEA": "LargeBinary",
    "MONEY": "Numeric(19, 2)",
    "CITEXT": "String, compared by func.lower()",
    "BIT": "Integer, or LargeBinary",
    "SET": "JSON, or a table of its own",
    "YEAR": "SmallInteger",
    "TINYINT": "SmallInteger, or Boolean",
    "MEDIUMINT": "Integer",
    "TINYTEXT": "String(255)",
    "MEDIUMTEXT": 'Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb")',
    "LONGTEXT": 'Text().with_variant(LONGTEXT(), "mysql", "mariadb")',
    "LONGBLOB": 'LargeBinary().with_variant(LONGBLOB(), "mysql", "mariadb")',
}


def _is(*names: str) -> Callable[[Any, Any], bool]:
    """Is the type one of these of sqlalchemy.types?"""

    def matches(column: Any, native: Any) -> bool:
        from sqlalchemy import types

        return isinstance(native, tuple(getattr(types, name) for name in names))

    return matches


def _in_key(column: Any) -> bool:
    table = column.table
    keys = [i.columns for i in table.indexes] + [
        c.columns for c in table.constraints if type(c).__name__ == "UniqueConstraint"
    ]
    return bool(column.primary_key or any(column.name in columns for columns in keys))


def _unbounded_key(column: Any, native: Any) -> bool:
    lengths = [i.dialect_options["mysql"]["length"] for i in column.table.indexes]
    text = _is("Text", "LargeBinary")(column, native)
    return bool(text and native.length is None and _in_key(column) and not any(lengths))


def _unique_text(column: Any, native: Any) -> bool:
    text = _is("String")(column, native) and not _is("Text", "Enum")(column, native)
    unique = column.primary_key or any(
        column.name in key.columns
        for key in (*column.table.indexes, *column.table.constraints)
        if getattr(key, "unique", type(key).__name__ == "UniqueConstraint")
    )
    return bool(text and unique and not getattr(native, "collation", None))


def _default(pattern: str) -> Callable[[Any, Any], bool]:
    """Does the text of the server's default hold *pattern*?"""

    def matches(column: Any, native: Any) -> bool:
        argument = getattr(column.server_default, "arg", None)
        return argument is not None and bool(re.search(pattern, str(argument), re.IGNORECASE))

    return matches


def _text_default(column: Any, native: Any) -> bool:
    argument = getattr(column.server_default, "arg", None)
    plain = argument is not None and not str(argument).lstrip().startswith("(")
    return plain and _is("Text", "LargeBinary", "JSON")(column, native)


def _fixed(column: Any, native: Any) -> bool:
    return _is("Numeric")(column, native) and not _is("Float")(column, native)


def _autoincrement_bigint(column: Any, native: Any) -> bool:
    table = column.table
    return bool(
        table.autoincrement_column is column
        and (type(native).__name__.upper() != "INTEGER" or len(table.primary_key.columns) > 1)
    )


COLUMNS = (
    ColumnRule(
        ("mysql",),
        True,
        "the type UUID does not exist there",
        "sqlalchemy.Uuid",
        lambda column, native: type(native).__name__ == "UUID" or _is("UUID")(column, native),
    ),
    ColumnRule(
        ("mysql",),
        True,
        "a key on text or bytes of any length is refused",
        "String(255), or Index(…, mysql_length=…)",
        _unbounded_key,
    ),
    ColumnRule(
        ("mysql",),
        True,
        "text, bytes and JSON take a default of the server only in parentheses",
        "default= in Python",
        _text_default,
    ),
    ColumnRule(
        ("mysql",),
        True,
        "a key has at most 3072 bytes, 768 characters",
        "String(768)",
        lambda column, native: (
            _is("String")(column, native) and (native.length or 0) > 768 and _in_key(column)
        ),
    ),
    ColumnRule(
        _MY,
        True,
        "a row has at most 65535 bytes: VARCHAR ends at 16383 characters",
        "Text",
        lambda column, native: (
            type(native).__name__.upper() in ("STRING", "VARCHAR", "UNICODE")
            and (native.length or 0) > 16383
        ),
    ),
    ColumnRule(
        ("sqlite",),
        True,
        "only one INTEGER column that is the whole primary key counts up by itself",
        'BigInteger().with_variant(Integer, "sqlite"), a key of one column',
        _autoincrement_bigint,
    ),
    ColumnRule(
        ("sqlite",),
        True,
        "there is no function now()",
        "server_default=func.now(), not text",
        lambda column, native: (
            _default(r"\bnow\(\)")(column, native)
            and type(column.server_default.arg).__name__ != "now"
        ),
    ),
    ColumnRule(
        _NOT_POSTGRES,
        True,
        "the default is PostgreSQL's own",
        "default= in Python",
        _default(r"gen_random_uuid|uuid_generate|nextval|::"),
    ),
    ColumnRule(
        ("postgres", "sqlite"),
        True,
        "the default is MySQL's own",
        "default= in Python",
        _default(r"\buuid\(\)|on update"),
    ),
    ColumnRule(
        _NOT_POSTGRES,
        False,
        "the time zone is dropped: what comes back is naive",
        "a TypeDecorator that stores UTC and gives it back aware",
        lambda column, native: bool(getattr(native, "timezone", False)),
    ),
    ColumnRule(
        _MY,
        False,
        "fractions of a second are rounded away",
        'DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")',
        lambda column, native: (
            _is("DateTime", "Time")(column, native) and not getattr(native, "fsp", None)
        ),
    ),
    ColumnRule(
        ("sqlite",),
        False,
        "decimals are kept as binary floats: about 15 digits",
        "an Integer of the smallest unit",
        lambda column, native: _fixed(column, native) and native.asdecimal,
    ),
    ColumnRule(
        _MY,
        False,
        "without a precision there are no digits after the point",
        "Numeric(precision, scale)",
        lambda column, native: _fixed(column, native) and native.precision is None,
    ),
    ColumnRule(
        _MY,
        False,
        "a float has 24 bits: about 7 digits",
        "Double",
        lambda column, native: (
            type(native).__name__.upper() == "FLOAT" and (native.precision or 0) < 25
        ),
    ),
    ColumnRule(
        _MY,
        False,
        "unique text is compared without case: 'Ada' and 'ada' are one",
        'lower() it in Python, or with_variant(String(n, collation="utf8mb4_bin"), …)',
        _unique_text,
    ),
    ColumnRule(
        _MY,
        False,
        "text and bytes end at 65535 bytes",
        'with_variant(LONGTEXT() or LONGBLOB(), "mysql", "mariadb")',
        lambda column, native: (
            type(native).__name__.upper() in ("TEXT", "UNICODETEXT", "LARGEBINARY", "BLOB")
            and native.length is None
        ),
    ),
    ColumnRule(
        ("sqlite",),
        False,
        "the length of text is not checked",
        'CheckConstraint("length(…) <= n"), or a validation in Python',
        lambda column, native: bool(
            _is("String")(column, native)
            and not _is("Enum")(column, native)
            and getattr(native, "length", None)
        ),
    ),
)


def _checks(pattern: str) -> Callable[[Any], Iterator[str]]:
    def places(table: Any) -> Iterator[str]:
        for constraint in table.constraints:
            text = str(getattr(constraint, "sqltext", ""))
            if re.search(pattern, text, re.IGNORECASE):
                yield f"CHECK ({text})"

    return places


def _foreign_keys(matches: Callable[[Any], bool]) -> Callable[[Any], Iterator[str]]:
    def places(table: Any) -> Iterator[str]:
        for key in sorted(table.foreign_key_constraints, key=lambda key: key.column_keys):
            if matches(key):
                yield f"foreign key of {', '.join(key.column_keys)}"

    return places


def _indexes(matches: Callable[[Any], bool]) -> Callable[[Any], Iterator[str]]:
    def places(table: Any) -> Iterator[str]:
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            if matches(index):
                yield f"index {index.name}"

    return places


def _option(index: Any, dialect: str, name: str) -> bool:
    return index.dialect_options[dialect].get(name) is not None


def _long_names(limit: int) -> Callable[[Any], Iterator[str]]:
    def places(table: Any) -> Iterator[str]:
        for name in (table.name, *(column.name for column in table.columns)):
            if len(name.encode()) > limit:
                yield name

    return places


TABLES = (
    TableRule(
        _NOT_POSTGRES,
        True,
        "the condition is PostgreSQL's own",
        "a condition in standard SQL: LIKE, CAST, lower()",
        _checks(r"::|~|\bILIKE\b"),
    ),
    TableRule(
        _MY,
        True,
        "foreign keys cannot be deferred",
        "insert the parent first, or use_alter",
        _foreign_keys(lambda key: bool(key.deferrable or key.initially)),
    ),
    TableRule(
        ("mysql",),
        True,
        "ON DELETE SET DEFAULT is refused",
        'ondelete="SET NULL"',
        _foreign_keys(lambda key: "SET DEFAULT" in (key.ondelete or "").upper()),
    ),
    TableRule(
        _MY,
        False,
        "an index has no WHERE: it is left out, and a unique index is for all rows",
        "a computed column that is NULL where the row does not count",
        _indexes(lambda i: _option(i, "postgresql", "where") or _option(i, "sqlite", "where")),
    ),
    TableRule(
        ("sqlite",),
        False,
        "the WHERE of the index is for PostgreSQL only",
        "give sqlite_where too",
        _indexes(lambda i: _option(i, "postgresql", "where") and not _option(i, "sqlite", "where")),
    ),
    TableRule(
        ("postgres",),
        False,
        "the WHERE of the index is for SQLite only",
        "give postgresql_where too",
        _indexes(lambda i: _option(i, "sqlite", "where") and not _option(i, "postgresql", "where")),
    ),
    TableRule(
        ("mariadb",),
        True,
        "an index is of columns, not of expressions",
        "a computed column with an index",
        _indexes(lambda i: any(type(e).__name__ != "Column" for e in i.expressions)),
    ),
    TableRule(
        ("sqlite",),
        True,
        "there are no schemas",
        'execution option schema_translate_map={"…": None}',
        lambda table: iter([f"schema {table.schema}"] if table.schema else []),
    ),
    TableRule(
        _MY,
        False,
        "a schema is another database, which is not the test's own",
        'execution option schema_translate_map={"…": None}',
        lambda table: iter([f"schema {table.schema}"] if table.schema else []),
    ),
    TableRule(
        ("postgres",),
        False,
        "names are cut after 63 bytes",
        "a shorter name",
        _long_names(63),
    ),
    TableRule(_MY, True, "names have at most 64 characters", "a shorter name", _long_names(64)),
)
