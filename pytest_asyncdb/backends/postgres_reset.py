"""Finds what changed in a PostgreSQL database, and restores it.

Every row, also of a catalog, holds the number of the transaction that wrote it (``xmin``). A table
is unchanged if the number of its rows and its youngest ``xmin`` are unchanged: an inserted or
updated row has a younger one, and a deleted row is missing. ``age`` compares ``xmin`` with a
transaction of the plugin. That is cheaper than a cast of ``xmin``, which goes through text.
https://www.postgresql.org/docs/current/ddl-system-columns.html

A row that is unchanged is also at the same place (``ctid``). So the plugin deletes younger rows,
and then restores the rows whose place is empty. Values of the user's types are remembered as text,
so that no object of the plugin depends on a type.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

from pytest_asyncdb._record.row_changes import TEXT_SETTINGS
from pytest_asyncdb.abc import IDS, LEFT_OPEN, Restorer, Sql
from pytest_asyncdb.backends import postgres_catalogs

#: The word for changed catalogs.
_SCHEMA = "schema"
#: How long a query waits for locks of other sessions.
_PATIENCE = "3s"
#: How many times to check whether a connection is still in a transaction.
_CLOSING = 25
#: Also switches off the checks of foreign keys.
_NO_TRIGGERS = "SELECT set_config('session_replication_role', 'replica', false)"


@dataclasses.dataclass
class _Table:
    """The remembered state of a table.

    Args:
        columns: The writable columns, see ``TABLES``.
        seen: The number of rows, the difference in age between the youngest row and the plugin's
            transaction, and the number of the file. Empty if the table was empty.
        shadow: A temporary table with the rows of the table and their places.
    """

    name: str
    columns: Sequence[Sequence[str]]
    seen: str = ""
    shadow: str = ""

    @property
    def remembered(self) -> str:
        """Expressions for the columns of *shadow*."""
        return ", ".join(["ctid AS place", *(one for one, _, _ in self.columns)])


class PostgresRestorer(Restorer):
    """Restores one PostgreSQL database, over one connection that stays open."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql
        self._tables: dict[str, _Table] = {}
        #: The position of each sequence, as arguments of ``setval``, by its name.
        self._sequences: dict[str, str] = {}
        #: A query for the rows that show whether the schema has changed.
        self._schema = ""
        #: The number of these rows, and the age of the youngest.
        self._catalogs = ""
        #: The query that returns what differs, and the state of seeded tables.
        self._query = ""
        #: The number of the plugin's transaction. Ages are compared with it.
        self._ours = ""
        #: True if the account may switch triggers off.
        self._replica = False
        #: Are there triggers that it cannot switch off?
        self._always = False

    async def remember(self) -> None:
        ((self._ours, superuser, self._always),) = await self._sql.fetch(
            "SELECT (txid_current() % (2 ^ 32)::bigint)::text, "
            "current_setting('is_superuser') = 'on', "
            "EXISTS (SELECT FROM pg_trigger WHERE tgenabled IN ('A', 'R'))"
        )
        settings = [
            f"SELECT set_config('lock_timeout', '{_PATIENCE}', false), "
            + TEXT_SETTINGS.format("false")
        ]
        # Only once, because after each change of this setting the server plans every statement
        # again.
        try:
            await self._sql.settle([*settings, _NO_TRIGGERS])
            self._replica = True
        except Exception:  # the driver's own: the account may not switch triggers off
            await self._sql.settle(settings)
        self._schema = postgres_catalogs.OF_SCHEMA
        with contextlib.suppress(Exception):  # the extension plpgsql was dropped
            if superuser:
                await self._sql.script([postgres_catalogs.NOTE_DDL])
                self._schema = postgres_catalogs.NOTED
        self._schema += f" UNION ALL {postgres_catalogs.OF_DATABASE}"
        self.unseen = [word for (word,) in await self._sql.fetch(postgres_catalogs.UNSEEN)]
        tables = [_Table(*row) for row in await self._sql.fetch(postgres_catalogs.TABLES)]
        self._tables = {f"table {table.name}": table for table in tables}
        filled = await self._note_rows(tables)
        for number, table in enumerate(filled):
            table.shadow = f"pg_temp.asyncdb_{number}"
            # ONLY: without the rows of tables that inherit from it.
            rows = f"SELECT {table.remembered} FROM ONLY {table.name}"
            await self._sql.script([f"CREATE TEMP TABLE asyncdb_{number} AS {rows}"])
        await self._note_rows(filled)
        values = " UNION ALL ".join(
            f"SELECT {_literal(IDS + name)}, last_value || ', ' || is_called FROM {name}"
            for (name,) in await self._sql.fetch(postgres_catalogs.SEQUENCES)
        )
        self._sequences = dict(await self._sql.fetch(values)) if values else {}
        ((self._catalogs,),) = await self._sql.fetch(
            f"SELECT {self._seen} FROM ({self._schema}) AS c"
        )
        self._query = self._differences()

    async def changed(self) -> Sequence[str]:
        found = await self._look()
        for _ in range(_CLOSING):
            if not any(word.startswith(LEFT_OPEN) for word in found):
                break
            # The server may not have noticed yet that a connection was closed.
            await self._sql.fetch("SELECT pg_sleep(0.02)")
            if not await self._sql.fetch(postgres_catalogs.LEFT):
                found = await self._look()
        return found

    async def restore(self, changed: Sequence[str]) -> bool:
        if any(word.startswith(LEFT_OPEN) for word in changed):
            for _, statement in await self._sql.fetch(postgres_catalogs.LEFT):
                with contextlib.suppress(Exception):  # it has ended meanwhile
                    await self._sql.script([statement])
            changed = await self.changed()
        tables = [self._tables[word] for word in changed if word in self._tables]
        seeded = [table for table in tables if table.shadow]
        unknown = any(word not in self._tables and word not in self._sequences for word in changed)
        if unknown or (seeded and not self._replica):
            return False
        statements = [
            "BEGIN",
            "SET LOCAL lock_timeout = '10s'",
            *_delete([table for table in tables if not table.shadow]),
            *(part for table in seeded for part in self._put_back(table)),
            *(
                f"SELECT setval({_literal(_named(word))}, {self._sequences[word]})"
                for word in changed
                if word in self._sequences
            ),
            "COMMIT",
        ]
        try:
            await self._sql.script(statements)
        except Exception:  # the account may not do it, or another session has a lock
            with contextlib.suppress(Exception):
                await self._sql.script(["ROLLBACK"])
            return False
        await self._note_rows(seeded)
        # If the user's triggers have fired, they may have changed other tables.
        return (self._replica and not self._always) or not await self.changed()

    async def _look(self) -> list[str]:
        try:
            found = await self._sql.fetch(self._query)
        except Exception:  # the driver's own: a table was dropped, or is locked
            return [_SCHEMA, *(word for word, _ in await self._sql.fetch(postgres_catalogs.LEFT))]
        return [
            word
            for word, seen in found
            if word not in self._tables or self._tables[word].seen != seen
        ]

    async def _note_rows(self, tables: Sequence[_Table]) -> list[_Table]:
        """Remember the current rows of some tables. Return the tables that have rows."""
        query = " UNION ALL ".join(map(self._rows_of, tables))
        found = await self._sql.fetch(query) if query else ()
        for word, seen in found:
            self._tables[word].seen = seen
        return [self._tables[word] for word, _ in found]

    def _differences(self) -> str:
        """Return the query of :meth:`changed`. Its text is constant, so that the server plans it
        once."""
        parts = [
            *map(self._rows_of, self._tables.values()),
            *(
                f"SELECT {_literal(word)}, {_literal(value)} FROM {_named(word)} "
                f"WHERE (last_value, is_called) IS DISTINCT FROM ({value})"
                for word, value in self._sequences.items()
            ),
            # One query for all catalogs; several cost 1.5 times as much.
            f"SELECT '{_SCHEMA}', '' FROM ({self._schema}) AS catalogs "
            f"HAVING {self._seen} <> '{self._catalogs}'",
            postgres_catalogs.LEFT,
        ]
        return " UNION ALL ".join(parts)

    @property
    def _seen(self) -> str:
        """An expression for the number of rows and the relative age of the youngest row."""
        return f"count(*) || ':' || coalesce(age('{self._ours}'::xid) - min(age(xmin)), 0)"

    def _rows_of(self, table: _Table) -> str:
        """Return a query for the state of a table; if the table was empty: for whether it has
        rows."""
        word = _literal(f"table {table.name}")
        if table.shadow:
            file = f"pg_relation_filenode({_literal(table.name)})"
            return f"SELECT {word}, {self._seen} || ':' || {file} FROM ONLY {table.name}"
        return f"(SELECT {word}, 'rows' FROM ONLY {table.name} LIMIT 1)"

    def _put_back(self, table: _Table) -> list[str]:
        """Return statements that restore the rows of a seeded table."""
        name, (_, youngest, file) = table.name, table.seen.split(":")
        columns = ", ".join(column for _, column, _ in table.columns)
        values = ", ".join(value for _, _, value in table.columns)
        return [
            f"DELETE FROM ONLY {name} WHERE age('{self._ours}'::xid) - age(xmin) > {youngest} "
            # After VACUUM FULL or TRUNCATE the rows are in another file, at other places.
            f"OR (SELECT pg_relation_filenode({_literal(name)}) <> {file})",
            f"WITH gone AS (DELETE FROM {table.shadow} AS s WHERE NOT EXISTS "
            f"(SELECT FROM ONLY {name} AS t WHERE t.ctid = s.place) RETURNING s.*), "
            f"back AS (INSERT INTO {name}{f' ({columns})' if columns else ''} "
            f"OVERRIDING SYSTEM VALUE SELECT {values} FROM gone RETURNING {table.remembered}) "
            f"INSERT INTO {table.shadow} SELECT * FROM back",
        ]


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _named(word: str) -> str:
    """Return the table or sequence that a word names."""
    return word.partition(" ")[2]


def _delete(tables: Sequence[_Table]) -> list[str]:
    """Return one statement that empties the tables, because foreign keys are checked at its end."""
    parts = [f"d{n} AS (DELETE FROM ONLY {table.name})" for n, table in enumerate(tables)]
    return [f"WITH {', '.join(parts)} SELECT"] if parts else []
