"""Schemas of one PostgreSQL database as databases, for accounts that may not create others.

It is reached by URL only, and has neither ``CREATE DATABASE`` nor templates: a copy is made table
by table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.engine import URL

from asyncdb_others.dialect import refuse_standard
from pytest_asyncdb.abc import (
    IDS,
    LEFT_OPEN,
    Backend,
    Capabilities,
    Copier,
    DatabaseRef,
    Restorer,
    Server,
    Sql,
)
from pytest_asyncdb.backends.postgres_drivers import Asyncpg

#: The tables of a schema, those that others refer to first.
TABLES = """
SELECT format('%I', relname) FROM pg_class
WHERE relnamespace = '"{0}"'::regnamespace AND relkind = 'r' ORDER BY oid
"""
#: Its sequences, each with the table and column that it belongs to.
SEQUENCES = """
SELECT format('%I', s.relname), format('%I', t.relname), format('%I', a.attname)
FROM pg_class s JOIN pg_depend d ON d.objid = s.oid AND d.deptype = 'a'
JOIN pg_class t ON t.oid = d.refobjid
JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
WHERE s.relnamespace = '"{0}"'::regnamespace AND s.relkind = 'S' ORDER BY s.oid
"""
#: Its foreign keys.
KEYS = """
SELECT format('ALTER TABLE %I ADD CONSTRAINT %I %s', t.relname, c.conname,
    replace(pg_get_constraintdef(c.oid), format('%I.', n.nspname), ''))
FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid
JOIN pg_namespace n ON n.oid = c.connamespace
WHERE c.contype = 'f' AND n.nspname = '{0}' ORDER BY c.oid
"""
#: Its definitions.
DEFINITIONS = """
SELECT relname, attname, atttypid::text FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
WHERE relnamespace = '"{0}"'::regnamespace AND attnum > 0 ORDER BY 1, attnum
"""
#: Sessions in a transaction besides the one that asks.
LEFT = """
SELECT pid, left(query, 600) FROM pg_stat_activity
WHERE application_name = '{0}' AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
"""


class Strict(Asyncpg):
    """asyncpg at a server that knows the dialect's spelling only."""

    async def run(self, connection: Any, statements: Sequence[str]) -> Sequence[Any]:
        for statement in statements:
            refuse_standard(statement)
        return await super().run(connection, statements)


class SchemaRestorer(Restorer):
    """Compares the rows of all tables, and copies those of the template."""

    def __init__(self, sql: Sql, database: str, template: str) -> None:
        self._sql = sql
        self._database = database
        self._template = template
        self._tables: list[str] = []
        self._sequences: list[str] = []
        self._before: dict[str, Any] = {}

    async def remember(self) -> None:
        fetch, database = self._sql.fetch, self._database
        self._tables = [name for (name,) in await fetch(TABLES.format(database))]
        self._sequences = [name for name, *_ in await fetch(SEQUENCES.format(database))]
        self._before = await self._look()

    async def changed(self) -> Sequence[str]:
        left = await self._sql.fetch(LEFT.format(self._database))
        found = [f"{LEFT_OPEN}{pid}: {query}" for pid, query in left]
        try:
            now = await self._look() if not left else {}
        except Exception:  # a table is gone
            return ["schema"]
        return [*found, *(word for word in now if now[word] != self._before[word])]

    async def restore(self, changed: Sequence[str]) -> bool:
        if any(word == "schema" or word.startswith(LEFT_OPEN) for word in changed):
            return False  # dropping the schema ends them
        rows = [copy_rows(name, self._template) for name in self._tables]
        empty = [f"TRUNCATE {', '.join(self._tables)}"] if self._tables else []
        counters = [set_counter(name, self._template) for name in self._sequences]
        await self._sql.script([*empty, *rows, *counters])
        return True

    async def _look(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "schema": await self._sql.fetch(DEFINITIONS.format(self._database))
        }
        for name in self._tables:
            query = f"SELECT md5(string_agg(t::text, ' ' ORDER BY t::text)) FROM {name} AS t"
            found[f"table {name}"] = await self._sql.fetch(query)
        for name in self._sequences:
            query = f"SELECT last_value, is_called FROM {name}"
            found[f"{IDS}{name}"] = await self._sql.fetch(query)
        return found


def copy_rows(name: str, template: str) -> str:
    return f'INSERT INTO {name} OVERRIDING SYSTEM VALUE SELECT * FROM "{template}".{name}'


def set_counter(name: str, template: str) -> str:
    quoted = name.replace("'", "''")
    return f"SELECT setval('{quoted}', last_value, is_called) FROM \"{template}\".{name}"


class PgSchema(Backend):
    name = "pgschema"
    label = "PostgreSQL schemas"
    dialect = "pgschema"
    schemes = ("pgschema",)
    drivers = (Strict,)
    schemas_are_databases = True
    failed_transaction = "25P02"
    lock_timeout_codes = frozenset({"55P03"})
    access_denied_codes = frozenset({"42501"})
    after_rollback = ("SELECT pg_advisory_unlock_all()",)
    after_commits = ("RESET ALL", "DISCARD TEMP")
    capabilities = Capabilities(
        transactional_ddl=True,
        several_connections=True,
        sequences_roll_back=False,
        schemas=False,
    )

    def url(self, server: Server, driver: str, database: str | None) -> URL:
        query = {"home": server.maintenance or "", **dict(server.query)}
        url = super().url(server, driver, database)
        return url.update_query_dict(query)

    def create_database(self, name: str) -> Sequence[str]:
        return (f'CREATE SCHEMA "{name}"',)

    def drop_database(self, name: str, server: Server) -> Sequence[str]:
        return (f'DROP SCHEMA IF EXISTS "{name}" CASCADE',)

    def end_connections(self, database: str) -> Sequence[str]:
        end = "'SELECT pg_terminate_backend(' || pid || ', 5000)'"
        return (f"SELECT {end} FROM pg_stat_activity WHERE application_name = '{database}'",)

    async def copier(self, sql: Sql, template: str, server: Server) -> Copier:
        tables = [name for (name,) in await sql.fetch(TABLES.format(template))]
        owned = await sql.fetch(SEQUENCES.format(template))
        keys = [statement for (statement,) in await sql.fetch(KEYS.format(template))]
        statements = []
        for name in tables:
            create = f'CREATE TABLE {name} (LIKE "{template}".{name} INCLUDING ALL)'
            statements += [create, copy_rows(name, template)]
        for name, table, column in owned:
            default = f"nextval('{name}')"
            statements += [
                f"CREATE SEQUENCE {name} OWNED BY {table}.{column}",
                f"ALTER TABLE {table} ALTER {column} SET DEFAULT {default}",
                set_counter(name, template),
            ]
        statements += keys
        return lambda name: (
            *self.create_database(name),
            f'SET search_path = "{name}"',
            *statements,
            "RESET search_path",
        )

    def restorer(self, sql: Sql, database: DatabaseRef, template: DatabaseRef) -> Restorer:
        return SchemaRestorer(sql, database.name, template.name)

    def client_command(self, server: Server, file: str, database: str) -> tuple[Sequence[str], str]:
        home = dict(server.query).get("home", server.maintenance)
        words = f"host={server.host} port={server.port} user={server.user} dbname={home}"
        options = f"options=-csearch_path={database} passfile={file}"
        return ("psql", f"{words} {options}"), f"*:*:*:*:{server.password}\n"

    def lock_timeout(self, seconds: float) -> Sequence[str]:
        return (f"SET lock_timeout = {round(seconds * 1000)}",)

    def at_connect(self) -> Sequence[str]:
        return self.lock_timeout(self.lock_wait)

    def list_databases(self) -> str:
        return "SELECT nspname FROM pg_namespace"

    def sessions(self, prefix: str) -> Sequence[str]:
        return (
            "SELECT pid FROM pg_stat_activity "
            f"WHERE left(application_name, {len(prefix)}) = '{prefix}'",
        )
