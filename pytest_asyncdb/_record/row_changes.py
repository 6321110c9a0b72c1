"""The rows that a test has changed: its tables compared with those of an untouched database."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from sqlalchemy import Connection, inspect
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from pytest_asyncdb._engines.build_engine import build_engine
from pytest_asyncdb._record.text import error_text

T = TypeVar("T")
Row = dict[str, Any]
#: The rows of a table. The key is the primary key, or all values if there is none, as text, and a
#: number that counts equal ones. The value is the row's values as text, and the row. Texts can be
#: compared, whatever the driver makes of the values.
_Rows = dict[tuple[str, int], tuple[str, Row]]
#: Schema, name and key columns of a table, and its columns, each with what reads it in place of
#: ``?`` (none: those of ``*``); or why it cannot be read.
_Source = tuple[str | None, str, list[str], list[tuple[str, str]]] | str
#: The rows of each table, or the reason why they were not read.
_Tables = dict[str, _Rows | str]

#: The reason why the account cannot read all rows of the relation ``c`` of PostgreSQL's schema
#: ``n``; NULL: it can.
UNREADABLE = """CASE
    WHEN NOT has_schema_privilege(n.oid, 'USAGE') OR NOT has_table_privilege(c.oid, 'SELECT')
        THEN format('the role %I may not read it', current_user)
    WHEN row_security_active(c.oid)
        THEN format('row security hides rows from the role %I', current_user)
END"""
#: Calls after which each of PostgreSQL's values has one text that can be read again. ``{0}`` stands
#: for whether the settings end with the transaction.
TEXT_SETTINGS = (
    "set_config('timezone', 'UTC', {0}), set_config('datestyle', 'ISO', {0}), "
    "set_config('intervalstyle', 'postgres', {0}), set_config('extra_float_digits', '1', {0})"
)
#: The tables of PostgreSQL, with why they cannot be read and their keys.
_POSTGRES = f"""SELECT n.nspname, c.relname, {UNREADABLE} AS why, ARRAY(
    SELECT attname::text FROM pg_constraint JOIN pg_attribute ON attrelid = conrelid
    WHERE conrelid = c.oid AND contype = 'p' AND attnum = ANY (conkey))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
    AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'"""
#: The columns of the tables of MySQL and MariaDB, also invisible ones. SQLAlchemy's inspector warns
#: of types that it does not know, such as POINT, or fails. The drivers cannot read VECTOR.
_MYSQL = """SELECT table_name, column_name, column_key = 'PRI',
    if(data_type = 'vector', 'hex(?) AS ?', '?')
FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
WHERE table_schema = database() AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')
ORDER BY table_name, ordinal_position"""


@dataclasses.dataclass(frozen=True)
class TableChanges:
    """The rows of one table that a test has changed, each as a mapping of its columns.

    Args:
        inserted: Rows that only exist after the test.
        updated: Pairs of a row before and after the test.
        deleted: Rows that only existed before the test.
    """

    inserted: list[Row] = dataclasses.field(default_factory=list)
    updated: list[tuple[Row, Row]] = dataclasses.field(default_factory=list)
    deleted: list[Row] = dataclasses.field(default_factory=list)


class LeftOut(TableChanges):
    """Stands for a table that could not be read. Asking for its rows raises the error."""

    def __init__(self, error: Exception) -> None:
        object.__setattr__(self, "error", error)

    def _raise(self) -> NoReturn:
        raise self.__dict__["error"]

    inserted = updated = deleted = property(_raise)

    def __repr__(self) -> str:
        return f"<{str(self.__dict__['error']).partition(chr(10))[0]}>"


def read_tables(
    connection: Connection, most: int | None = None, seconds: float = math.inf
) -> _Tables:
    """Return every table with its rows, or with the reason why it is left out. For ``run_sync``.

    Args:
        most: A table with more rows is left out.
        seconds: Tables that are not reached within this time are left out.
    """
    end = time.monotonic() + seconds
    return {
        name: _read(connection, source, most) if time.monotonic() < end else "too many tables"
        for name, source in _tables(connection).items()
    }


async def read_untouched(url: URL, read: Callable[[Connection], T]) -> T:
    """Return the result of *read* on the database at *url*, which no test uses."""
    engine = build_engine(url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(read)
    finally:
        await engine.dispose()


def differences(before: _Tables, after: _Tables) -> dict[str, TableChanges]:
    """Return the changes by table. Tables without changes, and those that were not read, are left
    out."""
    found = {}
    for name in sorted({*before, *after}):
        was, rows = before.get(name, {}), after.get(name, {})
        if isinstance(was, str) or isinstance(rows, str):
            continue
        changes = TableChanges(
            inserted=[row for key, (_, row) in rows.items() if key not in was],
            updated=[
                (was[key][1], row)
                for key, (text, row) in rows.items()
                if key in was and was[key][0] != text
            ],
            deleted=[row for key, (_, row) in was.items() if key not in rows],
        )
        if changes.inserted or changes.updated or changes.deleted:
            found[name] = changes
    return found


def left_out(before: _Tables, after: _Tables) -> dict[str, str]:
    """Return the tables that were not read, each with the reason."""
    both = sorted([*before.items(), *after.items()], key=lambda item: item[0])
    return {name: rows for name, rows in both if isinstance(rows, str)}


def _tables(connection: Connection) -> dict[str, _Source]:
    """Return every table, by the name that users write."""
    found: dict[str, Any] = {}
    if connection.dialect.name == "postgresql":
        default = connection.dialect.default_schema_name
        for schema, name, why, keys in _execute(connection, _POSTGRES):
            shown = name if schema == default else f"{schema}.{name}"
            found[shown] = why or (schema, name, keys, [])
    elif connection.dialect.name in ("mysql", "mariadb"):
        for name, column, is_key, value in _execute(connection, _MYSQL):
            _, _, keys, columns = found.setdefault(name, (None, name, [], []))
            keys += [column] * is_key
            columns.append((column, value))
    else:
        for (_, name), key in inspect(connection).get_multi_pk_constraint().items():
            found[name] = None, name, key["constrained_columns"], []
    return found


def _execute(connection: Connection, query: str) -> Any:
    return connection.exec_driver_sql(query, execution_options={"no_parameters": True})


def _read(connection: Connection, source: _Source, most: int | None) -> _Rows | str:
    """Return the rows of a table, or the reason why they are left out."""
    if isinstance(source, str):
        return source
    try:
        rows = _rows(connection, source, most)
    except Exception as error:
        return error_text(error)
    if most is not None and len(rows) > most:
        return f"more than {most} rows"
    found: _Rows = {}
    seen: Counter[str] = Counter()
    for key, text, row in rows:
        seen[key] += 1
        found[key, seen[key]] = text, row
    return found


def _rows(connection: Connection, source: Any, most: int | None) -> list[tuple[str, str, Row]]:
    """Return key, text and values of each row."""
    schema, name, keys, columns = source
    mark = connection.dialect.identifier_preparer.initial_quote

    def quote(name: str) -> str:  # the dialect's own method doubles "%"
        return f"{mark}{name.replace(mark, mark * 2)}{mark}"

    table = f"{quote(schema)}.{quote(name)}" if schema else quote(name)
    limit = "" if most is None else f" LIMIT {most + 1}"
    if connection.dialect.name != "postgresql":
        values = ", ".join(value.replace("?", quote(name)) for name, value in columns) or "*"
        result = _execute(connection, f"SELECT {values} FROM {table}{limit}")
        rows = [dict(row) for row in result.mappings()]
        return [(repr([r[n] for n in keys or r]), repr([*r.values()]), r) for r in rows]
    key = f"ROW({', '.join(f'asyncdb.{quote(key)}' for key in keys)})" if keys else "(asyncdb.*)"
    settings = TEXT_SETTINGS.format("true")

    def select(values: str) -> Any:
        return _execute(
            connection,
            f"WITH asyncdb_settings AS MATERIALIZED (SELECT {settings}) SELECT {key}::text, "
            f"(asyncdb.*)::text, {values} FROM asyncdb_settings, {table} AS asyncdb{limit}",
        )

    try:
        result = select("asyncdb.*")
        names = list(result.keys())[2:]
        return [(key, text, dict(zip(names, values, strict=True))) for key, text, *values in result]
    except Exception as error:  # psycopg cannot read the date 'infinity'
        try:
            result = select("to_json(asyncdb.*)::text")
            return [(key, text, json.loads(values)) for key, text, values in result]
        except Exception:
            raise error from None
