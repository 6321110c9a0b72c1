"""What random programs are made of, and what the next test looks at.

A step is a word; ``{0}`` stands for a small number. What fails is rolled back, as an application
does.
"""

from __future__ import annotations

import inspect
import re
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import asyncmy.errors
import asyncpg
import psycopg
import pymysql
from sqlalchemy.engine import Connection
from sqlalchemy.exc import InvalidRequestError, StatementError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from pytest_asyncdb import errors

#: A word and a number.
Step = tuple[str, int]

SERVERS = ("postgres", "mysql", "mariadb")

_TABLES = (
    "CREATE TABLE team (id {serial}, name VARCHAR(40))",
    "CREATE TABLE person (id {serial}, team_id INT REFERENCES team (id), name VARCHAR(40))",
    "CREATE TABLE log (id {serial}, what VARCHAR(40))",
    "CREATE VIEW names AS SELECT name FROM person",
    "INSERT INTO team (name) VALUES ('one'), ('two')",
    "INSERT INTO person (team_id, name) VALUES (1, 'ada'), (2, 'bob')",
)
_SETS_MYSQL = "CREATE PROCEDURE sets() BEGIN SET @proc = 7; SET sql_safe_updates = 1; END"


def _tables(serial: str) -> tuple[str, ...]:
    return tuple(statement.format(serial=serial) for statement in _TABLES)


SCHEMA = {
    "sqlite": _tables("INTEGER PRIMARY KEY"),
    "postgres": (
        *_tables("SERIAL PRIMARY KEY"),
        "CREATE SEQUENCE numbers",
        "CREATE FUNCTION sets() RETURNS text LANGUAGE sql AS"
        " $$ SELECT set_config('work_mem', '7MB', false) $$",
        # lastval() fails where no sequence was used, and would end the transaction.
        "CREATE FUNCTION look_lastval() RETURNS text LANGUAGE plpgsql AS"
        " $$ BEGIN RETURN lastval(); EXCEPTION WHEN OTHERS THEN RETURN SQLERRM; END $$",
    ),
    "mysql": (*_tables("INT PRIMARY KEY AUTO_INCREMENT"), _SETS_MYSQL),
    "mariadb": (
        *_tables("INT PRIMARY KEY AUTO_INCREMENT"),
        _SETS_MYSQL,
        "CREATE SEQUENCE numbers",
    ),
}

ROWS = {
    "insert": "INSERT INTO person (name) VALUES ('new {0}')",
    "insert at": "INSERT INTO person (id, name) VALUES ({0}0, 'at')",
    "log": "INSERT INTO log (what) VALUES ('{0}')",
    "update": "UPDATE person SET name = 'other' WHERE id = {0}",
    "same": "UPDATE team SET name = name",
    "delete": "DELETE FROM person WHERE id = {0}",
    "empty": "DELETE FROM log",
    "read": "SELECT * FROM person",
    "fail": "SELECT nothing FROM nowhere",
}
#: Done with SQLAlchemy's methods; "reopen" gives the connection back and takes one.
ENDS = ("commit", "commit", "rollback", "savepoint", "release", "undo", "reopen", "invalidate")

_MYSQL_STATE = {
    "sql_mode": "SET sql_mode = 'ANSI_QUOTES'",
    "time zone": "SET time_zone = '+0{0}:00'",
    "foreign keys": "SET foreign_key_checks = 0",
    "user variable": "SET @mine = {0}",
    "level": "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "next level": "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "names": "SET NAMES latin1",
    "limit": "SET sql_select_limit = {0}",
    "autocommit": "SET autocommit = 0",
    "autocommit on": "SET autocommit = 1",
    "temporary table": "CREATE TEMPORARY TABLE mine (id INT)",
    "temporary shadow": "CREATE TEMPORARY TABLE log (id INT)",
    "drop temporary": "DROP TEMPORARY TABLE IF EXISTS mine, log",
    "lock": "SELECT GET_LOCK('dump {pid}', 0)",
    "lock tables": "LOCK TABLES person WRITE",
    "unlock tables": "UNLOCK TABLES",
    "prepare": "PREPARE mine FROM 'SELECT 1'",
    "use": "USE information_schema",
    "handler": "HANDLER person OPEN",
    "procedure": "CALL sets()",
    "last id": "SELECT last_insert_id({0}00)",
    "timeout": "SET SESSION innodb_lock_wait_timeout = {0}",
}
STATE = {
    # Without case_sensitive_like: beside a statement that runs, SQLite 3.40 makes LIKE of all
    # databases of the process use indexes as if it distinguished upper and lower case.
    "sqlite": {
        "foreign keys": "PRAGMA foreign_keys = ON",
        "no foreign keys": "PRAGMA foreign_keys = OFF",
        "recursive": "PRAGMA recursive_triggers = ON",
        "cache size": "PRAGMA cache_size = {0}000",
        "query only": "PRAGMA query_only = ON",
        "checks": "PRAGMA ignore_check_constraints = ON",
        "deferred": "PRAGMA defer_foreign_keys = ON",
        "order": "PRAGMA reverse_unordered_selects = ON",
        "uncommitted": "PRAGMA read_uncommitted = ON",
        "synchronous": "PRAGMA synchronous = OFF",
        "busy timeout": "PRAGMA busy_timeout = {0}000",
        "attach": "ATTACH ':memory:' AS other{0}",
        "detach": "DETACH other{0}",
        "temporary table": "CREATE TEMPORARY TABLE mine{0} (id INT)",
        "temporary shadow": "CREATE TEMPORARY TABLE log (id INT)",
        "temporary trigger": (
            "CREATE TEMPORARY TRIGGER mine AFTER INSERT ON log BEGIN DELETE FROM person; END"
        ),
        "writable": "PRAGMA writable_schema = ON",
    },
    "postgres": {
        "set": "SET work_mem = '{0}MB'",
        "local": "SET LOCAL work_mem = '{0}MB'",
        "zone": "SET timezone = 'Asia/Tokyo'",
        "path": "SET search_path = pg_catalog, public",
        "custom": "SET app.tenant = 'acme'",
        "role": "SET ROLE pg_monitor",
        "authorization": "SET SESSION AUTHORIZATION pg_monitor",
        "level": "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "next level": "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "read only": "SET default_transaction_read_only = on",
        "timeout": "SET statement_timeout = '{0}0min'",
        "constraints": "SET CONSTRAINTS ALL DEFERRED",
        "function": "SELECT sets()",
        "temporary table": "CREATE TEMP TABLE mine{0} (id INT)",
        "temporary shadow": "CREATE TEMP TABLE log (id INT)",
        "temporary view": "CREATE TEMP VIEW mine AS SELECT 1",
        "temporary function": (
            "CREATE FUNCTION pg_temp.mine() RETURNS INT LANGUAGE sql AS 'SELECT 1'"
        ),
        "prepare": "PREPARE mine AS SELECT 1",
        "listen": "LISTEN mine",
        "notify": "NOTIFY mine",
        "lock": "SELECT pg_advisory_lock(4243)",
        "shared lock": "SELECT pg_advisory_lock_shared(424{0})",
        "lock of the transaction": "SELECT pg_advisory_xact_lock(424{0})",
        "lock table": "LOCK TABLE person",
        "cursor": "DECLARE mine CURSOR WITH HOLD FOR SELECT 1",
        "counter": "SELECT nextval('numbers')",
        "reset all": "RESET ALL",
        "discard": "DISCARD TEMP",
    },
    "mysql": _MYSQL_STATE,
    "mariadb": {
        **_MYSQL_STATE,
        "statement time": "SET max_statement_time = {0}0",
        "counter": "SELECT nextval(numbers)",
    },
}

_DDL = {
    "create table": "CREATE TABLE more{0} (id INT)",
    "add column": "ALTER TABLE log ADD COLUMN more{0} INT",
    "create index": "CREATE INDEX more{0} ON log (what)",
    "drop table": "DROP TABLE log",
    "drop person": "DROP TABLE person",
    "create view": "CREATE VIEW more{0} AS SELECT 1 AS a",
    "drop view": "DROP VIEW names",
    "rename": "ALTER TABLE log RENAME TO more{0}",
}
_TRIGGER_MYSQL = "CREATE TRIGGER more{0} BEFORE INSERT ON log FOR EACH ROW SET @t = 1"
DDL = {
    "sqlite": {
        **_DDL,
        "trigger": (
            "CREATE TRIGGER more{0} AFTER INSERT ON log BEGIN UPDATE team SET name = 'x'; END"
        ),
        "user version": "PRAGMA user_version = {0}",
        "analyze": "ANALYZE",
    },
    "postgres": {
        **_DDL,
        "drop person": "DROP TABLE person CASCADE",
        "truncate": "TRUNCATE log",
        "truncate seeded": "TRUNCATE person RESTART IDENTITY",
        "type": "CREATE TYPE more{0} AS (a INT)",
        "schema": "CREATE SCHEMA more{0}",
        "configuration": "CREATE TEXT SEARCH CONFIGURATION more{0} (COPY = simple)",
        "publication": "CREATE PUBLICATION more{0} FOR TABLE team",
        "comment": "COMMENT ON SCHEMA public IS '{0}'",
        "grant": "GRANT SELECT ON team TO pg_monitor",
        "setting": (
            "DO $do$ BEGIN EXECUTE format($f$ALTER DATABASE %I SET work_mem = '{0}MB'$f$,"
            " current_database()); END $do$"
        ),
        "large object": "SELECT lo_from_bytea(4242{0}, 'x')",
        "sequence": "ALTER SEQUENCE numbers INCREMENT {0}",
        "trigger": (
            "CREATE TRIGGER more{0} BEFORE UPDATE ON team"
            " FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
        ),
    },
    "mysql": {
        **_DDL,
        "truncate": "TRUNCATE log",
        "new counter": "ALTER TABLE log AUTO_INCREMENT = {0}0",
        "trigger": _TRIGGER_MYSQL,
        "new procedure": "CREATE PROCEDURE more{0}() SELECT 1",
        "event": "CREATE EVENT more{0} ON SCHEDULE EVERY 1 DAY DO DELETE FROM log",
        "collation": "ALTER DATABASE COLLATE utf8mb4_bin",
    },
}
DDL["mariadb"] = {**DDL["mysql"], "alter sequence": "ALTER SEQUENCE numbers INCREMENT {0}"}


#: What the next test sees of its session, as one row; the second one may fail.
_VARIABLES = (
    *("sql_mode", "time_zone", "foreign_key_checks", "unique_checks", "autocommit"),
    *("character_set_client", "character_set_results", "collation_connection"),
    *("sql_select_limit", "sql_safe_updates", "innodb_lock_wait_timeout", "lock_wait_timeout"),
)
_LOOK_MYSQL = (
    "SELECT database() LIKE 'asyncdb%', current_role(), @mine, @proc, @t, last_insert_id(), {level},"
    " is_used_lock('dump {pid}'), " + ", ".join(f"@@SESSION.{name}" for name in _VARIABLES)
)
_LATER_MYSQL = (
    "SELECT count(*) FROM mine",
    "EXECUTE mine",
    "HANDLER person READ FIRST",
    "SELECT what FROM log",
)
_PRAGMAS = (
    *("foreign_keys", "recursive_triggers", "cache_size", "query_only", "synchronous"),
    *("ignore_check_constraints", "defer_foreign_keys", "reverse_unordered_selects"),
    *("read_uncommitted", "busy_timeout", "writable_schema", "temp_store", "legacy_alter_table"),
)
LOOK = {
    "sqlite": (
        "SELECT 'a' LIKE 'A', "
        " (SELECT group_concat(name) FROM pragma_database_list),"
        " (SELECT group_concat(name) FROM sqlite_temp_schema), "
        + ", ".join(f"(SELECT * FROM pragma_{name})" for name in _PRAGMAS)
    ),
    "postgres": (
        "SELECT current_user, session_user, current_schemas(false)::text,"
        " (SELECT md5(string_agg(name || setting, ',' ORDER BY name)) FROM pg_settings"
        "  WHERE name NOT IN ('transaction_isolation', 'transaction_read_only')),"
        " nullif(current_setting('app.tenant', true), ''),"
        " current_setting('transaction_isolation'), current_setting('transaction_read_only'),"
        " (SELECT string_agg(c, ',') FROM pg_listening_channels() c),"
        " (SELECT string_agg(name, ',') FROM pg_prepared_statements WHERE from_sql),"
        " (SELECT string_agg(name, ',') FROM pg_cursors WHERE is_holdable),"
        " (SELECT string_agg(relname, ',') FROM pg_class WHERE relnamespace = pg_my_temp_schema()),"
        " (SELECT string_agg(proname, ',') FROM pg_proc WHERE pronamespace = pg_my_temp_schema()),"
        " (SELECT string_agg(l::text, ',') FROM pg_locks l JOIN pg_database d ON d.oid = database"
        "  WHERE locktype = 'advisory' AND datname = current_database()),"
        " look_lastval()"
    ),
    "mysql": _LOOK_MYSQL.replace("{level}", "@@SESSION.transaction_isolation"),
    "mariadb": _LOOK_MYSQL.replace("{level}", "@@SESSION.tx_isolation, @@max_statement_time"),
}
LATER = {"sqlite": (), "postgres": (), "mysql": _LATER_MYSQL, "mariadb": _LATER_MYSQL}

#: What the plugin, SQLAlchemy and the drivers raise in an application that goes on.
EXPECTED = (
    # A StatementError is a DBAPIError, or has an error of ours for what happened before.
    *(StatementError, InvalidRequestError, errors.AsyncdbError),
    *(sqlite3.Error, asyncpg.PostgresError, asyncpg.InterfaceError, psycopg.Error),
    *(pymysql.err.Error, asyncmy.errors.Error),
)
#: Before a word of :data:`STATE`: the statement goes through the driver's own connection.
DRIVER = "driver: "


class Program:
    """Plays steps on one connection of an engine after the other."""

    def __init__(self, backend: str, words: dict[str, str], pid: str) -> None:
        self.backend = backend
        self.words = words
        self.pid = pid

    async def play(self, engine: AsyncEngine, steps: list[Step], closing: bool) -> None:
        """Run the steps.

        Args:
            closing: The connection is given back at the end, else it is left open.
        """
        connection = await engine.connect()
        nested: list[Any] = []
        for word, number in steps:
            try:
                if word == "reopen":
                    await connection.close()
                    connection = await engine.connect()
                    nested = []
                elif word == "savepoint":
                    nested.append(await connection.begin_nested())
                elif word in ("release", "undo"):
                    if nested:
                        savepoint = nested.pop()
                        await (savepoint.commit() if word == "release" else savepoint.rollback())
                elif word in ("commit", "rollback", "invalidate"):
                    await getattr(connection, word)()
                    nested = []
                elif word.startswith(DRIVER):
                    statement = self.words[word.removeprefix(DRIVER)]
                    await connection.run_sync(_raw, statement.format(number, pid=self.pid))
                else:
                    await run(connection, self.words[word].format(number, pid=self.pid))
            except EXPECTED:
                nested = []
                with suppress(*EXPECTED):
                    await connection.rollback()
        if closing:
            with suppress(*EXPECTED):
                await connection.close()

    async def look(self, engine: AsyncEngine) -> list[Any]:
        """What the next test sees of its session."""
        found: list[Any] = []
        async with engine.connect() as connection:
            first = LOOK[self.backend].format(pid=self.pid)
            result = await run(connection, first)
            found += [str(row) for row in result]
            for statement in LATER[self.backend]:
                try:
                    found.append(str(await run(connection, statement)))
                except EXPECTED as error:
                    # Without the names of the database and of statements.
                    found.append(re.sub(r"asyncdb_\w+", "", str(getattr(error, "orig", error))))
        return found


async def run(connection: AsyncConnection, statement: str) -> list[Any]:
    """The rows of a statement without parameters."""
    result = await connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
    return [tuple(row) for row in result] if result.returns_rows else []


def _raw(connection: Connection, statement: str) -> None:
    adapted: Any = connection.connection.dbapi_connection
    adapted.run_async(lambda driver: _run_raw(driver, statement))


async def _run_raw(connection: Any, statement: str) -> None:
    """Run a statement on a driver's own connection."""
    if hasattr(connection, "execute"):
        await connection.execute(statement)
        return
    cursor = connection.cursor()
    if inspect.isawaitable(cursor):
        cursor = await cursor
    await cursor.execute(statement)
    await cursor.close()


def _postgres(cursor: Any, counters: bool) -> list[Any]:
    catalogs = (
        *("pg_class:oid, relname, relnamespace, relkind, relacl, reloptions", "pg_namespace:r.*"),
        *("pg_attribute:attrelid, attname, atttypid, attnotnull", "pg_constraint:oid, conname"),
        *("pg_type:oid, typname", "pg_proc:oid, proname, prosrc", "pg_trigger:oid, tgname"),
        *("pg_sequence:r.*", "pg_ts_config:oid, cfgname", "pg_publication:oid, pubname"),
        *("pg_largeobject_metadata:oid", "pg_index:indexrelid", "pg_rewrite:oid, rulename"),
    )
    queries = ["SELECT 'c', description FROM pg_description WHERE objoid = 2200"]
    for entry in catalogs:
        name, columns = entry.split(":")
        key = {"pg_attribute": "attrelid", "pg_sequence": "seqrelid", "pg_index": "indexrelid"}
        own = key.get(name, "oid")
        temporary = {
            "pg_class": "relpersistence <> 't'",
            "pg_attribute": "attrelid IN (SELECT oid FROM pg_class WHERE relpersistence <> 't')",
            "pg_type": "typnamespace::regnamespace::text !~ 'pg_(toast_)?temp_'",
            "pg_proc": "pronamespace::regnamespace::text !~ 'pg_temp_'",
            "pg_namespace": "nspname !~ '^pg_(toast_)?temp_'",
            "pg_index": "indrelid IN (SELECT oid FROM pg_class WHERE relpersistence <> 't')",
            "pg_constraint": "conrelid NOT IN (SELECT oid FROM pg_class WHERE relpersistence = 't')",
            "pg_rewrite": "ev_class IN (SELECT oid FROM pg_class WHERE relpersistence <> 't')",
            "pg_trigger": "tgrelid IN (SELECT oid FROM pg_class WHERE relpersistence <> 't')",
        }.get(name, "true")
        queries.append(
            f"SELECT '{name}', ROW({columns})::text FROM {name} AS r WHERE {own} >= 16384 AND {temporary}"
        )
    queries.append(
        "SELECT 'setting', unnest(setconfig) FROM pg_db_role_setting s JOIN pg_database d"
        " ON d.oid = setdatabase WHERE datname = current_database()"
    )
    for name in ("team", "person", "log"):
        queries.append(f"SELECT '{name}', r::text FROM {name} r")
    if counters:
        queries.append("SELECT 's', last_value || ' ' || is_called FROM person_id_seq")
        queries.append("SELECT 'n', last_value || ' ' || is_called FROM numbers")
    cursor.execute(" UNION ALL ".join(queries))
    return sorted(map(str, cursor.fetchall()))


def _mysql(cursor: Any, counters: bool) -> list[Any]:
    found: list[Any] = []
    cursor.execute("SELECT database()")
    ((database,),) = cursor.fetchall()
    statements = [
        f"SHOW CREATE DATABASE {database}",
        "SHOW FULL TABLES",
        *(f"SHOW CREATE TABLE {name}" for name in ("team", "person", "log")),
        "SHOW TRIGGERS",
        "SHOW EVENTS",
        "SHOW CREATE VIEW names",
        f"SELECT routine_name FROM information_schema.routines WHERE routine_schema = '{database}'",
        *(f"SELECT * FROM {name}" for name in ("team", "person", "log")),
    ]
    for statement in statements:
        cursor.execute(statement)
        found += [str(row).replace(database, "") for row in cursor.fetchall()]
    cursor.execute("SHOW TABLES LIKE 'numbers'")
    if cursor.fetchall():
        cursor.execute("SHOW CREATE SEQUENCE numbers")
        found += [str(row) for row in cursor.fetchall()]
        cursor.execute("SELECT next_not_cached_value FROM numbers")
        found += [f"numbers {row}" for row in cursor.fetchall() if counters]
    if not counters:
        found = [re.sub(r" AUTO_INCREMENT=\d+", "", row) for row in found]
    return found


def _sqlite(cursor: Any, counters: bool) -> list[Any]:
    found: list[Any] = []
    for statement in (
        "SELECT type, name, sql FROM sqlite_schema",
        "PRAGMA user_version",
        *(f"SELECT rowid, * FROM {name}" for name in ("team", "person", "log")),
    ):
        found += map(str, cursor.execute(statement).fetchall())
    return found


#: What is in the database: the cheap part of a dump, without counters if a strategy leaves them.
DUMP: dict[str, Callable[[Any, bool], list[Any]]] = {
    "sqlite": _sqlite,
    "postgres": _postgres,
    "mysql": _mysql,
    "mariadb": _mysql,
}
