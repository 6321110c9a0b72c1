"""How PostgreSQL tells what changed in a database, and how it is put back.

Every row knows the transaction that wrote it (``xmin``), rows of the catalogs too. So a table,
or a catalog, is unchanged where its number of rows and its highest ``xmin`` are: a row that
was inserted or updated has a higher one, and a deleted one is missing.
https://www.postgresql.org/docs/current/ddl-system-columns.html
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pytest_asyncdb.abc import LEFT_OPEN, Restorer, Sql

#: Objects of users have numbers from here on (``FirstNormalObjectId``).
_FIRST = 16384

#: Catalogs that hold the schema, with the column that has the object's number.
_CATALOGS = {
    "pg_class": "oid",
    "pg_attribute": "attrelid",
    "pg_attrdef": "adrelid",
    "pg_constraint": "oid",
    "pg_type": "oid",
    "pg_enum": "oid",
    "pg_proc": "oid",
    "pg_trigger": "oid",
    "pg_rewrite": "oid",
    "pg_namespace": "nspname !~ '^pg_' AND oid",  # those for temporary tables stay
    "pg_sequence": "seqrelid",
    "pg_policy": "oid",
    "pg_extension": "oid",
    "pg_index": "indexrelid",
    "pg_statistic_ext": "oid",
    "pg_collation": "oid",
    "pg_operator": "oid",
    "pg_cast": "oid",
    "pg_description": "objoid",
    "pg_default_acl": "oid",
    "pg_event_trigger": "oid",
    "pg_largeobject_metadata": "oid",
}

#: How often it is looked again whether a connection is still in a transaction.
_CLOSING = 25

#: A word for the connection of a prepared transaction, and what it is told with.
_GONE = "that is gone"
_PREPARED = "'PREPARE TRANSACTION '"

_SEEN = "count(*) || ':' || coalesce(max(xmin::text::bigint), 0)"

_TABLES = """
SELECT c.oid::bigint, format('%I.%I', n.nspname, c.relname),
    (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
     FROM pg_attribute a
     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''),
    (SELECT string_agg(format('t.%1$I = s.%1$I', a.attname), ' AND ')
     FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
     WHERE i.indrelid = c.oid AND i.indisprimary)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname <> 'information_schema'
    AND n.nspname NOT LIKE 'pg\\_%'
ORDER BY c.oid
"""

_SEQUENCES = """
SELECT c.oid::bigint, format('%I.%I', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname NOT LIKE 'pg\\_%'
ORDER BY c.oid
"""

#: Who may hold locks, or hold up an end: connections in a transaction, and transactions that
#: are prepared, which have no connection any more.
_LEFT = f"""
SELECT '{LEFT_OPEN}' || pid, state || ': ' || left(query, 80) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND backend_type = 'client backend' AND state <> 'idle'
UNION ALL SELECT '{LEFT_OPEN}{_GONE}', {_PREPARED} || quote_literal(gid)
FROM pg_prepared_xacts WHERE database = current_database()
"""


@dataclasses.dataclass
class _Table:
    """A table as it was remembered.

    Args:
        columns: Those that can be written.
        key: How a row ``t`` equals a row ``s``; None: there is no primary key.
        seen: Number of rows and highest ``xmin``; None where it was empty.
        shadow: A temporary table with its rows.
    """

    name: str
    columns: str
    key: str | None
    seen: str | None = None
    shadow: str = ""

    @property
    def highest(self) -> str:
        assert self.seen is not None
        return self.seen.partition(":")[2]


class PostgresRestorer(Restorer):
    """Puts one PostgreSQL database back, over one connection that is kept."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql
        self._tables: dict[str, _Table] = {}
        #: Where each sequence stood, as arguments of ``setval``, by its name.
        self._sequences: dict[str, str] = {}
        #: Its rows are what differs, and seeded tables as they are.
        self._query = ""
        #: May this role keep triggers from firing?
        self._replica = False

    async def remember(self) -> None:
        tables = [_Table(*row[1:]) for row in await self._sql.fetch(_TABLES)]
        self._tables = {f"table {table.name}": table for table in tables}
        filled = await self._fetch(_is_filled(table) for table in tables)
        for number, word in enumerate(filled):
            table = self._tables[word]
            table.shadow = f"pg_temp.asyncdb_{number}"
            # ONLY: the rows of tables that inherit from it are theirs.
            await self._sql.script(
                [f"CREATE TEMP TABLE asyncdb_{number} AS SELECT * FROM ONLY {table.name}"]
            )
        self._replica = await self._be_replica()
        await self._note_rows(filled)
        names = [name for _, name in await self._sql.fetch(_SEQUENCES)]
        values = " UNION ALL ".join(
            f"SELECT {_literal(f'ids {name}')}, last_value || ', ' || is_called FROM {name}"
            for name in names
        )
        self._sequences = dict(await self._sql.fetch(values)) if values else {}
        catalogs = " UNION ALL ".join(
            f"SELECT '{name}', {_SEEN} FROM {name} WHERE {column} >= {_FIRST}"
            for name, column in _CATALOGS.items()
        )
        self._query = self._differences(dict(await self._sql.fetch(catalogs)))

    async def changed(self) -> Sequence[str]:
        found = await self._look()
        for _ in range(_CLOSING):
            if not any(word.startswith(LEFT_OPEN) for word in found):
                break
            # The server may not have read yet that a connection was closed.
            await self._sql.fetch("SELECT pg_sleep(0.02)")
            found = await self._look()
        return found

    async def restore(self, changed: Sequence[str]) -> bool:
        left = [word.removeprefix(LEFT_OPEN) for word in changed if word.startswith(LEFT_OPEN)]
        if left:
            await self._end(left)
            changed = await self.changed()
        if any(word not in self._tables and word not in self._sequences for word in changed):
            return False
        tables = [self._tables[word] for word in changed if word in self._tables]
        seeded = [word for word in changed if word in self._tables and self._tables[word].shadow]
        if seeded and not self._replica:
            return False
        await self._sql.script(
            [
                "BEGIN",
                "SET LOCAL lock_timeout = '10s'",
                *_delete([table for table in tables if not table.shadow]),
                *(part for table in tables if table.shadow for part in _put_back(table)),
                *self._setval(word for word in changed if word in self._sequences),
                "COMMIT",
            ]
        )
        await self._note_rows(seeded)
        # Where triggers of the user have fired, they may have written elsewhere.
        return self._replica or not await self.changed()

    async def _end(self, left: Sequence[str]) -> None:
        """End connections, and prepared transactions, as :data:`_LEFT` tells them."""
        pids = [word.partition(":")[0] for word in left if not word.startswith(_GONE)]
        if pids:
            # Its second argument, to wait, is of version 14; changed() waits.
            await self._sql.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE datname = current_database() AND pid IN ({', '.join(pids)})"
            )
        for word in left:
            if word.startswith(_GONE):
                name = word.partition(_PREPARED.strip("'"))[2]
                await self._sql.script([f"ROLLBACK PREPARED {name}"])

    async def restart_ids(self) -> None:
        moved = [word for word in await self.changed() if word in self._sequences]
        if moved:
            await self._sql.script(list(self._setval(moved)))

    async def _look(self) -> list[str]:
        from sqlalchemy.exc import DBAPIError

        try:
            found = await self._sql.fetch(self._query)
        except DBAPIError:  # a table is not there any more, or is locked
            return ["schema"]
        return [
            f"{word}: {seen}" if word.startswith(LEFT_OPEN) else word
            for word, seen in found
            if word not in self._tables or self._tables[word].seen != seen
        ]

    def _setval(self, words: Iterable[str]) -> Iterable[str]:
        return [
            f"SELECT setval({_literal(word.removeprefix('ids '))}, {self._sequences[word]})"
            for word in words
        ]

    async def _fetch(self, parts: Iterable[str]) -> list[str]:
        query = " UNION ALL ".join(parts)
        return [row[0] for row in await self._sql.fetch(query)] if query else []

    async def _note_rows(self, words: Sequence[str]) -> None:
        """Remember the rows of tables as they are now."""
        query = " UNION ALL ".join(_seen(self._tables[word]) for word in words)
        for word, value in await self._sql.fetch(query) if query else ():
            self._tables[word].seen = value

    def _differences(self, catalogs: Mapping[str, str]) -> str:
        """The query of :meth:`changed`. Its text stays, so that the server plans it once.

        Args:
            catalogs: What was seen in each.
        """
        tables = self._tables.values()
        return " UNION ALL ".join(
            [
                *(_is_filled(table) for table in tables if not table.shadow),
                *(_seen(table) for table in tables if table.shadow),
                *(
                    f"SELECT {_literal(word)}, '' FROM {word.removeprefix('ids ')} "
                    f"WHERE (last_value, is_called) IS DISTINCT FROM ({value})"
                    for word, value in self._sequences.items()
                ),
                *(
                    f"SELECT 'schema ({name})', '' FROM {name} WHERE {_CATALOGS[name]} >= {_FIRST} "
                    f"HAVING {_SEEN} <> '{seen}'"
                    for name, seen in catalogs.items()
                ),
                _LEFT,
            ]
        )

    async def _be_replica(self) -> bool:
        """Keep triggers from firing for what this connection does, if it may.

        For good: each change of the role makes the server plan everything anew.
        """
        from sqlalchemy.exc import DBAPIError

        try:
            await self._sql.fetch("SELECT set_config('session_replication_role', 'replica', false)")
        except DBAPIError:
            return False
        return True


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _is_filled(table: _Table) -> str:
    word = _literal(f"table {table.name}")
    return f"SELECT {word}, 'rows' WHERE EXISTS (SELECT FROM ONLY {table.name})"


def _seen(table: _Table) -> str:
    return f"SELECT {_literal(f'table {table.name}')}, {_SEEN} FROM ONLY {table.name}"


def _delete(tables: Sequence[_Table]) -> list[str]:
    """One statement: foreign keys are checked at its end, whatever their direction."""
    if not tables:
        return []
    parts = [f"d{n} AS (DELETE FROM ONLY {table.name})" for n, table in enumerate(tables)]
    return [f"WITH {', '.join(parts)} SELECT"]


def _put_back(table: _Table) -> list[Any]:
    insert = (
        f"INSERT INTO {table.name} ({table.columns}) OVERRIDING SYSTEM VALUE "
        f"SELECT {table.columns} FROM {table.shadow} s"
    )
    if table.key is None:
        return [f"DELETE FROM ONLY {table.name}", insert]
    return [
        f"DELETE FROM ONLY {table.name} WHERE xmin::text::bigint > {table.highest}",
        f"{insert} WHERE NOT EXISTS (SELECT FROM ONLY {table.name} t WHERE {table.key})",
    ]
