"""A complete dump of an SQLite database: ``sqlite_schema``, its PRAGMAs, all rows."""

from __future__ import annotations

from collections import Counter
from typing import Any

#: What stands in the header of the file. ``schema_version`` is left out: it only counts.
PRAGMAS = (
    *("user_version", "application_id", "encoding", "page_size", "auto_vacuum"),
    *("default_cache_size", "page_count", "freelist_count"),
)


def dump(connection: Any, limit: str) -> dict[str, Any]:
    """What is in the database, part by part."""
    found = {f"PRAGMA {name}": connection.execute(f"PRAGMA {name}").fetchall() for name in PRAGMAS}
    schema = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema").fetchall()
    found["sqlite_schema"] = schema
    for kind, name, _, sql in schema:
        if kind == "table" and not (sql or "").upper().startswith("CREATE VIRTUAL"):
            found[f"rows of {name}"] = _rows(connection, name.replace('"', '""'))
    return {name: Counter(map(str, part)) for name, part in found.items()}


def _rows(connection: Any, name: str) -> list[Any]:
    # Also hidden and generated columns; quote() shows the type of each value.
    columns = [row[1] for row in connection.execute(f'PRAGMA table_xinfo("{name}")')]
    values = ['quote("{}")'.format(column.replace('"', '""')) for column in columns]
    (rowid,) = connection.execute(
        "SELECT count(*) FROM pragma_table_list WHERE schema = 'main' AND name = ? AND wr = 0",
        (name.replace('""', '"'),),
    ).fetchone()
    what = ", ".join([*values, *(["rowid"] if rowid else [])])
    return connection.execute(f'SELECT {what} FROM "{name}"').fetchall()  # type: ignore[no-any-return]


def rows(connection: Any, limit: str, name: str) -> Counter[str]:
    """The rows of one part of a dump."""
    part: Counter[str] = dump(connection, limit).get(name, Counter())
    return part
