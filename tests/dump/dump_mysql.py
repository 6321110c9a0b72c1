"""A complete dump of a MySQL or MariaDB database: definitions, information_schema, rows, rights.

The database's own name stands in many definitions, so it is taken out of everything.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

#: The columns of information_schema by which a row belongs to a database.
_DATABASE = (
    *("TABLE_SCHEMA", "ROUTINE_SCHEMA", "TRIGGER_SCHEMA", "EVENT_SCHEMA", "CONSTRAINT_SCHEMA"),
    *("SCHEMA_NAME", "SPECIFIC_SCHEMA", "LIBRARY_SCHEMA", "SEQUENCE_SCHEMA"),
)
#: Estimates of the storage engine, and the time at which something was done.
_VOLATILE = (
    *("TABLE_ROWS", "AVG_ROW_LENGTH", "DATA_LENGTH", "MAX_DATA_LENGTH", "INDEX_LENGTH"),
    *("DATA_FREE", "CARDINALITY", "CHECKSUM", "MAX_INDEX_LENGTH"),
    *("CREATE_TIME", "UPDATE_TIME", "CHECK_TIME", "CREATED", "LAST_ALTERED", "LAST_EXECUTED"),
)
#: Statistics of use, not of contents; and what the server says of itself.
_LEFT_OUT = ("TABLE_STATISTICS", "INDEX_STATISTICS", "PROCESSLIST", "FILES", "OPTIMIZER_TRACE")

#: SHOW CREATE, and where the definition is in its answer.
_KINDS = {
    "BASE TABLE": ("TABLE", 1),
    "SYSTEM VERSIONED": ("TABLE", 1),
    "VIEW": ("VIEW", 1),
    "SEQUENCE": ("SEQUENCE", 1),
}

#: The tables of ``mysql`` with what belongs to a database, its column, and the columns that count.
#: MariaDB's statistics (``mysql.column_stats``) are left out, as PostgreSQL's are.
_SYSTEM = {
    "db": ("Db", "*"),
    "tables_priv": ("Db", "Host, Db, User, Table_name, Table_priv, Column_priv"),
    "columns_priv": ("Db", "Host, Db, User, Table_name, Column_name, Column_priv"),
    "procs_priv": ("Db", "Host, Db, User, Routine_name, Routine_type, Proc_priv"),
}


#: The same in other words: MySQL keeps the semicolon behind a body that was created in a script, and
#: shows a column's character set if its collation was written out. And when a histogram was made.
_SAME = re.compile(
    r";(?=['\"]\s*[,)])| CHARACTER SET \w+(?= COLLATE)|\"last-updated\": \"[^\"]*\", "
)


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def dump(connection: Any, limit: str) -> dict[str, Any]:
    """What is in the database, part by part."""
    cursor = connection.cursor()

    def fetch(query: str) -> list[tuple[Any, ...]]:
        cursor.execute(query)
        return list(cursor.fetchall())

    ((database, version),) = fetch("SELECT database(), version()")
    if "MariaDB" not in version:
        fetch("SET information_schema_stats_expiry = 0")
    found: dict[str, Any] = {}

    def add(name: str, rows: list[tuple[Any, ...]]) -> None:
        found[name] = Counter(_SAME.sub("", str(row).replace(database, "{db}")) for row in rows)

    add("database", fetch(f"SHOW CREATE DATABASE {_quoted(database)}"))
    for table, query in _information_schema(fetch, version, database).items():
        add(f"information_schema.{table}", fetch(query))
    tables = fetch(
        f"SELECT table_name, table_type FROM information_schema.tables"
        f" WHERE table_schema = '{database}'"
    )
    for name, kind in tables:
        word, place = _KINDS[kind]
        ((*answer,),) = fetch(f"SHOW CREATE {word} {_quoted(name)}")
        add(f"{word} {name}", [(answer[place],)])
        if kind != "VIEW":
            history = " FOR SYSTEM_TIME ALL" if kind == "SYSTEM VERSIONED" else ""
            times = ", ROW_START, ROW_END" if history else ""
            add(f"rows of {name}", fetch(f"SELECT *{times} FROM {_quoted(name)}{history}"))
    invisible = fetch(
        "SELECT table_name, column_name FROM information_schema.columns"
        f" WHERE table_schema = '{database}' AND extra LIKE '%INVISIBLE%'"
    )
    for name, column in invisible:
        values = f"SELECT {_quoted(column)} FROM {_quoted(name)}"
        add(f"column {column} of {name}", fetch(values))
    for name, kind in fetch(
        "SELECT routine_name, routine_type FROM information_schema.routines"
        f" WHERE routine_schema = '{database}'"
    ):
        add(f"{kind} {name}", fetch(f"SHOW CREATE {kind} {_quoted(name)}"))
    for (name,) in fetch(
        f"SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = '{database}'"
    ):
        ((*answer,),) = fetch(f"SHOW CREATE TRIGGER {_quoted(name)}")
        add(f"TRIGGER {name}", [tuple(answer[:6])])  # without the time
    for (name,) in fetch(
        f"SELECT event_name FROM information_schema.events WHERE event_schema = '{database}'"
    ):
        add(f"EVENT {name}", fetch(f"SHOW CREATE EVENT {_quoted(name)}"))
    here = {name for (name,) in fetch("SHOW TABLES FROM mysql")}
    for table, (column, columns) in _SYSTEM.items():
        if table in here:
            add(
                f"mysql.{table}",
                # A pattern in the grants of a database: the underscores may be escaped.
                fetch(
                    f"SELECT {columns} FROM mysql.{table}"
                    f" WHERE replace({column}, '\\\\', '') = '{database}'"
                ),
            )
    return found


def rows(connection: Any, limit: str, name: str) -> Counter[str]:
    """The rows of one part of a dump."""
    part: Counter[str] = dump(connection, limit).get(name, Counter())
    return part


#: The columns of each table of information_schema, by the server's version.
_COLUMNS: dict[str, dict[str, list[str]]] = {}


def _information_schema(fetch: Any, version: str, database: str) -> dict[str, str]:
    """A query for the rows of each table of information_schema that belong to the database."""
    tables = _COLUMNS.setdefault(version, {})
    if not tables:
        for table, column in fetch(
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = 'information_schema' ORDER BY table_name, ordinal_position"
        ):
            tables.setdefault(table.upper(), []).append(column.upper())
    queries = {}
    for table, names in tables.items():
        own = [name for name in _DATABASE if name in names]
        if own and table not in _LEFT_OUT:
            kept = ", ".join(name for name in names if name not in _VOLATILE)
            queries[table] = (
                f"SELECT {kept} FROM information_schema.{table} WHERE {own[0]} = '{database}'"
            )
    return queries
