"""The statements that copy a MySQL or MariaDB database on the same server.

The definitions come from ``SHOW CREATE``, because ``CREATE TABLE … LIKE`` loses foreign keys.
``INSERT … SELECT`` copies the rows. Session variables are set for each object, as ``mysqldump``
sets them. This module opens no connection.
"""

from __future__ import annotations

import dataclasses
import graphlib
import json
import re
from collections.abc import Iterable, Sequence

from pytest_asyncdb.abc import Copier, Sql

_SQL_MODE = "sql_mode = 'NO_AUTO_VALUE_ON_ZERO'"
#: Puts a session of the plugin in the state in which it reads and copies definitions. The time
#: zone is that of the defaults of TIMESTAMP columns. The comment is for MariaDB, where each
#: migration may switch these checks off.
SETTLE = (
    f"SET {_SQL_MODE}, foreign_key_checks = 0, sql_quote_show_create = 1, "
    "time_zone = '+00:00', collation_connection = 'utf8mb4_general_ci' "
    "/*M!100600 , check_constraint_checks = 0, innodb_strict_mode = 0 */"
)

#: The kinds of tables. Their rows are copied.
TABLES = ("BASE TABLE", "SYSTEM VERSIONED")
#: All kinds of objects, in an order in which they can be created. For each kind: the columns of
#: SHOW CREATE with the definition, the SQL mode, the two collations and the time zone.
_KINDS = {
    "SEQUENCE": (1, None, None, None, None),
    "BASE TABLE": (1, None, None, None, None),
    "SYSTEM VERSIONED": (1, None, None, None, None),
    "LIBRARY": (2, 1, None, None, None),
    "FUNCTION": (2, 1, 4, 5, None),
    "PROCEDURE": (2, 1, 4, 5, None),
    "PACKAGE": (2, 1, 4, 5, None),
    "PACKAGE BODY": (2, 1, 4, 5, None),
    "VIEW": (1, None, 3, None, None),
    "TRIGGER": (2, 1, 4, 5, None),
    "EVENT": (3, 1, 5, 6, 2),
    "HISTOGRAM": (),  # of a column; its name is a JSON list of table, column and data
}
#: Behind the name of a table with system versioning: reads its deleted rows, too.
HISTORY = " FOR SYSTEM_TIME ALL"
#: Kinds that are created before the rows are copied.
_STORED = ("SEQUENCE", *TABLES)

#: Comments, string literals, and names, with the dot if one follows.
_TOKENS = re.compile(
    r"--\s[^\n]*|\#[^\n]*|/\*.*?\*/|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
    r"|(?P<name>`(?:[^`]|``)*`|[\w$]+)(?P<dot>\s*\.)?",
    re.DOTALL,
)
#: A comment in the last line, which would swallow the next statement.
_COMMENT = re.compile(r"(--|#)[^\n]*\Z")
#: The counter is one of the options behind the last parenthesis at the start of a line.
_COUNTER = re.compile(r"^(\).*?) AUTO_INCREMENT=\d+", re.MULTILINE)


def quoted(*names: str) -> str:
    """Return a name, or a database and a name in it, as SQL."""
    return ".".join("`" + name.replace("`", "``") + "`" for name in names)


def literal(text: str) -> str:
    """Return a string as SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


@dataclasses.dataclass(frozen=True)
class Made:
    """One object of a database, and the settings that it was created with."""

    kind: str
    name: str
    create: str
    sql_mode: str | None = None
    collation: str | None = None
    #: The collation of the database at that time.
    database_collation: str | None = None
    time_zone: str | None = None

    @property
    def lasting(self) -> Made:
        """The definition without what changes with the rows: the counter, and a histogram that the
        server updates."""
        if self.kind == "HISTOGRAM" and '"auto-update": true' in self.create:
            return dataclasses.replace(self, create="")
        if self.kind not in TABLES:
            return self
        return dataclasses.replace(self, create=_COUNTER.sub(r"\1", self.create))

    def statements(self, source: str, target: str) -> list[str]:
        """Return statements that create the object in the database *target*, which is the current
        one.

        MySQL includes the semicolon that follows in a script in the text of a routine, trigger or
        event. It has no effect.
        """
        create = moved(self.create, source, target)
        if _COMMENT.search(create):
            create += "\n"
        if self.kind in _STORED:
            return [create]
        settings = [_SQL_MODE if self.sql_mode is None else f"sql_mode = {literal(self.sql_mode)}"]
        if self.time_zone is not None:
            settings.append(f"time_zone = {literal(self.time_zone)}")
        if self.collation is not None:
            settings.append(f"collation_connection = {literal(self.collation)}")
        return ["SET " + ", ".join(settings), create]


@dataclasses.dataclass(frozen=True)
class Definitions:
    """All definitions of a database."""

    #: The options of CREATE DATABASE: character set, collation, encryption, comment.
    options: str
    collation: str
    objects: tuple[Made, ...]

    @property
    def lasting(self) -> tuple[object, ...]:
        """A value that stays equal as long as the schema is unchanged."""
        return (self.options, *(made.lasting for made in self.objects))

    def names(self, *kinds: str) -> list[str]:
        return [made.name for made in self.objects if made.kind in kinds]


async def define(sql: Sql, database: str) -> Definitions:
    """Read all definitions of a database. The session must have run SETTLE."""
    here = literal(database)
    ((_, create),) = await sql.fetch(f"SHOW CREATE DATABASE {quoted(database)}")
    ((collation,),) = await sql.fetch(
        f"SELECT default_collation_name FROM information_schema.schemata WHERE schema_name = {here}"
    )
    rows = await sql.fetch(
        "SELECT table_type, table_name, 0 FROM information_schema.tables "
        f"WHERE table_schema = {here} UNION ALL "
        "SELECT routine_type, routine_name, 0 FROM information_schema.routines "
        f"WHERE routine_schema = {here} UNION ALL "
        # Several triggers for one event of a table run in the order of their creation.
        "SELECT 'TRIGGER', trigger_name, action_order FROM information_schema.triggers "
        f"WHERE trigger_schema = {here} UNION ALL "
        "SELECT 'EVENT', event_name, 0 FROM information_schema.events "
        f"WHERE event_schema = {here} "
        "/*!80003 UNION ALL SELECT 'HISTOGRAM', json_array(table_name, column_name, histogram), 0 "
        f"FROM information_schema.column_statistics WHERE schema_name = {here} */"
        "/*!90200 UNION ALL SELECT 'LIBRARY', library_name, 0 "
        f"FROM information_schema.libraries WHERE library_schema = {here} */"
    )
    rows = sorted(rows, key=lambda row: ([*_KINDS].index(row[0]), row[2], row[1]))
    options = create.removeprefix(f"CREATE DATABASE {quoted(database)}")
    made = [await _made(sql, kind, database, name) for kind, name, _ in rows]
    return Definitions(options, collation, tuple(made))


async def _made(sql: Sql, kind: str, database: str, name: str) -> Made:
    if kind == "HISTOGRAM":
        table, column, data = json.loads(name)
        what = f"UPDATE HISTOGRAM ON {quoted(column)}"
        using = f"/*!80031 USING DATA {literal(json.dumps(data))} */"
        return Made(kind, quoted(table, column), f"ANALYZE TABLE {quoted(table)} {what} {using}")
    word = "TABLE" if kind in TABLES else kind
    (row,) = await sql.fetch(f"SHOW CREATE {word} {quoted(database, name)}")
    create, *others = (None if i is None else row[i] for i in _KINDS[kind])
    return Made(kind, name, str(create), *others)


def moved(text: str, source: str, target: str) -> str:
    """Return a definition with the names of the database *source* changed to the database
    *target*."""

    def replace(match: re.Match[str]) -> str:
        if match["dot"] and match["name"] in (source, quoted(source)):
            return quoted(target) + match["dot"]
        return match.group()

    return _TOKENS.sub(replace, text)


def in_order(objects: Sequence[Made], database: str) -> list[Made]:
    """Return the objects, with each view after the views that it selects from."""
    views = {made.name: made for made in objects if made.kind == "VIEW"}
    graph = {
        name: [n for n in views if n != name and quoted(database, n) in view.create]
        for name, view in views.items()
    }
    sorted_views = iter(graphlib.TopologicalSorter(graph).static_order())
    return [views[next(sorted_views)] if made.kind == "VIEW" else made for made in objects]


async def stored_columns(sql: Sql, database: str) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the writable columns of each table, including invisible ones, and its AUTO_INCREMENT
    column."""
    writable: dict[str, list[str]] = {}
    counting = {}
    for table, column, extra in await sql.fetch(
        "SELECT table_name, column_name, extra FROM information_schema.columns "
        f"WHERE table_schema = {literal(database)} AND coalesce(generation_expression, '') = '' "
        "ORDER BY table_name, ordinal_position"
    ):
        writable.setdefault(table, []).append(column)
        if "auto_increment" in extra:
            counting[table] = column
    return writable, counting


async def history_columns(sql: Sql, database: str, tables: Sequence[str]) -> dict[str, list[str]]:
    """Return the columns with the two times of a row, for each table with system versioning.

    A table is left out if the server cannot insert these values. It can since MariaDB 10.11, unless
    the columns hold numbers of transactions instead of times.
    """
    if not tables or not await sql.fetch("SHOW VARIABLES LIKE 'system_versioning_insert_history'"):
        return {}
    found = {table: ["row_start", "row_end"] for table in tables}
    explicit = await sql.fetch(
        "SELECT table_name, data_type, column_name FROM information_schema.columns "
        f"WHERE table_schema = {literal(database)} AND generation_expression LIKE 'ROW %' "
        "ORDER BY generation_expression"
    )
    for table, kind, column in explicit:
        if kind == "timestamp":
            found[table] = [column, *found[table][:1]]
        else:
            found.pop(table, None)
    return found


def insert_all(
    table: str, columns: Iterable[str], source: str, target: str, history: str = ""
) -> str:
    """Return the statement that copies all rows of a table.

    Args:
        history: :data:`HISTORY`, or nothing.
    """
    names = ", ".join(map(quoted, columns))
    there = quoted(source, table) + history
    return f"INSERT INTO {quoted(target, table)} ({names}) SELECT {names} FROM {there}"


async def make_copier(sql: Sql, template: str) -> Copier:
    """Read *template* once, and return its copier; see
    :meth:`pytest_asyncdb.abc.Backend.copier`."""
    await sql.script([SETTLE])
    source = await define(sql, template)
    tables = source.names(*TABLES)
    times = await history_columns(sql, template, source.names("SYSTEM VERSIONED"))
    history = dict.fromkeys(times, HISTORY)
    query = " UNION ALL ".join(
        f"(SELECT {i} FROM {quoted(template, name)}{history.get(name, '')} LIMIT 1)"
        for i, name in enumerate(tables)
    )
    filled = [tables[int(row[0])] for row in await sql.fetch(query)] if tables else []
    columns, _ = await stored_columns(sql, template)
    restarts = []
    for name in source.names("SEQUENCE"):
        # This value comes after those that the server has cached.
        ((value,),) = await sql.fetch(f"SELECT next_not_cached_value FROM {quoted(template, name)}")
        restarts.append(f"ALTER SEQUENCE {quoted(name)} RESTART WITH {value}")
    stored = [made for made in source.objects if made.kind in _STORED]
    # Views of tables or columns that were dropped cannot be created.
    query = f"SHOW TABLE STATUS FROM {quoted(template)} WHERE comment LIKE '%invalid table%'"
    broken = {("VIEW", row[0]) for row in await sql.fetch(query)}
    whole = [made for made in source.objects if (made.kind, made.name) not in broken]
    others = in_order([made for made in whole if made.kind not in _STORED], template)

    def copy(name: str) -> Sequence[str]:
        statements = [
            f"CREATE DATABASE {quoted(name)}{source.options}",
            f"USE {quoted(name)}",
            SETTLE,
        ]
        for made in stored:
            statements += made.statements(template, name)
        statements += restarts
        inserts = [
            insert_all(t, columns[t] + times.get(t, []), template, name, history.get(t, ""))
            for t in filled
        ]
        if times:
            switch = "SET system_versioning_insert_history"
            inserts = [f"{switch} = 1", *inserts, f"{switch} = 0"]
        statements += inserts
        collation = source.collation
        for made in others:
            if made.database_collation not in (None, collation):
                collation = str(made.database_collation)
                statements.append(f"ALTER DATABASE {quoted(name)} COLLATE {collation}")
            statements += made.statements(template, name)
        if collation != source.collation:
            statements.append(f"ALTER DATABASE {quoted(name)} COLLATE {source.collation}")
        return [*statements, SETTLE, "USE information_schema"]

    return copy
