"""What puts a MySQL or MariaDB database back to what its template is.

Two queries find what has changed, whoever has changed it: tables that have rows and had
none, times of the last change, AUTO_INCREMENT counters, and how many statements the server
has run that change a schema. Only where one of these moved is there a closer look.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from pytest_asyncdb.abc import Restorer, Sql
from pytest_asyncdb.backends._mysql_copy import (
    SETTLE,
    TABLES,
    define,
    insert_all,
    literal,
    quoted,
    stored_columns,
)

#: Seconds for which a statement of ours waits for somebody else's locks.
_PATIENCE = 3
#: Up to so many rows a table is written anew; of a larger one, what differs.
_FEW = 1000
#: Attempts where triggers of the user change what was put back.
_ATTEMPTS = 3
#: Statements of anybody, in procedures, too, that may change a schema. TRUNCATE cannot.
_DDL = (
    "SHOW GLOBAL STATUS WHERE variable_name IN ("
    + ", ".join(
        f"'Com_{verb}_{what}'"
        for verb in ("create", "alter", "drop", "rename")
        for what in (
            *("table", "index", "view", "trigger", "procedure", "function", "event", "db"),
            *("sequence", "package", "package_body"),
        )
    )
    + ")"
)
#: Types whose values compare equal when they are not the same.
_TEXTS = ("char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set", "json")


@dataclasses.dataclass(frozen=True)
class _State:
    """What one query tells about a database."""

    #: The server's time in seconds.
    now: int
    filled: frozenset[str]
    #: When tables were last written, in seconds; None: not known.
    written: dict[str, int | None]
    #: What the AUTO_INCREMENT counter or the sequence of that name gives next.
    ids: dict[str, int]


class MySQLRestorer(Restorer):
    """See :class:`pytest_asyncdb.abc.Restorer`.

    Args:
        live: Statements after which information_schema tells counters as they are now.
    """

    def __init__(self, sql: Sql, database: str, template: str, live: Sequence[str]) -> None:
        self._sql = sql
        self._database = database
        self._template = template
        self._live = live

    async def remember(self) -> None:
        patience = f"lock_wait_timeout = {_PATIENCE}, innodb_lock_wait_timeout = {_PATIENCE}"
        await self._sql.script([SETTLE, f"SET {patience}", *self._live])
        self._ddl = await self._count_ddl()
        definitions = await define(self._sql, self._database)
        self._lasting = definitions.lasting
        self._tables = definitions.names(*TABLES)
        self._versioned = frozenset(definitions.names("SYSTEM VERSIONED"))
        self._sequences = definitions.names("SEQUENCE")
        self._triggers = bool(definitions.names("TRIGGER"))
        self._columns = await stored_columns(self._sql, self._database)
        self._keys = await self._primary_keys()
        self._query = self._probe()
        self._start = await self._state()
        filled = [name for name in self._tables if name in self._start.filled]
        self._sums = await self._checksums(filled)
        #: The second at which a table was last seen as it should be.
        self._seen = dict.fromkeys(filled, self._start.now)
        self._few, self._next = await self._sizes(filled)

    async def changed(self) -> Sequence[str]:
        try:
            ddl = await self._count_ddl()
            state = await self._state()
        except Exception:
            # A table that is gone makes the query fail.
            if await self._redefined():
                return ("schema",)
            raise
        # ALTER TABLE may also have changed rows: it truncates and exchanges partitions.
        distrust = ddl != self._ddl
        if distrust and await self._redefined():
            return ("schema",)
        self._ddl = ddl
        tables = await self._changed_tables(state, distrust)
        return (
            *(f"table {name}" for name in self._tables if name in tables),
            *(f"ids of {name}" for name in self._moved(state)),
        )

    async def restore(self, changed: Sequence[str]) -> bool:
        for attempt in range(_ATTEMPTS):
            rows = [name for name in self._tables if f"table {name}" in changed]
            ids = [name for name in self._start.ids if f"ids of {name}" in changed]
            if "schema" in changed or (self._versioned & set(rows) & set(self._sums)):
                return False
            large = [name for name in rows if name in self._sums and name not in self._few]
            repairs = [s for t in rows if t in self._sums for s in self._refill(t, ids, attempt)]
            repairs += [s for t in rows if t not in self._sums for s in self._empty(t, ids)]
            try:
                await self._run([*repairs, *self._restart(ids, rows)])
            except Exception:
                # Somebody's lock, or a trigger that forbids it.
                return False
            if not (self._triggers or large):
                return True
            changed = await self.changed()
            if not changed:
                return True
        return False

    async def restart_ids(self) -> None:
        state = await self._state()
        moved = self._moved(state)
        empty = [name for name in moved if name in self._start.written and name not in state.filled]
        truncate = [name for name in empty if self._truncatable(name)]
        await self._run(
            [
                *(f"TRUNCATE TABLE {quoted(self._database, name)}" for name in truncate),
                *self._restart(moved, truncate),
            ]
        )

    # What is there.

    async def _count_ddl(self) -> int:
        return sum(int(value) for _, value in await self._sql.fetch(_DDL))

    async def _redefined(self) -> bool:
        try:
            return (await define(self._sql, self._database)).lasting != self._lasting
        except Exception:
            # A view whose table is gone, a database that is gone.
            return True

    def _probe(self) -> str:
        def source(name: str) -> str:
            history = " FOR SYSTEM_TIME ALL" if name in self._versioned else ""
            return quoted(self._database, name) + history

        here = literal(self._database)
        return " UNION ALL ".join(
            [
                "SELECT 'now', NULL, unix_timestamp(), NULL",
                "SELECT 'table', table_name, "
                "CASE WHEN engine = 'InnoDB' THEN unix_timestamp(update_time) END, auto_increment "
                f"FROM information_schema.tables WHERE table_schema = {here}",
                *(
                    f"(SELECT 'row', {literal(name)}, NULL, NULL FROM {source(name)} LIMIT 1)"
                    for name in self._tables
                ),
                *(
                    f"SELECT 'sequence', {literal(name)}, NULL, next_not_cached_value "
                    f"FROM {source(name)}"
                    for name in self._sequences
                ),
            ]
        )

    async def _state(self) -> _State:
        now = 0
        filled = set()
        written: dict[str, int | None] = {}
        ids = {}
        counting = self._counting
        for kind, name, time, number in await self._sql.fetch(self._query):
            if kind == "now":
                now = int(time)
            elif kind == "row":
                filled.add(name)
            elif kind == "sequence":
                ids[name] = int(number)
            else:
                written[name] = None if time is None else int(time)
                if name in counting:
                    # After TRUNCATE MySQL knows none.
                    ids[name] = int(number or 1)
        return _State(now, frozenset(filled), written, ids)

    async def _primary_keys(self) -> dict[str, list[str]]:
        keys: dict[str, list[str]] = {}
        for table, column in await self._sql.fetch(
            "SELECT table_name, column_name FROM information_schema.key_column_usage "
            f"WHERE table_schema = {literal(self._database)} AND constraint_name = 'PRIMARY' "
            "ORDER BY table_name, ordinal_position"
        ):
            keys.setdefault(table, []).append(column)
        counting = await self._sql.fetch(
            "SELECT table_name, column_name FROM information_schema.columns WHERE "
            f"table_schema = {literal(self._database)} AND extra LIKE '%auto_increment%'"
        )
        self._counting: dict[str, str] = {table: column for table, column in counting}  # noqa: C416
        return keys

    async def _sizes(self, filled: Sequence[str]) -> tuple[frozenset[str], dict[str, int]]:
        """The seeded tables with few rows, and what would follow the largest id of each."""
        few = set()
        following = {}
        for name in filled:
            column = self._counting.get(name)
            largest = f"coalesce(max({quoted(column)}), 0) + 1" if column else "0"
            ((rows, number),) = await self._sql.fetch(
                f"SELECT count(*), {largest} FROM {quoted(self._database, name)}"
            )
            if rows <= _FEW:
                few.add(name)
            following[name] = int(number)
        return frozenset(few), following

    async def _checksums(self, tables: Sequence[str]) -> dict[str, int | None]:
        if not tables:
            return {}
        names = ", ".join(quoted(self._database, name) for name in tables)
        rows = await self._sql.fetch(f"CHECKSUM TABLE {names}")
        return {name: row[1] for name, row in zip(tables, rows, strict=True)}

    async def _changed_tables(self, state: _State, distrust: bool) -> set[str]:
        changed = set(state.filled ^ self._start.filled)
        doubtful = []
        for name, seen in self._seen.items():
            written = state.written.get(name)
            # A change in the second of the look may have come after it.
            if name not in changed and (distrust or written is None or written >= seen):
                doubtful.append(name)
        for name, value in (await self._checksums(doubtful)).items():
            if value != self._sums[name]:
                changed.add(name)
            else:
                self._seen[name] = state.now
        return changed

    def _moved(self, state: _State) -> list[str]:
        return [name for name, start in self._start.ids.items() if state.ids.get(name) != start]

    # What puts it back.

    async def _run(self, statements: Sequence[str]) -> None:
        if statements:
            self._ddl += sum(statement.startswith("ALTER") for statement in statements)
            await self._sql.script(statements)

    def _truncatable(self, name: str) -> bool:
        """Does TRUNCATE put the counter right? Then it is the fastest, and fires no trigger."""
        start = self._next.get(name, 1)
        return self._start.ids.get(name) == start and name not in self._versioned

    def _empty(self, name: str, ids: Sequence[str]) -> list[str]:
        table = quoted(self._database, name)
        if name in ids and self._truncatable(name):
            return [f"TRUNCATE TABLE {table}"]
        history = [f"DELETE HISTORY FROM {table}"] if name in self._versioned else []
        return [f"DELETE FROM {table}", *history]

    def _refill(self, name: str, ids: Sequence[str], attempt: int) -> list[str]:
        insert = insert_all(name, self._columns[name], self._template, self._database)
        if name in self._few or attempt > 0 or name not in self._keys:
            return [*self._empty(name, ids), insert]
        return self._differences(name)

    def _differences(self, name: str) -> list[str]:
        here, there = quoted(self._database, name), quoted(self._template, name)
        keys, columns = self._keys[name], self._columns[name]
        join = " AND ".join(f"d.{quoted(key)} = s.{quoted(key)}" for key in keys)
        same = " AND ".join(_same(quoted(column), kind) for column, kind in columns.items())
        names = ", ".join(map(quoted, columns))
        values = ", ".join(f"s.{quoted(column)}" for column in columns)
        return [
            f"DELETE d FROM {here} AS d LEFT JOIN {there} AS s ON {join} "
            f"WHERE s.{quoted(keys[0])} IS NULL OR NOT ({same})",
            f"INSERT INTO {here} ({names}) SELECT {values} FROM {there} AS s "
            f"LEFT JOIN {here} AS d ON {join} WHERE d.{quoted(keys[0])} IS NULL",
        ]

    def _restart(self, ids: Iterable[str], emptied: Sequence[str]) -> list[str]:
        """Put counters back that TRUNCATE has not put back."""
        statements = []
        for name in ids:
            there, start = quoted(self._database, name), self._start.ids[name]
            if name in self._sequences:
                statements.append(f"ALTER SEQUENCE {there} RESTART WITH {start}")
            elif not (name in emptied and self._truncatable(name)):
                statements.append(f"ALTER TABLE {there} AUTO_INCREMENT = {start}")
        return statements


def _same(column: str, kind: str) -> str:
    if kind in _TEXTS:
        return f"CAST(d.{column} AS BINARY) <=> CAST(s.{column} AS BINARY)"
    return f"d.{column} <=> s.{column}"
