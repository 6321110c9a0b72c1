"""Finds the parts of the metadata that a backend cannot store. No server is asked.

Each table is compiled with the backend's dialect, which finds what SQLAlchemy itself refuses.
:data:`RULES` are for columns that a server refuses although SQLAlchemy compiles them;
tests/contract/test_portability.py provokes each refusal on a server.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from sqlalchemy.engine import Dialect, make_url
from sqlalchemy.exc import CompileError
from sqlalchemy.schema import CreateIndex, CreateTable, MetaData, Table
from sqlalchemy.types import TypeDecorator

#: Number of places that are named.
_PLACES = 6
_INSTEAD = (
    "a type of sqlalchemy itself, with this one by with_variant(), "
    'as in JSON().with_variant(JSONB(), "postgresql")'
)


class Rule(NamedTuple):
    """One property of a column that some backends refuse.

    Args:
        backends: The names of these backends, separated by spaces.
        fits: Takes the column, and its type on the backend. Returns whether the column has the
            property.
        means: What happens on these backends.
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
    """Return whether the column is autoincremented, but not SQLite's INTEGER PRIMARY KEY."""
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


def problems(
    metadata: Iterable[MetaData], dialects: dict[str, str]
) -> Iterator[tuple[str, str, str]]:
    """Yield everything that is not portable.

    Args:
        dialects: The name of SQLAlchemy's dialect by backend.

    Yields:
        The backends and the places, which are columns such as ``users.tags``, or tables; what
            happens; the portable alternative.
    """
    tables = [table for one in metadata for table in one.tables.values()]
    found: defaultdict[tuple[Any, ...], list[str]] = defaultdict(list)
    for backend, name in dialects.items():
        dialect = make_url(f"{name}://").get_dialect()()
        places: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        for table in tables:
            for means, instead, place in _in_table(table, backend, dialect):
                places[means, instead].append(place)
        for reason, several in places.items():
            found[*reason, tuple(several)].append(backend)
    for (means, instead, all_places), backends in found.items():
        more = len(all_places) - _PLACES
        where = ", ".join(all_places[:_PLACES]) + (f" and {more} more" if more > 0 else "")
        yield f"{', '.join(backends)} cannot hold: {where}", means, instead


def _in_table(table: Table, backend: str, dialect: Dialect) -> Iterator[tuple[str, str, str]]:
    """Yield meaning, alternative and place of each problem."""
    complete = True
    for column in table.columns:
        place = f"{table.name}.{column.name}"
        native: Any = column.type.dialect_impl(dialect)
        while isinstance(native, TypeDecorator):
            native = native.impl_instance
        try:
            column.type.compile(dialect)
        except (CompileError, NotImplementedError):
            complete = False
            if getattr(native, "length", 0) is None:
                yield "text without a length", "String(255), or Text", place
            else:
                name = type(native).__name__.upper()
                yield f"the type {name} does not exist there", _INSTEAD, place
            continue
        for rule in RULES:
            if backend in rule.backends.split() and rule.fits(column, native):
                yield rule.means, rule.instead, place
    constructs: list[Any] = [CreateTable(table), *map(CreateIndex, table.indexes)]
    for construct in constructs if complete else []:
        try:
            str(construct.compile(dialect=dialect))
        except (CompileError, NotImplementedError) as error:
            reason = str(error).partition("\n")[0].strip()
            yield f"SQLAlchemy refuses it: {reason}", "leave it out there", table.name
