"""Which parts of the metadata a backend cannot store. No server is asked.

Each table is compiled with the backend's dialect, which finds what SQLAlchemy itself refuses;
``portability_rules.py`` knows which columns the servers refuse.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_asyncdb.reports.portability_rules import RULES

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table
    from sqlalchemy.engine import Dialect

#: Number of places that are named.
_PLACES = 6
_INSTEAD = (
    "a type of sqlalchemy itself, with this one by with_variant(), "
    'as in JSON().with_variant(JSONB(), "postgresql")'
)


class Problem(NamedTuple):
    """Parts of the metadata that some backends cannot store, for one reason.

    Args:
        where: The backends and the places: columns such as ``users.tags``, or tables.
        means: What happens.
        instead: The portable alternative.
    """

    where: str
    means: str
    instead: str


def problems(metadata: Iterable[MetaData], dialects: dict[str, str]) -> list[Problem]:
    """Everything that is not portable.

    Args:
        dialects: The name of SQLAlchemy's dialect by backend.
    """
    from sqlalchemy.engine import make_url

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
    result = []
    for (means, instead, all_places), backends in found.items():
        more = len(all_places) - _PLACES
        where = ", ".join(all_places[:_PLACES]) + (f" and {more} more" if more > 0 else "")
        result.append(Problem(f"{', '.join(backends)} cannot hold: {where}", means, instead))
    return result


def _in_table(table: Table, backend: str, dialect: Dialect) -> Iterator[tuple[str, str, str]]:
    """Meaning, alternative and place of each problem."""
    from sqlalchemy.exc import CompileError
    from sqlalchemy.schema import CreateIndex, CreateTable
    from sqlalchemy.types import TypeDecorator

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
