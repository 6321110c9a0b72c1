"""Puts a MySQL or MariaDB database back to its template.

Three queries in one round trip show what may have changed, whoever changed it: the tables that have
rows now and had none, the times of the last writes, the AUTO_INCREMENT counters, and the number of
DDL statements that the server has run. Only what these point at is compared in detail.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

from pytest_asyncdb.abc import LEFT_OPEN, Restorer, Sql
from pytest_asyncdb.backends.mysql_dump import SETTLE, insert_all, quoted
from pytest_asyncdb.backends.mysql_tables import DDL, INNODB, Catalog, State, count_ddl, left_open

#: Seconds that a statement waits for the locks of other sessions.
_PATIENCE = 3
#: Tables with at most this many rows are emptied and filled again; larger ones are compared.
_FEW = 1000
#: Attempts, as the user's triggers may change what was put back.
_ATTEMPTS = 3
#: Types whose values may compare equal although they differ.
_TEXTS = ("char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set", "json")


class MySQLRestorer(Restorer):
    """See :class:`pytest_asyncdb.abc.Restorer`.

    Args:
        live: Statements after which information_schema shows the present counters.
    """

    def __init__(self, sql: Sql, database: str, template: str, live: Sequence[str]) -> None:
        self._sql = sql
        self._database = database
        self._template = template
        self._live = live
        #: The query for the transactions of other sessions, if the account may see them.
        self._others = [INNODB]

    async def remember(self) -> None:
        patience = f"lock_wait_timeout = {_PATIENCE}, innodb_lock_wait_timeout = {_PATIENCE}"
        await self._sql.script([SETTLE, f"SET {patience}", *self._live])
        try:
            await self._sql.fetch(INNODB)
        except Exception:
            self._others = []
        self._ddl = count_ddl(await self._sql.fetch(DDL))
        self._catalog = await Catalog.of(self._sql, self._database)
        self._start = await self._catalog.state()
        self._catalog.narrow_probe(self._start)
        seeded = [name for name in self._catalog.tables if name in self._start.filled]
        self._sums = await self._catalog.checksums(seeded)
        #: The second at which a table last equalled the template.
        self._seen = dict.fromkeys(seeded, self._start.now)
        sizes = {name: await self._catalog.size(name) for name in seeded}
        self._large = {name for name, (rows, _) in sizes.items() if rows > _FEW}
        #: Tables whose counter is right after TRUNCATE and INSERT.
        self._truncatable = {
            name
            for name, start in self._start.ids.items()
            if name in self._catalog.counting and name not in self._catalog.versioned
            if name not in self._large and start == sizes.get(name, (0, 1))[1]
        }

    async def changed(self) -> Sequence[str]:
        return await self._look(self._others)

    async def _look(self, others: Sequence[str] = ()) -> Sequence[str]:
        try:
            *statuses, ddls, rows = await self._sql.script([*others, DDL, self._catalog.probe])
        except Exception:
            # The probe fails if a table was dropped.
            if not await self._catalog.redefined():
                raise
            statuses = [await self._sql.fetch(query) for query in others]
            found: Sequence[str] = ("schema",)
        else:
            found = await self._differing(count_ddl(ddls), self._catalog.read(rows))
        left = [
            x for status in statuses for x in await left_open(self._sql, self._database, status)
        ]
        return (*(f"{LEFT_OPEN}{number}: {what}" for number, what in left), *found)

    async def _differing(self, ddl: int, state: State) -> Sequence[str]:
        # ALTER TABLE may have changed rows, too: it can truncate and exchange partitions.
        distrust = ddl != self._ddl
        if distrust and await self._catalog.redefined():
            return ("schema",)
        self._ddl = ddl
        tables = await self._changed_tables(state, distrust)
        return (
            *(f"table {name}" for name in self._catalog.tables if name in tables),
            *(f"ids of {name}" for name in self._moved(state)),
        )

    async def restore(self, changed: Sequence[str]) -> bool:
        left = [word for word in changed if word.startswith(LEFT_OPEN)]
        if left:
            for word in left:
                with contextlib.suppress(Exception):  # it has ended meanwhile
                    await self._sql.script([f"KILL {word.removeprefix(LEFT_OPEN).split(':')[0]}"])
            changed = await self._look()
        for attempt in range(_ATTEMPTS):
            ids = [name for name in self._start.ids if f"ids of {name}" in changed]
            restarted = self._truncatable.intersection(ids)
            tables = [
                name
                for name in self._catalog.tables
                if f"table {name}" in changed or name in restarted
            ]
            seeded = self._sums.keys() & tables
            if "schema" in changed or self._catalog.versioned & seeded:
                return False
            if seeded and self._template == self._database:
                return False  # the rows exist nowhere else
            # INSERT may fire triggers that fill other tables.
            tables.sort(key=lambda name: name not in seeded)
            statements = [s for t in tables for s in self._put_back(t, t in restarted, attempt)]
            statements += [self._restart(name) for name in ids if name not in restarted]
            try:
                await self._run(statements)
            except Exception:
                # A lock of another session, or a trigger that forbids it.
                return False
            if not (self._catalog.triggers or self._large & seeded):
                return True
            changed = await self._look()
            if not changed:
                return True
        return False

    async def _changed_tables(self, state: State, distrust: bool) -> set[str]:
        changed = set(state.filled ^ self._start.filled)
        doubtful = []
        for name, seen in self._seen.items():
            written = state.written.get(name)
            # A write in the second of the last look may have come after it.
            if name not in changed and (distrust or written is None or written >= seen):
                doubtful.append(name)
        for name, value in (await self._catalog.checksums(doubtful)).items():
            if value != self._sums[name]:
                changed.add(name)
            else:
                self._seen[name] = state.now
        return changed

    def _moved(self, state: State) -> list[str]:
        return [name for name, start in self._start.ids.items() if state.ids.get(name) != start]

    async def _run(self, statements: Iterable[str]) -> None:
        statements = list(statements)
        if statements:
            self._ddl += sum(statement.startswith("ALTER") for statement in statements)
            await self._sql.script(statements)

    def _put_back(self, name: str, restart: bool, attempt: int) -> list[str]:
        """Statements that give a table its rows, and with *restart* its counter."""
        if name in self._large and name in self._catalog.keys and attempt == 0:
            return self._differences(name)
        # TRUNCATE costs more than DELETE, less than ALTER, and fires no trigger.
        statements = [f"{'TRUNCATE' if restart else 'DELETE FROM'} {quoted(self._database, name)}"]
        if name in self._catalog.versioned:
            statements.append(f"DELETE HISTORY FROM {quoted(self._database, name)}")
        if name in self._sums:
            columns = self._catalog.columns[name]
            statements.append(insert_all(name, columns, self._template, self._database))
        return statements

    def _differences(self, name: str) -> list[str]:
        here, there = quoted(self._database, name), quoted(self._template, name)
        keys, columns = self._catalog.keys[name], self._catalog.columns[name]
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

    def _restart(self, name: str) -> str:
        there, start = quoted(self._database, name), self._start.ids[name]
        if name in self._catalog.sequences:
            return f"ALTER SEQUENCE {there} RESTART WITH {start}"
        return f"ALTER TABLE {there} AUTO_INCREMENT = {start}"


def _same(column: str, kind: str) -> str:
    if kind in _TEXTS:
        return f"CAST(d.{column} AS BINARY) <=> CAST(s.{column} AS BINARY)"
    return f"d.{column} <=> s.{column}"
