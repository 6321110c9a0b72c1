"""Puts a MySQL or MariaDB database back to its template.

Three queries in one round trip show what any session may have changed: the tables that have
rows now and had none, the times of the last writes, the AUTO_INCREMENT counters, and the number of
DDL statements that the server has run. Only what these point at is compared in detail.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from pytest_asyncdb.abc import LEFT_OPEN, Restorer, Sql
from pytest_asyncdb.backends.mysql_dump import SETTLE, insert_all, quoted
from pytest_asyncdb.backends.mysql_tables import DDL, INNODB, Catalog, State, count_ddl, left_open

#: Seconds that a statement waits for the locks of other sessions.
_PATIENCE = 3
#: Attempts, as the user's triggers may change what was put back.
_ATTEMPTS = 3


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
        #: Tables whose counter is right after TRUNCATE and INSERT.
        self._truncatable = {
            name
            for name, start in self._start.ids.items()
            if name in self._catalog.counting and name not in self._catalog.versioned
            if start == (await self._catalog.next_id(name) if name in seeded else 1)
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
            *(f"ids of {k}" for k, start in self._start.ids.items() if state.ids.get(k) != start),
        )

    async def restore(self, changed: Sequence[str]) -> bool:
        left = [word for word in changed if word.startswith(LEFT_OPEN)]
        if left:
            for word in left:
                with contextlib.suppress(Exception):  # it has ended meanwhile
                    await self._sql.script([f"KILL {word.removeprefix(LEFT_OPEN).split(':')[0]}"])
            changed = await self._look()
        for _ in range(_ATTEMPTS):
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
            # INSERT may fire triggers that fill other tables.
            tables.sort(key=lambda name: name not in seeded)
            statements = [s for t in tables for s in self._put_back(t, t in restarted)]
            restarts = [self._restart(name) for name in ids if name not in restarted]
            self._ddl += len(restarts)
            try:
                await self._sql.script([*statements, *restarts] or ["DO 0"])
            except Exception:
                # A lock of another session, or a trigger that forbids it.
                return False
            if not self._catalog.triggers:
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

    def _put_back(self, name: str, restart: bool) -> list[str]:
        """Statements that give a table its rows, and with *restart* its counter."""
        # TRUNCATE costs more than DELETE, less than ALTER, and fires no trigger.
        statements = [f"{'TRUNCATE' if restart else 'DELETE FROM'} {quoted(self._database, name)}"]
        if name in self._catalog.versioned:
            statements.append(f"DELETE HISTORY FROM {quoted(self._database, name)}")
        if name in self._sums:
            columns = self._catalog.columns[name]
            statements.append(insert_all(name, columns, self._template, self._database))
        return statements

    def _restart(self, name: str) -> str:
        there, start = quoted(self._database, name), self._start.ids[name]
        if name in self._catalog.sequences:
            return f"ALTER SEQUENCE {there} RESTART WITH {start}"
        return f"ALTER TABLE {there} AUTO_INCREMENT = {start}"
