"""What of the metadata a backend cannot hold or treats differently; no server is asked.

Each table is compiled with the backend's dialect: what SQLAlchemy itself refuses is found so.
What it lets pass, and the server refuses or understands otherwise, is in ``portability_rules.py``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pytest_asyncdb.reports.portability_rules import ALTERNATIVES, COLUMNS, TABLES

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table
    from sqlalchemy.engine import Dialect

    from pytest_asyncdb._run.run import Run


@dataclasses.dataclass(frozen=True)
class Trouble:
    """What one backend makes of some parts of the metadata.

    Args:
        backends: Those that do.
        refused: They cannot hold it; else they treat it differently.
        says: What happens.
        instead: The portable alternative.
        places: ``users.tags``, or the name of a table.
    """

    backends: tuple[str, ...]
    refused: bool
    says: str
    instead: str
    places: tuple[str, ...]


def troubles(metadata: Iterable[MetaData], dialects: dict[str, str]) -> list[Trouble]:
    """Everything that is not portable, equal ones put together, the refused ones first.

    Args:
        dialects: By a backend's word, the name of SQLAlchemy's dialect.
    """
    tables = [table for one in metadata for table in one.tables.values()]
    found: dict[tuple[bool, str, str], dict[str, dict[str, None]]] = {}
    for backend, name in dialects.items():
        dialect = _dialect(name)
        for table in tables:
            for refused, says, instead, place in _of_table(table, backend, dialect):
                key = (refused, says, instead)
                found.setdefault(key, {}).setdefault(place, {})[backend] = None
    grouped: dict[tuple[bool, str, str, tuple[str, ...]], list[str]] = {}
    for (refused, says, instead), places in found.items():
        for place, backends in places.items():
            grouped.setdefault((refused, says, instead, tuple(backends)), []).append(place)
    result = [
        Trouble(backends, refused, says, instead, tuple(places))
        for (refused, says, instead, backends), places in grouped.items()
    ]
    return sorted(result, key=lambda trouble: not trouble.refused)


def of_run(run: Run) -> list[Trouble]:
    """Of the metadata that the ini file names, on the run's backends; none where there is none, or
    it cannot be imported, which others say."""
    from pytest_asyncdb._databases.plan import load_metadata

    if not run.settings.metadata.value:
        return []
    try:
        metadata = load_metadata(run.settings.metadata)
    except Exception:
        return []
    return troubles(
        metadata, {spec.backend: run.backend(spec).dialect for spec in run.settings.specs}
    )


def _dialect(name: str) -> Dialect:
    from sqlalchemy.engine import make_url

    dialect: Dialect = make_url(f"{name}://").get_dialect()()
    return dialect


def _of_table(table: Table, backend: str, dialect: Dialect) -> Iterator[tuple[bool, str, str, str]]:
    from sqlalchemy.exc import CompileError
    from sqlalchemy.schema import CreateIndex, CreateTable

    uncompiled = False
    for column in table.columns:
        native = native_type(column.type, dialect)
        try:
            dialect.type_compiler_instance.process(native, type_expression=column)
        except (CompileError, NotImplementedError):
            uncompiled = True
            yield True, *_refusal(native), f"{table.name}.{column.name}"
            continue
        for rule in COLUMNS:
            if backend in rule.backends and rule.matches(column, native):
                yield rule.refused, rule.says, rule.instead, f"{table.name}.{column.name}"
    for other in TABLES:
        if backend in other.backends:
            for place in other.places(table):
                yield other.refused, other.says, other.instead, f"{table.name}: {place}"
    if uncompiled:
        return  # that table says no more
    constructs: list[Any] = [CreateTable(table), *map(CreateIndex, table.indexes)]
    for construct in constructs:
        try:
            str(construct.compile(dialect=dialect))
        except (CompileError, NotImplementedError) as error:
            says = str(error).partition("\n")[0].strip()
            yield True, f"SQLAlchemy refuses it: {says}", "leave it out there", table.name


def native_type(given: Any, dialect: Dialect) -> Any:
    """The type that a column has on one backend: variants and decorators resolved."""
    from sqlalchemy.types import TypeDecorator

    while True:
        variant = given._variant_mapping.get(dialect.name)
        if variant is not None:
            given = variant
        elif isinstance(given, TypeDecorator):
            given = given.load_dialect_impl(dialect)
        else:
            return given


def _refusal(native: Any) -> tuple[str, str]:
    name = type(native).__name__
    if getattr(native, "length", 0) is None:
        return "text without a length", "String(255), or Text"
    return f"the type {name} does not exist there", ALTERNATIVES.get(
        name.upper(), "a type of sqlalchemy itself, this one by with_variant()"
    )


def describe(trouble: Trouble, most: int = 6) -> list[str]:
    """Some lines: what, where (at most so many places), what instead."""
    several = len(trouble.backends) > 1
    verb = "cannot hold" if trouble.refused else f"treat{'' if several else 's'} differently"
    places = ", ".join(trouble.places[:most])
    if len(trouble.places) > most:
        places += f" and {len(trouble.places) - most} more"
    return [f"{', '.join(trouble.backends)} {verb}: {places}", trouble.says, trouble.instead]
