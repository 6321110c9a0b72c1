"""Kinds of session state: how a test leaves it, and how the next one would see it.

Inner runs import this module; see ``test_session_state.py``.
"""

from __future__ import annotations

import itertools
import os
import re
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

#: Locks of the whole server are named after this process: others run these tests, too.
PID = os.getpid()
#: What callbacks of a test have been told.
heard: list[object] = []
_numbers = itertools.count()


class Kind(NamedTuple):
    """A kind of state that SQL leaves.

    Args:
        leave: A statement.
        look: A query; its rows, or its error, show the state.
        but: The ways and strategies in which it cannot be left.
    """

    leave: str
    look: str
    but: tuple[str, ...] = ()


class DriverKind(NamedTuple):
    """A kind of state that code of the driver leaves.

    Args:
        leave: Called with SQLAlchemy's connection and what ``driver_connection`` gives.
        look: The same; returns what shows the state.
        but: Strategies in which it cannot be left.
    """

    leave: Callable[[AsyncConnection, Any], Awaitable[object]]
    look: Callable[[AsyncConnection, Any], Awaitable[object]]
    but: tuple[str, ...] = ()


async def rows(connection: AsyncConnection, query: str) -> object:
    """The rows of *query*, or its error."""
    try:
        result = await connection.exec_driver_sql(query)
        return result.all() if result.returns_rows else None
    except DBAPIError as error:
        return re.sub(r"asyncdb_\w+", "database", str(error.orig))


def _settings(set_: str, look: str, **values: str) -> dict[str, Kind]:
    return {
        name: Kind(set_.format(name=name, value=value), look.format(name=name))
        for name, value in values.items()
    }


_PG_COUNT = "SELECT count(*) FROM {}"
POSTGRES = {
    **_settings(
        "SET {name} = {value}",
        "SELECT current_setting('{name}', true)",
        statement_timeout="'1h'",
        lock_timeout="'2h'",
        idle_in_transaction_session_timeout="'3h'",
        search_path="pg_catalog",
        timezone="'Asia/Tokyo'",
        datestyle="'German'",
        intervalstyle="'iso_8601'",
        client_encoding="'LATIN1'",
        default_transaction_isolation="'serializable'",
        default_transaction_read_only="on",
        session_replication_role="'replica'",
        row_security="off",
        work_mem="'77MB'",
        extra_float_digits="0",
        bytea_output="'escape'",
        application_name="'left'",
        role="pg_monitor",
        enable_seqscan="off",
    ),
    "setting": Kind(
        "SET app.tenant = 'acme'", "SELECT nullif(current_setting('app.tenant', true), '')"
    ),
    "set_config": Kind(
        "SELECT set_config('app.user', '7', false)",
        "SELECT nullif(current_setting('app.user', true), '')",
    ),
    "authorization": Kind("SET SESSION AUTHORIZATION pg_monitor", "SELECT session_user"),
    "characteristics": Kind(
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "SELECT current_setting('default_transaction_isolation')",
    ),
    "table": Kind("CREATE TEMP TABLE left_t (id int)", "SELECT to_regclass('pg_temp.left_t')"),
    "view": Kind("CREATE TEMP VIEW left_v AS SELECT 1", "SELECT to_regclass('pg_temp.left_v')"),
    "sequence": Kind("CREATE TEMP SEQUENCE left_s", "SELECT to_regclass('pg_temp.left_s')"),
    "function": Kind(
        "CREATE FUNCTION pg_temp.left_f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "SELECT to_regproc('pg_temp.left_f')",
    ),
    "lock": Kind(
        f"SELECT pg_advisory_lock({PID})",
        f"SELECT count(*) FROM pg_locks WHERE objid = {PID} AND objsubid = 1",
    ),
    "shared_lock": Kind(
        f"SELECT pg_advisory_lock_shared(0, {PID})",
        f"SELECT count(*) FROM pg_locks WHERE objid = {PID} AND objsubid = 2",
    ),
    "prepared": Kind(
        "PREPARE left_p AS SELECT 1", _PG_COUNT.format("pg_prepared_statements WHERE from_sql")
    ),
    # LISTEN takes effect when its transaction commits.
    "listen": Kind("LISTEN left_l", _PG_COUNT.format("pg_listening_channels()"), ("rollback",)),
    "cursor": Kind(
        "DECLARE left_c CURSOR WITH HOLD FOR SELECT 1",
        _PG_COUNT.format("pg_cursors WHERE name = 'left_c'"),
        ("rollback",),
    ),
    "lastval": Kind("SELECT nextval('counter')", "SELECT look_lastval()"),
}

_VARIABLE = ("SET SESSION {name} = {value}", "SELECT @@SESSION.{name}")
_MYSQL = {
    **_settings(
        *_VARIABLE,
        sql_mode="'ANSI_QUOTES'",
        time_zone="'+05:00'",
        foreign_key_checks="0",
        unique_checks="0",
        collation_connection="latin1_bin",
        character_set_results="latin1",
        group_concat_max_len="77",
        sql_safe_updates="1",
        sql_select_limit="3",
        innodb_lock_wait_timeout="3",
        lock_wait_timeout="4",
        wait_timeout="12345",
        net_read_timeout="99",
        auto_increment_increment="7",
        auto_increment_offset="3",
        lc_time_names="'de_DE'",
        div_precision_increment="9",
        sql_auto_is_null="1",
        sql_big_selects="0",
        tmp_table_size="2000000",
        default_week_format="3",
        sort_buffer_size="300000",
        max_error_count="9",
        insert_id="555",
    ),
    "variable": Kind("SET @left_x = 5", "SELECT @left_x"),
    "timestamp": Kind("SET timestamp = 1000000", "SELECT year(now()) < 2000"),
    "names": Kind("SET NAMES latin1", "SELECT @@character_set_client"),
    "read_only": Kind("SET SESSION TRANSACTION READ ONLY", "SELECT @@SESSION.{read_only}"),
    "isolation": Kind(
        "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SELECT @@SESSION.{isolation}"
    ),
    "use": Kind("USE information_schema", "SELECT DATABASE() = 'information_schema'", ("routine",)),
    "get_lock": Kind(f"SELECT get_lock('left{PID}', 0)", f"SELECT is_free_lock('left{PID}')"),
    "table": Kind("CREATE TEMPORARY TABLE left_t (id int)", "SELECT 1 FROM left_t"),
    "prepared": Kind("PREPARE left_p FROM 'SELECT 1'", "EXECUTE left_p"),
    "handler": Kind("HANDLER thing OPEN", "HANDLER thing READ FIRST", ("routine",)),
    "insert_id_of": Kind("SELECT last_insert_id(77)", "SELECT last_insert_id()"),
    "lock_tables": Kind(
        "LOCK TABLES thing WRITE", "SELECT count(*) FROM other", ("rollback", "routine")
    ),
    "autocommit": Kind("SET autocommit = 1", "SELECT @@autocommit", ("rollback",)),
}


def _mysql(**names: str) -> dict[str, Kind]:
    return {
        name: kind._replace(look=kind.look.format(**names) if "{" in kind.look else kind.look)
        for name, kind in _MYSQL.items()
    }


_PRAGMAS: dict[str, str] = {
    "analysis_limit": "77",
    "automatic_index": "0",
    "busy_timeout": "77",
    "cache_size": "777",
    "cache_spill": "0",
    "cell_size_check": "1",
    "checkpoint_fullfsync": "1",
    "defer_foreign_keys": "1",
    "empty_result_callbacks": "1",
    "full_column_names": "1",
    "fullfsync": "1",
    "ignore_check_constraints": "1",
    "journal_size_limit": "77777",
    "legacy_alter_table": "1",
    "max_page_count": "7777",
    "query_only": "1",
    "read_uncommitted": "1",
    "recursive_triggers": "1",
    "reverse_unordered_selects": "1",
    "secure_delete": "1",
    "short_column_names": "0",
    "threads": "1",
    "trusted_schema": "0",
    "wal_autocheckpoint": "7",
    "writable_schema": "1",
}
SQLITE = {
    **_settings("PRAGMA {name} = {value}", "PRAGMA {name}", **_PRAGMAS),
    "case_sensitive_like": Kind("PRAGMA case_sensitive_like = 1", "SELECT 'A' LIKE 'a'"),
    "attach": Kind("ATTACH ':memory:' AS left_a", "SELECT name FROM pragma_database_list"),
    "table": Kind("CREATE TEMP TABLE left_t (id)", "SELECT name FROM sqlite_temp_master"),
    "view": Kind("CREATE TEMP VIEW left_v AS SELECT 1", "SELECT name FROM sqlite_temp_master"),
    "trigger": Kind(
        "CREATE TEMP TRIGGER left_g AFTER INSERT ON thing BEGIN SELECT 1; END",
        "SELECT name FROM sqlite_temp_master",
    ),
    "virtual_table": Kind(
        "CREATE VIRTUAL TABLE temp.left_f USING fts5(a)",
        "SELECT count(*) FROM sqlite_temp_master",
    ),
}

KINDS = {
    "sqlite": SQLITE,
    "postgres": POSTGRES,
    "mysql": _mysql(read_only="transaction_read_only", isolation="transaction_isolation")
    | {"timeout": Kind("SET max_execution_time = 7777", "SELECT @@max_execution_time")},
    "mariadb": _mysql(read_only="tx_read_only", isolation="tx_isolation")
    | {"timeout": Kind("SET max_statement_time = 77", "SELECT @@max_statement_time")},
}

#: Kinds that belong to the server rather than to a session: they would reach other databases.
OF_THE_SERVER = ("lock", "shared_lock", "get_lock")


def _attribute(name: str, value: object, *but: str) -> DriverKind:
    """An attribute of the driver's connection."""

    async def leave(connection: AsyncConnection, driver: Any) -> None:
        setattr(driver, name, value)

    async def look(connection: AsyncConnection, driver: Any) -> object:
        return getattr(driver, name) == value  # the plugin's own values differ by strategy

    return DriverKind(leave, look, but)


def _callback(add: Callable[[Any], Awaitable[object]], query: str) -> DriverKind:
    """A callback of the driver's connection that *query* causes to be called."""

    async def look(connection: AsyncConnection, driver: Any) -> object:
        heard.clear()
        await rows(connection, f"{query} -- {next(_numbers)}")
        await rows(connection, "SELECT 1")
        return bool(heard)

    return DriverKind(lambda connection, driver: add(driver), look)


def _hear(*arguments: object) -> int:
    heard.append(arguments)
    return 0


def _looks(query: str) -> Callable[[AsyncConnection, Any], Awaitable[object]]:
    return lambda connection, driver: rows(connection, f"{query} -- {next(_numbers)}")


async def _at_once(call: Callable[..., object], *arguments: Any) -> None:
    call(*arguments)


async def _through_the_adapter(connection: AsyncConnection, driver: Any) -> None:
    def create(sync: Any) -> None:
        sync.connection.dbapi_connection.create_function("left_a", 0, lambda: 1)

    await connection.run_sync(create)


async def _through_run_async(connection: AsyncConnection, driver: Any) -> None:
    def run(sync: Any) -> None:
        sync.connection.dbapi_connection.run_async(
            lambda raw: raw.create_function("left_r", 0, lambda: 1)
        )

    await connection.run_sync(run)


async def _logs_queries(connection: AsyncConnection, driver: Any) -> object:
    heard.clear()
    for _ in range(2):
        await driver.fetchval("SELECT 1")
    return bool(heard)


async def _register_loader(connection: AsyncConnection, driver: Any) -> None:
    from psycopg.types.string import TextLoader

    driver.adapters.register_loader("uuid", TextLoader)


_UUID = "SELECT '12345678-1234-5678-1234-567812345678'::uuid"
_NOTICE = "DO $$ BEGIN RAISE NOTICE 'x'; END $$"
_MYSQL_CONNECTION = {
    "select_db": DriverKind(
        lambda connection, driver: driver.select_db("information_schema"),
        _looks("SELECT DATABASE() = 'information_schema'"),
        ("rollback",),
    ),
    "autocommit": DriverKind(
        lambda connection, driver: driver.autocommit(True),
        _looks("SELECT @@autocommit"),
        ("rollback",),
    ),
}
#: What the driver's connection has: codecs, callbacks, attributes.
OF_THE_DRIVER: dict[str, dict[str, DriverKind]] = {
    "aiosqlite": {
        "function": DriverKind(
            lambda connection, driver: driver.create_function("left_f", 0, lambda: 1),
            _looks("SELECT left_f()"),
        ),
        "adapter": DriverKind(_through_the_adapter, _looks("SELECT left_a()")),
        "run_async": DriverKind(_through_run_async, _looks("SELECT left_r()"), ("rollback",)),
        "collation": DriverKind(
            lambda connection, driver: driver._execute(
                lambda: driver._conn.create_collation("left_c", lambda one, other: 0)
            ),
            _looks("SELECT 1 ORDER BY 'a' COLLATE left_c"),
        ),
        "row_factory": _attribute("row_factory", sqlite3.Row),
        "text_factory": _attribute("text_factory", bytes),
        "isolation_level": _attribute("isolation_level", "DEFERRED"),
        "trace": _callback(lambda driver: driver.set_trace_callback(_hear), "SELECT 2"),
        "progress": _callback(lambda driver: driver.set_progress_handler(_hear, 1), "SELECT 3"),
        "authorizer": _callback(  # aiosqlite 0.22 has a method for it
            lambda driver: driver._execute(driver._conn.set_authorizer, _hear), "SELECT 4"
        ),
    },
    "asyncpg": {
        "codec": DriverKind(
            lambda connection, driver: driver.set_type_codec(
                "uuid", schema="pg_catalog", encoder=str, decoder=lambda text: f"left {text}"
            ),
            _looks(_UUID),
        ),
        "log": _callback(lambda driver: _at_once(driver.add_log_listener, _hear), _NOTICE),
        "logger": DriverKind(
            lambda connection, driver: _at_once(driver.add_query_logger, _hear), _logs_queries
        ),
        "listener": DriverKind(
            lambda connection, driver: driver.add_listener("left_l", _hear),
            _looks("SELECT count(*) FROM pg_listening_channels()"),
            ("rollback",),
        ),
    },
    "psycopg": {
        "loader": DriverKind(_register_loader, _looks(_UUID)),
        "notices": _callback(lambda driver: _at_once(driver.add_notice_handler, _hear), _NOTICE),
        "prepare_threshold": _attribute("prepare_threshold", 77),
        "prepared_max": _attribute("prepared_max", 77),
    },
    "asyncmy": _MYSQL_CONNECTION,
    "aiomysql": {
        **_MYSQL_CONNECTION,
        # asyncmy's fails.
        "set_charset": DriverKind(
            lambda connection, driver: driver.set_charset("latin1"),
            _looks("SELECT @@character_set_client"),
        ),
    },
}
