"""The rows that a test has changed: its tables compared with those of an untouched database."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_asyncdb._engines.build_engine import build_engine

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.engine import URL

T = TypeVar("T")
Row = dict[str, Any]
#: Rows by primary key; without one, by all values and a number that counts equal rows.
_Rows = dict[tuple[Any, ...], Row]
_Tables = dict[str, _Rows | None]
#: Schema, name and key columns of a table.
_Source = tuple[str | None, str, list[str]]


@dataclasses.dataclass(frozen=True)
class TableChanges:
    """The rows of one table that a test has changed, each as a mapping of its columns.

    Args:
        inserted: Rows that only exist after the test.
        updated: Rows before and after the test.
        deleted: Rows that only existed before the test.
    """

    inserted: list[Row] = dataclasses.field(default_factory=list)
    updated: list[tuple[Row, Row]] = dataclasses.field(default_factory=list)
    deleted: list[Row] = dataclasses.field(default_factory=list)


def read_tables(
    connection: Connection, most: int | None = None, seconds: float = math.inf
) -> _Tables:
    """Every table with its rows; None for a table that is left out. For ``run_sync``.

    Args:
        most: A table with more rows is left out.
        seconds: Tables that are not reached within this time are left out.
    """
    end = time.monotonic() + seconds
    found: _Tables = {}
    for name, source in _tables(connection).items():
        rows = dict(_rows(connection, source, most)) if time.monotonic() < end else {}
        too_many = most is not None and len(rows) > most
        found[name] = None if too_many or time.monotonic() >= end else rows
    return found


async def read_untouched(url: URL, read: Callable[[Connection], T]) -> T:
    """The result of *read* on the database at *url*, which no test uses."""
    from sqlalchemy.pool import NullPool

    engine = build_engine(url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(read)
    finally:
        await engine.dispose()


def differences(before: _Tables, after: _Tables) -> dict[str, TableChanges]:
    """The changes by table; tables without changes are left out, as are those that were not
    read."""
    found = {}
    for name in sorted({*before, *after}):
        was, rows = before.get(name, {}), after.get(name, {})
        if was is None or rows is None:
            continue
        changes = TableChanges(
            inserted=[row for key, row in rows.items() if key not in was],
            updated=[(was[key], row) for key, row in rows.items() if was.get(key, row) != row],
            deleted=[row for key, row in was.items() if key not in rows],
        )
        if changes != TableChanges():
            found[name] = changes
    return found


def _tables(connection: Connection) -> dict[str, _Source]:
    """Every table, by the name that users write."""
    from sqlalchemy import inspect

    inspector = inspect(connection)
    schemas: list[str | None] = [None]
    if connection.dialect.name == "postgresql":
        system = ("information_schema", inspector.default_schema_name)
        schemas += [name for name in inspector.get_schema_names() if name not in system]
    found = {}
    for schema in schemas:
        for (_, name), key in inspector.get_multi_pk_constraint(schema=schema).items():
            columns = list(key["constrained_columns"])
            found[f"{schema}.{name}" if schema else name] = schema, name, columns
    return found


def _rows(
    connection: Connection, source: _Source, most: int | None
) -> Iterator[tuple[tuple[Any, ...], Row]]:
    schema, table, key = source
    quote = connection.dialect.identifier_preparer.quote
    name = f"{quote(schema)}.{quote(table)}" if schema else quote(table)
    limit = "" if most is None else f" LIMIT {most + 1}"
    result = connection.exec_driver_sql(
        f"SELECT * FROM {name}{limit}", execution_options={"no_parameters": True}
    )
    seen: dict[str, int] = {}
    for row in result.mappings():
        if key:
            yield tuple(row[column] for column in key), dict(row)
            continue
        text = repr(list(row.values()))
        seen[text] = seen.get(text, 0) + 1
        yield (text, seen[text]), dict(row)
