"""The text that makes a copy of a MySQL or MariaDB database on the same server.

The definitions come from ``SHOW CREATE``, the rows by ``INSERT … SELECT``: ``CREATE TABLE …
LIKE`` would lose the foreign keys. What ``mysqldump`` sets before each object is set here,
too. Nothing here opens a connection.
"""

from __future__ import annotations

import dataclasses
import graphlib
import re
from collections.abc import Iterable, Sequence

from pytest_asyncdb.abc import Copier, Sql

#: Under which definitions are read and copied; the session's own values come back by END.
#: The time zone is that of the defaults of TIMESTAMP columns.
_SETTINGS = {
    "foreign_key_checks": "0",
    "sql_mode": "'NO_AUTO_VALUE_ON_ZERO'",
    "sql_quote_show_create": "1",
    "time_zone": "'+00:00'",
}
#: What routines, triggers and events are made under.
_KEPT = (*_SETTINGS, "collation_connection")
BEGIN = "SET " + ", ".join(
    [
        *(f"@asyncdb_{name} = @@session.{name}" for name in _KEPT),
        *(f"{name} = {value}" for name, value in _SETTINGS.items()),
    ]
)
END = "SET " + ", ".join(f"{name} = @asyncdb_{name}" for name in _KEPT)
#: Without a way back, for a connection that is ours alone.
SETTLE = "SET " + ", ".join(f"{name} = {value}" for name, value in _SETTINGS.items())

#: For connections of ours: aiomysql makes Python warnings of the server's. MySQL lets an
#: account do this that may change its session's variables.
_SILENCE = "SET max_error_count = 0"

#: Kinds of tables: their rows are copied.
TABLES = ("BASE TABLE", "SYSTEM VERSIONED")
#: All kinds, in an order in which they can be made, and where SHOW CREATE has the
#: definition, the SQL mode, the two collations and the time zone of each.
_KINDS = {
    "SEQUENCE": (1, None, None, None, None),
    "BASE TABLE": (1, None, None, None, None),
    "SYSTEM VERSIONED": (1, None, None, None, None),
    "FUNCTION": (2, 1, 4, 5, None),
    "PROCEDURE": (2, 1, 4, 5, None),
    "PACKAGE": (2, 1, 4, 5, None),
    "PACKAGE BODY": (2, 1, 4, 5, None),
    "VIEW": (1, None, 3, None, None),
    "TRIGGER": (2, 1, 4, 5, None),
    "EVENT": (3, 1, 5, 6, 2),
}
#: Where the rows come in between.
_STORED = ("SEQUENCE", *TABLES)

#: Comments, texts, and names with what may follow a database's.
_TOKENS = re.compile(
    r"--\s[^\n]*|\#[^\n]*|/\*.*?\*/|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
    r"|(?P<name>`(?:[^`]|``)*`|[\w$]+)(?P<dot>\s*\.)?",
    re.DOTALL,
)
#: A last line that may end in a comment, which would take in what follows.
_COMMENT = re.compile(r"(--|#)[^\n]*\Z")
#: The counter stands in the options behind the last parenthesis at the start of a line.
_COUNTER = re.compile(r"^(\).*?) AUTO_INCREMENT=\d+", re.MULTILINE)


def quoted(*names: str) -> str:
    """A name, or a name in a database, as SQL."""
    return ".".join("`" + name.replace("`", "``") + "`" for name in names)


def literal(text: str) -> str:
    """A text as SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


@dataclasses.dataclass(frozen=True)
class Made:
    """One object of a database, and what it was made under."""

    kind: str
    name: str
    create: str
    sql_mode: str | None = None
    collation: str | None = None
    #: That of the database then.
    database_collation: str | None = None
    time_zone: str | None = None

    @property
    def lasting(self) -> Made:
        """The definition without the counter, which moves with the rows."""
        if self.kind not in TABLES:
            return self
        return dataclasses.replace(self, create=_COUNTER.sub(r"\1", self.create))

    def statements(self, source: str, target: str) -> list[str]:
        """Make the same in another database, which is the current one.

        MySQL takes the semicolon that follows in a script into the text of a routine,
        trigger or event; it means nothing.
        """
        create = moved(self.create, source, target)
        if _COMMENT.search(create):
            create += "\n"
        if self.kind in _STORED:
            return [create]
        settings = [f"sql_mode = {_SETTINGS['sql_mode']}"]
        if self.sql_mode is not None:
            settings = [f"sql_mode = {literal(self.sql_mode)}"]
        if self.time_zone is not None:
            settings.append(f"time_zone = {literal(self.time_zone)}")
        settings.append(f"collation_connection = {literal(self.collation or '')}")
        return ["SET " + ", ".join(settings), create]


@dataclasses.dataclass(frozen=True)
class Definitions:
    """A database as SHOW CREATE tells it."""

    charset: str
    collation: str
    objects: tuple[Made, ...]

    @property
    def lasting(self) -> tuple[object, ...]:
        """What is equal as long as nobody changes the schema."""
        return (self.charset, self.collation, *(made.lasting for made in self.objects))

    def names(self, *kinds: str) -> list[str]:
        return [made.name for made in self.objects if made.kind in kinds]


async def define(sql: Sql, database: str) -> Definitions:
    """Read all definitions of a database, on a session that BEGIN or SETTLE was run on."""
    here = literal(database)
    ((charset, collation),) = await sql.fetch(
        "SELECT default_character_set_name, default_collation_name "
        f"FROM information_schema.schemata WHERE schema_name = {here}"
    )
    rows = await sql.fetch(
        "SELECT table_type, table_name, 0 FROM information_schema.tables "
        f"WHERE table_schema = {here} UNION ALL "
        "SELECT routine_type, routine_name, 0 FROM information_schema.routines "
        f"WHERE routine_schema = {here} UNION ALL "
        # Several triggers for one event of a table run in the order of their making.
        "SELECT 'TRIGGER', trigger_name, action_order FROM information_schema.triggers "
        f"WHERE trigger_schema = {here} UNION ALL "
        "SELECT 'EVENT', event_name, 0 FROM information_schema.events "
        f"WHERE event_schema = {here}"
    )
    order = list(_KINDS)
    rows.sort(key=lambda row: (order.index(row[0]), row[2], row[1]))
    return Definitions(
        charset, collation, tuple([await _made(sql, k, database, n) for k, n, _ in rows])
    )


async def _made(sql: Sql, kind: str, database: str, name: str) -> Made:
    word = "TABLE" if kind in TABLES else kind
    (row,) = await sql.fetch(f"SHOW CREATE {word} {quoted(database, name)}")
    create, *others = (None if i is None else row[i] for i in _KINDS[kind])
    return Made(kind, name, str(create), *others)


def moved(text: str, source: str, target: str) -> str:
    """A definition in which names that stand in *source* stand in *target*."""

    def replace(match: re.Match[str]) -> str:
        if match["dot"] and match["name"] in (source, quoted(source)):
            return quoted(target) + match["dot"]
        return match.group()

    return _TOKENS.sub(replace, text)


def in_order(objects: Sequence[Made], database: str) -> list[Made]:
    """The objects, of the views those first that others select from."""
    views = {made.name: made for made in objects if made.kind == "VIEW"}
    graph = {
        name: [n for n in views if n != name and quoted(database, n) in view.create]
        for name, view in views.items()
    }
    sorted_views = iter(graphlib.TopologicalSorter(graph).static_order())
    return [views[next(sorted_views)] if made.kind == "VIEW" else made for made in objects]


async def stored_columns(sql: Sql, database: str) -> dict[str, dict[str, str]]:
    """The columns of each table that can be written, also invisible ones, and their types."""
    columns: dict[str, dict[str, str]] = {}
    for table, column, kind in await sql.fetch(
        "SELECT table_name, column_name, data_type FROM information_schema.columns "
        f"WHERE table_schema = {literal(database)} AND coalesce(generation_expression, '') = '' "
        "ORDER BY table_name, ordinal_position"
    ):
        columns.setdefault(table, {})[column] = kind
    return columns


def insert_all(table: str, columns: Iterable[str], source: str, target: str) -> str:
    """Copy all rows of a table."""
    names = ", ".join(map(quoted, columns))
    return (
        f"INSERT INTO {quoted(target, table)} ({names}) SELECT {names} FROM {quoted(source, table)}"
    )


async def silence(sql: Sql) -> list[str]:
    """Keep warnings of the server away from Python; the statement for it, where we may."""
    try:
        await sql.script([_SILENCE])
    except Exception:  # the account may not
        return []
    return [_SILENCE]


async def make_copier(sql: Sql, template: str) -> Copier:
    """Look at *template* once; see :meth:`pytest_asyncdb.abc.Backend.copier`."""
    silent = await silence(sql)
    await sql.script([BEGIN])
    try:
        source = await define(sql, template)
        tables = source.names(*TABLES)
        rows = " UNION ALL ".join(
            f"(SELECT {i} FROM {quoted(template, name)} LIMIT 1)" for i, name in enumerate(tables)
        )
        filled = [tables[int(row[0])] for row in await sql.fetch(rows)] if tables else []
        columns = await stored_columns(sql, template)
        restarts = [
            f"ALTER SEQUENCE {quoted(name)} RESTART WITH {await next_value(sql, template, name)}"
            for name in source.names("SEQUENCE")
        ]
    finally:
        await sql.script([END])
    stored = [made for made in source.objects if made.kind in _STORED]
    others = in_order([made for made in source.objects if made.kind not in _STORED], template)

    def copy(name: str) -> Sequence[str]:
        statements = [
            f"CREATE DATABASE {quoted(name)} "
            f"CHARACTER SET {source.charset} COLLATE {source.collation}",
            f"USE {quoted(name)}",
            *silent,
            BEGIN,
        ]
        for made in stored:
            statements += made.statements(template, name)
        statements += restarts
        statements += [insert_all(t, columns[t], template, name) for t in filled]
        collation = source.collation
        for made in others:
            if made.database_collation not in (None, collation):
                collation = str(made.database_collation)
                statements.append(f"ALTER DATABASE {quoted(name)} COLLATE {collation}")
            statements += made.statements(template, name)
        if collation != source.collation:
            statements.append(f"ALTER DATABASE {quoted(name)} COLLATE {source.collation}")
        return [*statements, END, "USE information_schema"]

    return copy


async def next_value(sql: Sql, database: str, sequence: str) -> int:
    """What a MariaDB sequence gives next, if it were not for what it keeps in memory."""
    ((value,),) = await sql.fetch(f"SELECT next_not_cached_value FROM {quoted(database, sequence)}")
    return int(value)
