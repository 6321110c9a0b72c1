"""Queries that show cheaply what has changed in a MySQL or MariaDB database."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from pytest_asyncdb.abc import LEFT_TEXT, Sql
from pytest_asyncdb.backends.mysql_dump import (
    TABLES,
    Definitions,
    define,
    literal,
    quoted,
    stored_columns,
)

#: Counters of the statements that may change a schema, in any session and in procedures. TRUNCATE
#: cannot. MySQL's performance_schema.global_status does not have these counters.
_COUNTERS = [
    *("Com_rename_table", "Com_alter_db"),
    *(
        f"Com_{verb}_{what}"
        for verb in ("create", "alter", "drop")
        for what in (
            *("table", "index", "view", "trigger", "procedure", "function", "event"),
            *("sequence", "package", "package_body"),
        )
    ),
]
_NAMES = ", ".join(map(literal, _COUNTERS))
DDL = f"SHOW GLOBAL STATUS WHERE variable_name IN ({_NAMES}) AND value > 0"


#: Shows, among other things, which sessions are in a transaction. Needs the right PROCESS.
INNODB = "SHOW ENGINE INNODB STATUS"

#: The number of a connection in InnoDB's list of transactions. information_schema has a cached
#: copy, which is not refreshed as long as it is read every 100 ms.
_ACTIVE = re.compile(
    r"^---TRANSACTION \d+, ACTIVE.*\n(?:(?!---).*\n)*?\w+ thread id (\d+)", re.MULTILINE
)


Rows = Sequence[tuple[Any, ...]]


@dataclasses.dataclass(frozen=True)
class State:
    """The rows and counters of a database, as one query shows them."""

    #: The server's time in seconds.
    now: int
    filled: frozenset[str]
    #: The time of the last write to each table, in seconds; None: not known.
    written: dict[str, int | None]
    #: The next value of each AUTO_INCREMENT counter and sequence.
    ids: dict[str, int]


def on_processlist(query: str) -> tuple[str, ...]:
    """Statements of which the last one returns the rows of *query*, in which ``{processlist}``
    stands for the table of all sessions that the account may see.

    MySQL has two such tables. One is deprecated, and the drivers report the server's warning; the
    other one is empty if the performance schema is switched off, and does not exist before 8.0.22
    and on MariaDB, which takes the condition for a comment.
    """
    before, after = map(literal, query.split("{processlist}"))
    which = "if(0 /*!80022 OR @@performance_schema */, 'performance', 'information')"
    return (
        f"SET @asyncdb_query = concat({before}, {which}, '_schema.processlist', {after})",
        "PREPARE asyncdb_query FROM @asyncdb_query",
        "EXECUTE asyncdb_query",
    )


async def left_open(sql: Sql, database: str, status: Rows) -> list[tuple[int, str]]:
    """Other sessions that are in a transaction in *database*, with their statements.

    Args:
        status: The answer to :data:`INNODB`.
    """
    ((_, _, text),) = status
    numbers = _ACTIVE.findall(text)
    if not numbers:
        return []
    rows = await sql.answer(
        on_processlist(
            f"SELECT id, coalesce(left(info, {LEFT_TEXT}), 'in a transaction') "
            f"FROM {{processlist}} WHERE db = {literal(database)} "
            f"AND id <> connection_id() AND id IN ({', '.join(numbers)})"
        )
    )
    return [(int(number), str(what)) for number, what in rows]


def count_ddl(rows: Rows) -> int:
    """The number of DDL statements that the server has run, from its answer to :data:`DDL`."""
    return sum(int(value) for _, value in rows)


class Catalog:
    """The objects of a database; valid as long as its schema is unchanged."""

    def __init__(self, sql: Sql, database: str, definitions: Definitions) -> None:
        self._sql = sql
        self._database = database
        self._lasting = definitions.lasting
        self.tables = definitions.names(*TABLES)
        #: MariaDB's tables that keep deleted rows.
        self.versioned = frozenset(definitions.names("SYSTEM VERSIONED"))
        self.sequences = frozenset(definitions.names("SEQUENCE"))
        self.triggers = bool(definitions.names("TRIGGER"))
        #: The query for :meth:`read`; fails if a table was dropped.
        self.probe = self._probe("")
        #: The writable columns.
        self.columns: dict[str, list[str]] = {}
        #: The AUTO_INCREMENT columns.
        self.counting: dict[str, str] = {}

    @classmethod
    async def of(cls, sql: Sql, database: str) -> Catalog:
        """Read the catalog, in a session after SETTLE."""
        self = cls(sql, database, await define(sql, database))
        self.columns = await stored_columns(sql, database)
        self.counting = dict(
            await sql.fetch(
                "SELECT table_name, column_name FROM information_schema.columns "
                f"WHERE table_schema = {literal(database)} AND extra LIKE '%auto_increment%'"
            )
        )
        return self

    def narrow_probe(self, start: State) -> None:
        """Let the probe return a row for a table that was empty only if it differs from *start*, so
        that the driver reads fewer rows."""
        told = [*start.filled, *(name for name, number in start.ids.items() if number != 1)]
        names = "".join(f", {literal(name)}" for name in sorted({*told} & {*self.tables}))
        self.probe = self._probe(f" AND (auto_increment > 1 OR table_name IN (''{names}))")

    async def redefined(self) -> bool:
        """Has the schema changed?"""
        try:
            return (await define(self._sql, self._database)).lasting != self._lasting
        except Exception:
            # The database, or the table of a view, was dropped.
            return True

    async def state(self) -> State:
        """The present state; fails if a table was dropped."""
        return self.read(await self._sql.fetch(self.probe))

    def read(self, rows: Rows) -> State:
        """The state, from the answer to the probe."""
        now = 0
        filled = set()
        written: dict[str, int | None] = {}
        ids = dict.fromkeys(self.counting, 1)
        for kind, name, time, number in rows:
            if kind == "now":
                now = int(time)
            elif kind == "row":
                filled.add(name)
            elif kind == "sequence":
                ids[name] = int(number)
            else:
                written[name] = None if time is None else int(time)
                if name in self.counting:
                    # After TRUNCATE MySQL has none.
                    ids[name] = int(number or 1)
        return State(now, frozenset(filled), written, ids)

    async def checksums(self, tables: Sequence[str]) -> dict[str, int | None]:
        """The server's checksums of all rows of some tables."""
        if not tables:
            return {}
        names = ", ".join(quoted(self._database, name) for name in tables)
        rows = await self._sql.fetch(f"CHECKSUM TABLE {names}")
        return {name: row[1] for name, row in zip(tables, rows, strict=True)}

    async def next_id(self, table: str) -> int:
        """The id that follows the largest one in a table."""
        column = quoted(self.counting[table])
        ((value,),) = await self._sql.fetch(
            f"SELECT coalesce(max({column}), 0) + 1 FROM {quoted(self._database, table)}"
        )
        return int(value)

    def _probe(self, only: str) -> str:
        return " UNION ALL ".join(
            [
                "SELECT 'now', NULL, unix_timestamp(), NULL",
                "SELECT 'table', table_name, "
                "CASE WHEN engine = 'InnoDB' THEN unix_timestamp(update_time) END, auto_increment "
                "FROM information_schema.tables "
                f"WHERE table_schema = {literal(self._database)}{only}",
                *self._filled(),
                *(
                    f"SELECT 'sequence', {literal(name)}, NULL, next_not_cached_value "
                    f"FROM {quoted(self._database, name)}"
                    for name in sorted(self.sequences)
                ),
            ]
        )

    def _filled(self) -> list[str]:
        """Queries for one row of each table, also of deleted rows that it keeps."""
        found = []
        for name in self.tables:
            history = " FOR SYSTEM_TIME ALL" if name in self.versioned else ""
            source = quoted(self._database, name) + history
            found.append(f"(SELECT 'row', {literal(name)}, NULL, NULL FROM {source} LIMIT 1)")
        return found
