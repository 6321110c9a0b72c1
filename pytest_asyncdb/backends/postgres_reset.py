"""Finds what changed in a PostgreSQL database, and puts it back.

Every row, also of a catalog, holds the number of the transaction that wrote it (``xmin``). A table
is unchanged if the number of its rows and its youngest ``xmin`` are: an inserted or updated row has
a younger one, and a deleted row is missing. ``age`` compares ``xmin`` with a transaction of the
plugin; it is cheaper than a cast of ``xmin``, which goes through text.
https://www.postgresql.org/docs/current/ddl-system-columns.html
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from pytest_asyncdb.abc import LEFT_OPEN, LEFT_TEXT, VACUUM_EVERY, Restorer, Sql

#: The lowest oid of an object that a user creates (``FirstNormalObjectId``).
_FIRST = 16384

#: Catalogs that hold the schema, with the column that holds the object's oid.
_CATALOGS = {
    "pg_class": "oid",
    "pg_attribute": "attnum > 0 AND attrelid",
    "pg_attrdef": "adrelid",
    "pg_constraint": "oid",
    "pg_type": "oid",
    "pg_enum": "oid",
    "pg_proc": "pronamespace <> pg_my_temp_schema() AND oid",
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

#: A query for the rows of all catalogs that describe the user's schema.
_OF_SCHEMA = " UNION ALL ".join(
    f"SELECT xmin FROM {name} WHERE {column} >= {_FIRST}" for name, column in _CATALOGS.items()
)

#: How often to check again whether a connection is still in a transaction.
_CLOSING = 25

#: Stand for the connection of a prepared transaction, and for its statement.
_GONE = "that is gone"
_PREPARED = "'PREPARE TRANSACTION '"


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

#: What may hold locks: connections in a transaction, and prepared transactions, which have no
#: connection any more.
_LEFT = f"""
SELECT '{LEFT_OPEN}' || pid, state || ': ' || left(query, {LEFT_TEXT}) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND backend_type = 'client backend' AND state <> 'idle'
UNION ALL SELECT '{LEFT_OPEN}{_GONE}', {_PREPARED} || quote_literal(gid)
FROM pg_prepared_xacts WHERE database = current_database()
"""

#: How long a query waits for the locks of other sessions.
_PATIENCE = "3s"

#: The word for changed catalogs.
_SCHEMA = "schema"

#: What the query returns for a table that was empty and has rows, and the word for "everything
#: is put back".
_ROWS = "rows"
_DONE = "done"

#: In one round trip, finds what changed, empties the tables that were empty, and sets sequences
#: back. If anything else has changed, it only returns the changes. The query always returns seeded
#: tables; *known* holds those that are unchanged. Without *ids*, sequences are ignored. The server
#: plans each statement once, as no text is composed at run time.
_PUT_BACK = """
CREATE FUNCTION pg_temp.asyncdb_put_back(known text[], ids boolean)
RETURNS TABLE (word text, seen text) LANGUAGE plpgsql AS $asyncdb$
DECLARE
    filled text[] := '{{}}';
    moved text[] := '{{}}';
    starts text[] := '{{}}';
    here bigint;
    only_these boolean := true;
BEGIN
    FOR word, seen IN {query} LOOP
        IF seen = '{rows}' THEN
            filled := filled || word;
        ELSIF word LIKE 'ids %' THEN
            CONTINUE WHEN NOT ids;
            moved := moved || substr(word, 5);
            starts := starts || seen;
        ELSIF word || ' ' || seen = ANY (known) THEN
            CONTINUE;
        ELSE
            only_these := false;
        END IF;
        RETURN NEXT;
    END LOOP;
    IF only_these THEN
        FOREACH word IN ARRAY filled LOOP
            {delete}
        END LOOP;
        FOR n IN 1..cardinality(moved) LOOP
            here := setval(moved[n]::regclass, split_part(starts[n], ', ', 1)::bigint,
                split_part(starts[n], ', ', 2)::boolean);
        END LOOP;
        word := '{done}';
        RETURN NEXT;
    END IF;
END $asyncdb$
"""


@dataclasses.dataclass
class _Table:
    """The remembered state of a table.

    Args:
        columns: The writable columns.
        key: The condition that row ``t`` has the key of row ``s``; None: there is no primary key.
        seen: The number of rows, and by how much the youngest is younger than the plugin's
            transaction; None: the table was empty.
        shadow: A temporary table with its rows.
    """

    name: str
    columns: str
    key: str | None
    seen: str | None = None
    shadow: str = ""

    @property
    def youngest(self) -> str:
        assert self.seen is not None
        return self.seen.partition(":")[2]


class PostgresRestorer(Restorer):
    """Puts one PostgreSQL database back, over one connection that stays open.

    Args:
        vacuum: Removes dead rows.
    """

    vacuum_every: ClassVar[int] = VACUUM_EVERY

    def __init__(self, sql: Sql, vacuum: str) -> None:
        self._sql = sql
        self._vacuum = vacuum
        self._tables: dict[str, _Table] = {}
        #: Where each sequence stood, as arguments of ``setval``, by its name.
        self._sequences: dict[str, str] = {}
        #: The number of rows in all catalogs and the age of the youngest.
        self._catalogs = ""
        #: Returns what differs, and the state of seeded tables.
        self._query = ""
        #: The plugin's transaction, with which ages are compared.
        self._ours = ""
        #: May the account switch triggers off?
        self._replica = False
        #: Does the function exist that does everything in one round trip?
        self._function = False
        #: The number of tests since the last VACUUM.
        self._tests = 0

    async def remember(self) -> None:
        ((self._ours, direct, _),) = await self._sql.fetch(
            "SELECT (txid_current() % (2 ^ 32)::bigint)::text, "
            "to_regproc('pg_catalog.pg_get_sequence_data') IS NOT NULL, "
            f"set_config('lock_timeout', '{_PATIENCE}', false)"
        )
        tables = [_Table(*row[1:]) for row in await self._sql.fetch(_TABLES)]
        self._tables = {f"table {table.name}": table for table in tables}
        filled = await self._fetch(_is_filled(table) for table in tables)
        for number, word in enumerate(filled):
            table = self._tables[word]
            table.shadow = f"pg_temp.asyncdb_{number}"
            # ONLY: without the rows of tables that inherit from it.
            await self._sql.script(
                [f"CREATE TEMP TABLE asyncdb_{number} AS SELECT * FROM ONLY {table.name}"]
            )
        self._replica = await self._be_replica()
        await self._note_rows(filled)
        numbers = {f"ids {name}": oid for oid, name in await self._sql.fetch(_SEQUENCES)}
        values = " UNION ALL ".join(
            f"SELECT {_literal(word)}, last_value || ', ' || is_called FROM {_named(word)}"
            for word in numbers
        )
        self._sequences = dict(await self._sql.fetch(values)) if values else {}
        ((self._catalogs,),) = await self._sql.fetch(
            f"SELECT {self._seen} FROM ({_OF_SCHEMA}) AS c"
        )
        moved = self._moved_by_number(numbers) if direct else self._moved()
        self._query = self._differences(moved)
        self._function = self._replica and await self._make_function()

    async def put_back(self, ids: bool) -> tuple[Sequence[str], bool]:
        self._tests += 1
        if self._tests >= self.vacuum_every:
            self._tests = 0
            with contextlib.suppress(Exception):  # the next tests are slower
                await self._sql.script([self._vacuum])
        if self._function:
            seeded = ((word, table) for word, table in self._tables.items() if table.shadow)
            known = ", ".join(_literal(f"{word} {table.seen}") for word, table in seeded)
            # If it fails, the query below fails, too, and says why.
            with contextlib.suppress(Exception):
                *found, (last, _) = await self._sql.ask(
                    f"SELECT * FROM pg_temp.asyncdb_put_back(ARRAY[{known}]::text[], {ids})"
                )
                if last == _DONE:
                    return [word for word, _ in found], True
        return await super().put_back(ids)

    async def changed(self) -> Sequence[str]:
        found = await self._look()
        for _ in range(_CLOSING):
            if not any(word.startswith(LEFT_OPEN) for word in found):
                break
            # The server may not have noticed yet that a connection was closed.
            await self._sql.fetch("SELECT pg_sleep(0.02)")
            if not await self._sql.fetch(_LEFT):
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
                *(part for table in tables if table.shadow for part in self._put_back(table)),
                *self._setval(word for word in changed if word in self._sequences),
                "COMMIT",
            ]
        )
        await self._note_rows(seeded)
        # The user's triggers, if they have fired, may have changed other tables.
        return self._replica or not await self.changed()

    async def _end(self, left: Sequence[str]) -> None:
        """End connections and prepared transactions, as :data:`_LEFT` returns them."""
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

    async def _look(self) -> list[str]:
        from sqlalchemy.exc import DBAPIError

        try:
            found = await self._sql.fetch(self._query)
        except DBAPIError:  # a table was dropped, or is locked
            return [_SCHEMA, *(f"{word}: {seen}" for word, seen in await self._sql.fetch(_LEFT))]
        return [
            f"{word}: {seen}" if word.startswith(LEFT_OPEN) else word
            for word, seen in found
            if word not in self._tables or self._tables[word].seen != seen
        ]

    def _setval(self, words: Iterable[str]) -> Iterable[str]:
        return [
            f"SELECT setval({_literal(_named(word))}, {self._sequences[word]})" for word in words
        ]

    async def _fetch(self, parts: Iterable[str]) -> list[str]:
        query = " UNION ALL ".join(parts)
        return [row[0] for row in await self._sql.fetch(query)] if query else []

    async def _note_rows(self, words: Sequence[str]) -> None:
        """Remember the present rows of some tables."""
        query = " UNION ALL ".join(self._seen_in(self._tables[word]) for word in words)
        for word, value in await self._sql.fetch(query) if query else ():
            self._tables[word].seen = value

    def _differences(self, moved: str) -> str:
        """The query of :meth:`changed`. Its text is constant, so that the server plans it once.

        Args:
            moved: The query for changed sequences.
        """
        tables = self._tables.values()
        parts = [
            *(_is_filled(table) for table in tables if not table.shadow),
            *(self._seen_in(table) for table in tables if table.shadow),
            moved,
            # One query for all catalogs; several cost 1.5 times as much.
            f"SELECT '{_SCHEMA}', '' FROM ({_OF_SCHEMA}) AS catalogs "
            f"HAVING {self._seen} <> '{self._catalogs}'",
            _LEFT,
        ]
        return " UNION ALL ".join(part for part in parts if part)

    def _moved(self) -> str:
        return " UNION ALL ".join(
            f"SELECT {_literal(word)}, {_literal(value)} FROM {_named(word)} "
            f"WHERE (last_value, is_called) IS DISTINCT FROM ({value})"
            for word, value in self._sequences.items()
        )

    def _moved_by_number(self, numbers: Mapping[str, int]) -> str:
        """The same since version 18, at a third of the cost: no sequence is opened."""
        rows = ", ".join(
            f"({numbers[word]}, {_literal(word)}, {_literal(value)})"
            for word, value in self._sequences.items()
        )
        return rows and (
            f"SELECT s.word, s.value FROM (VALUES {rows}) AS s (number, word, value), "
            "pg_get_sequence_data(s.number) "
            "WHERE last_value || ', ' || is_called IS DISTINCT FROM s.value"
        )

    @property
    def _seen(self) -> str:
        """An expression for the number of rows and the relative age of the youngest."""
        return f"count(*) || ':' || coalesce(age('{self._ours}'::xid) - min(age(xmin)), 0)"

    def _seen_in(self, table: _Table) -> str:
        return f"SELECT {_literal(f'table {table.name}')}, {self._seen} FROM ONLY {table.name}"

    def _put_back(self, table: _Table) -> list[str]:
        """Statements that restore the rows of a seeded table."""
        insert = (
            f"INSERT INTO {table.name} ({table.columns}) OVERRIDING SYSTEM VALUE "
            f"SELECT {table.columns} FROM {table.shadow} s"
        )
        if table.key is None:
            return [f"DELETE FROM ONLY {table.name}", insert]
        younger = f"age('{self._ours}'::xid) - age(xmin) > {table.youngest}"
        return [
            f"DELETE FROM ONLY {table.name} WHERE {younger}",
            f"{insert} WHERE NOT EXISTS (SELECT FROM ONLY {table.name} t WHERE {table.key})",
        ]

    async def _make_function(self) -> bool:
        words = (word for word, table in self._tables.items() if not table.shadow)
        cases = [f"WHEN {_literal(word)} THEN DELETE FROM ONLY {_named(word)};" for word in words]
        delete = f"CASE word {' '.join(cases)} END CASE;" if cases else ""
        text = _PUT_BACK.format(query=self._query, rows=_ROWS, done=_DONE, delete=delete)
        try:
            await self._sql.script([text])
        except Exception:  # no temporary objects, or no PL/pgSQL
            return False
        return True

    async def _be_replica(self) -> bool:
        """Switch triggers off for this connection, if the account may.

        Once and for all: after each change of the role the server plans every statement again.
        """
        from sqlalchemy.exc import DBAPIError

        try:
            await self._sql.fetch("SELECT set_config('session_replication_role', 'replica', false)")
        except DBAPIError:
            return False
        return True


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _named(word: str) -> str:
    """The table or sequence of a word."""
    return word.partition(" ")[2]


def _is_filled(table: _Table) -> str:
    word = _literal(f"table {table.name}")
    return f"(SELECT {word}, '{_ROWS}' FROM ONLY {table.name} LIMIT 1)"


def _delete(tables: Sequence[_Table]) -> list[str]:
    """One statement, as foreign keys are checked at its end."""
    if not tables:
        return []
    parts = [f"d{n} AS (DELETE FROM ONLY {table.name})" for n, table in enumerate(tables)]
    return [f"WITH {', '.join(parts)} SELECT"]
