"""Restores a MySQL or MariaDB database to its template.

Queries in one round trip show what any session may have changed: the tables that have rows now and
had none, the times of the last writes, the AUTO_INCREMENT counters, and the number of DDL
statements that the server has run. Only what these results point at is compared in detail.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from pytest_asyncdb.abc import LEFT_OPEN, Restorer, Sql
from pytest_asyncdb.backends import mysql_dump
from pytest_asyncdb.backends.mysql_dump import TABLES, define, quoted
from pytest_asyncdb.backends.mysql_tables import DDL, INNODB, State, count_ddl, left_open, probe

#: Limits the seconds that a statement waits for the locks of other sessions, and makes MySQL's
#: information_schema show the current counters. For MariaDB the second part is a comment.
_SESSION = (
    "SET lock_wait_timeout = 3, innodb_lock_wait_timeout = 3 "
    "/*!80000 , information_schema_stats_expiry = 0 */"
)
#: Number of attempts, because the user's triggers may change what was restored.
_ATTEMPTS = 3


class MySQLRestorer(Restorer):
    """See :class:`pytest_asyncdb.abc.Restorer`."""

    def __init__(self, sql: Sql, database: str, template: str) -> None:
        self._sql = sql
        self._database = database
        self._template = template
        #: The query for the transactions of other sessions, if the account may see them.
        self._others = [INNODB]

    async def remember(self) -> None:
        await self._sql.settle([mysql_dump.SETTLE, _SESSION])
        try:
            await self._sql.fetch(INNODB)
        except Exception:
            self._others = []
        self._ddl = count_ddl(await self._sql.fetch(DDL))
        self._schema = await define(self._sql, self._database)
        self._columns, self._counting = await mysql_dump.stored_columns(self._sql, self._database)
        self._tables = self._schema.names(*TABLES)
        self._versioned = frozenset(self._schema.names("SYSTEM VERSIONED"))
        self._probe = probe(self._schema, self._database)
        self._start = State.of(await self._sql.script(self._probe), self._counting)
        seeded = [name for name in self._tables if name in self._start.filled]
        self._sums = await self._checksums(seeded)
        #: The second at which each seeded table last equalled the template.
        self._seen = dict.fromkeys(seeded, self._start.now)
        #: Tables that have the right counter after TRUNCATE and INSERT.
        self._truncatable = {
            name
            for name in self._counting
            if name not in self._versioned
            if self._start.ids[name] == (await self._next_id(name) if name in seeded else 1)
        }

    async def changed(self) -> Sequence[str]:
        return await self._look(self._others)

    async def _look(self, others: Sequence[str] = ()) -> Sequence[str]:
        try:
            answers = iter(await self._sql.script([*others, DDL, *self._probe]))
        except Exception:
            # The probe fails if a table was dropped.
            statuses = [await self._sql.fetch(query) for query in others]
            found: Sequence[str] = ("schema",)
        else:
            statuses = [next(answers) for _ in others]
            ddl = count_ddl(next(answers))
            found = await self._differing(ddl, State.of(answers, self._counting))
        return (*await left_open(self._sql, self._database, statuses), *found)

    async def _differing(self, ddl: int, state: State) -> Sequence[str]:
        # ALTER TABLE may have changed rows, too: it can truncate and exchange partitions.
        if distrust := ddl != self._ddl:
            try:
                schema = await define(self._sql, self._database)
            except Exception:  # the database, or the table of a view, was dropped
                return ("schema",)
            if schema.lasting != self._schema.lasting:
                return ("schema",)
        self._ddl = ddl
        tables = await self._changed_tables(state, distrust)
        return (
            *(f"table {name}" for name in self._tables if name in tables),
            *(f"ids of {k}" for k, start in self._start.ids.items() if state.ids.get(k) != start),
        )

    async def restore(self, changed: Sequence[str]) -> bool:
        if left := [word for word in changed if word.startswith(LEFT_OPEN)]:
            for word in left:
                with contextlib.suppress(Exception):  # the connection has ended meanwhile
                    await self._sql.script([f"KILL {word.removeprefix(LEFT_OPEN).split(':')[0]}"])
            changed = await self._look()
        for _ in range(_ATTEMPTS):
            ids = [name for name in self._start.ids if f"ids of {name}" in changed]
            restarted = self._truncatable.intersection(ids)
            tables = [t for t in self._tables if f"table {t}" in changed or t in restarted]
            seeded = self._sums.keys() & tables
            if "schema" in changed or self._versioned & seeded:
                return False
            # Seeded tables come first, because INSERT may fire triggers that fill other tables.
            tables.sort(key=lambda name: name not in seeded)
            statements = [s for t in tables for s in self._put_back(t, t in restarted)]
            restarts = [self._restart(name) for name in ids if name not in restarted]
            self._ddl += len(restarts)
            try:
                await self._sql.script([*statements, *restarts] or ["DO 0"])
            except Exception:
                # Another session, or MySQL's own thread that updates histograms, has a lock; or a
                # trigger forbids the change.
                return False
            changed = await self._look() if self._schema.names("TRIGGER") else ()
            if not changed:
                return True
        return False

    async def _changed_tables(self, state: State, distrust: bool) -> set[str]:
        changed = set(state.filled ^ self._start.filled)
        doubtful = []
        for name, seen in self._seen.items():
            written = state.written.get(name)
            # A write in the same second as the last look may have come after that look.
            if name not in changed and (distrust or written is None or written >= seen):
                doubtful.append(name)
        for name, value in (await self._checksums(doubtful)).items():
            if value != self._sums[name]:
                changed.add(name)
            else:
                self._seen[name] = state.now
        return changed

    def _put_back(self, name: str, restart: bool) -> list[str]:
        """Return statements that give a table its rows, and with *restart* its counter."""
        # TRUNCATE costs more than DELETE, less than ALTER, and fires no trigger.
        statements = [f"{'TRUNCATE' if restart else 'DELETE FROM'} {quoted(self._database, name)}"]
        if name in self._versioned:
            statements.append(f"DELETE HISTORY FROM {quoted(self._database, name)}")
        if name in self._sums:
            statements.append(
                mysql_dump.insert_all(name, self._columns[name], self._template, self._database)
            )
        return statements

    def _restart(self, name: str) -> str:
        there, start = quoted(self._database, name), self._start.ids[name]
        if name in self._counting:
            return f"ALTER TABLE {there} AUTO_INCREMENT = {start}"
        return f"ALTER SEQUENCE {there} RESTART WITH {start}"

    async def _checksums(self, tables: Sequence[str]) -> dict[str, int | None]:
        """Return the server's checksums of all rows of some tables."""
        if not tables:
            return {}
        names = ", ".join(quoted(self._database, name) for name in tables)
        rows = await self._sql.fetch(f"CHECKSUM TABLE {names}")
        return {name: row[1] for name, row in zip(tables, rows, strict=True)}

    async def _next_id(self, table: str) -> int:
        """Return the id that follows the largest one in a table."""
        column = quoted(self._counting[table])
        ((value,),) = await self._sql.fetch(
            f"SELECT coalesce(max({column}), 0) + 1 FROM {quoted(self._database, table)}"
        )
        return int(value)
