"""PostgreSQL as data: its drivers, its programs, its image, its SQL for databases.

How programs and images are run is in ``servers/``; how tests are kept apart in
``isolation/``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from pytest_asyncdb.abc import (
    Backend,
    Capabilities,
    ContainerRecipe,
    Copier,
    DatabaseRef,
    Driver,
    LocalPlace,
    LocalRecipe,
    Restorer,
    Server,
    Sql,
)
from pytest_asyncdb.backends.postgres_locks import CANCEL, CONNECTED, HOLDERS, WAITS

if TYPE_CHECKING:
    import asyncio

    from sqlalchemy.engine import URL

#: Durability is of no use to a server that dies with the run:
#: https://www.postgresql.org/docs/current/non-durability.html
_THROW_AWAY = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "autovacuum=off",
    "jit=off",
    "max_connections=200",
    "max_prepared_transactions=20",  # by default there are none
    "checkpoint_timeout=30min",
    "max_wal_size=1GB",
    "wal_level=minimal",
    "max_wal_senders=0",
)
#: The first number of our advisory locks: "asdb".
_LOCKS = 0x61736462
_TUNING = "no fsync, no full-page writes, no autovacuum"


class Asyncpg(Driver):
    """https://magicstack.github.io/asyncpg/."""

    name = "asyncpg"
    module = "asyncpg"
    extra = "asyncpg"

    def adapt(self, adapted: Any) -> None:
        adapted.autocommit = True

    async def run(self, connection: Any, statements: Sequence[str]) -> Sequence[Any]:
        await connection.execute("; ".join(statements))
        return ()

    async def ask(self, connection: Any, query: str) -> Sequence[tuple[Any, ...]]:
        return [tuple(row) for row in await connection.fetch(query)]

    def in_transaction(self, connection: Any) -> bool | None:
        return bool(connection.is_in_transaction())

    def is_closed(self, connection: Any) -> bool:
        return bool(connection.is_closed())

    def socket(self, connection: Any) -> Any:
        return connection._transport.get_extra_info("socket")

    async def cancel(
        self,
        connection: Any,
        statement: asyncio.Future[Any],
        side: Callable[[str], Coroutine[Any, Any, None]],
    ) -> None:
        statement.cancel()  # asyncpg cancels it on the server and waits before the next one

    def error_code(self, error: BaseException) -> int | str | None:
        return getattr(error, "sqlstate", None)

    def session(self, connection: Any) -> int | None:
        return int(connection.get_server_pid())


class Psycopg(Driver):
    """https://www.psycopg.org/psycopg3/docs/."""

    name = "psycopg"
    module = "psycopg"
    extra = "psycopg"

    def adapt(self, adapted: Any) -> None:
        adapted.autocommit = True

    async def run(self, connection: Any, statements: Sequence[str]) -> Sequence[Any]:
        await connection.execute("; ".join(statements))
        if statements[-1] == "ROLLBACK" and hasattr(connection, "_prepared"):
            # As its own rollback() does: else what comes in every test is counted until it is
            # prepared, a round trip each, and forgotten with the next ROLLBACK.
            connection._prepared.clear()
        return ()

    async def ask(self, connection: Any, query: str) -> Sequence[tuple[Any, ...]]:
        cursor = await connection.execute(query)
        return await cursor.fetchall()  # type: ignore[no-any-return]

    def in_transaction(self, connection: Any) -> bool | None:
        return connection.info.transaction_status.name in ("INTRANS", "INERROR", "ACTIVE")

    def is_closed(self, connection: Any) -> bool:
        return bool(connection.closed)

    def socket(self, connection: Any) -> Any:
        return connection.fileno()

    async def cancel(
        self,
        connection: Any,
        statement: asyncio.Future[Any],
        side: Callable[[str], Coroutine[Any, Any, None]],
    ) -> None:
        statement.cancel()  # psycopg cancels it on the server and waits for the answer

    def error_code(self, error: BaseException) -> int | str | None:
        return getattr(error, "sqlstate", None)

    def session(self, connection: Any) -> int | None:
        return int(connection.info.backend_pid)


#: Every glibc and musl has C.UTF-8; macOS does not.
_LOCALE = "C.UTF-8" if sys.platform == "linux" else "en_US.UTF-8"


def _log_in(version: str) -> tuple[str, ...]:
    """Arguments of initdb for a log-in that takes no time: our passwords are random, and nothing
    is gained by hashing them 4096 times, which takes 5 to 10 ms of each connection."""
    number = re.match(r"\d+", version)  # a tag of an image may be "latest"
    if number is not None and int(number[0]) < 16:
        return ("--auth-host=md5",)
    return ("--auth-host=scram-sha-256", "--set=scram_iterations=1")


def _environment(tag: str) -> dict[str, str]:
    return {
        "POSTGRES_PASSWORD": "{password}",
        "POSTGRES_INITDB_ARGS": " ".join(["--no-sync", *_log_in(tag)]),
        # Not below the image's volume, whose place differs between 17 and 18.
        "PGDATA": "/asyncdb/data",
    }


def _initialise(place: LocalPlace) -> list[str]:
    return [
        *(place.programs["initdb"], "-D", place.data, "-U", "postgres"),
        *("-E", "UTF8", f"--locale={_LOCALE}", "--no-sync", "--no-instructions"),
        *("--auth-local=reject", *_log_in(place.version), f"--pwfile={place.credentials}"),
    ]


def _serve(place: LocalPlace, port: int) -> list[str]:
    settings = (
        f"port={port}",
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "dynamic_shared_memory_type=mmap",  # files in the data folder, gone with it
        *_THROW_AWAY,
    )
    return [
        *(place.programs["postgres"], "-D", place.data),
        *(word for setting in settings for word in ("-c", setting)),
    ]


#: Not what belongs to an extension, nor what is dropped with what it belongs to.
_CONTENTS = """
SELECT lower(kind) || ' ' || name, 'DROP ' || kind || ' IF EXISTS ' || name || ' CASCADE'
FROM (
    SELECT 1, 'EXTENSION', quote_ident(extname), 'pg_extension'::regclass, oid
    FROM pg_extension WHERE extname <> 'plpgsql'
    UNION ALL
    SELECT 2, 'SCHEMA', quote_ident(nspname), 'pg_namespace'::regclass, oid
    FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public')
    UNION ALL
    SELECT 3, CASE relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' WHEN 'c' THEN 'TYPE'
            WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END,
        format('%I.%I', nspname, relname), 'pg_class'::regclass, c.oid
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND nspname !~ '^pg_'
        AND nspname <> 'information_schema'
    UNION ALL
    SELECT 4, CASE typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END,
        format('%I.%I', nspname, typname), 'pg_type'::regclass, t.oid
    FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace
    WHERE typtype IN ('d', 'e', 'r') AND nspname !~ '^pg_' AND nspname <> 'information_schema'
    UNION ALL
    SELECT 5, 'ROUTINE',
        format('%I.%I(%s)', nspname, proname, pg_get_function_identity_arguments(p.oid)),
        'pg_proc'::regclass, p.oid
    FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
) AS found(rank, kind, name, class, number)
WHERE NOT EXISTS (
    SELECT FROM pg_depend
    WHERE classid = class AND objid = number AND deptype IN ('e', 'i')
)
ORDER BY rank, name
"""


_ROOM = """
SELECT least(
    current_setting('max_connections')::int
    - current_setting('superuser_reserved_connections')::int
    - coalesce(current_setting('reserved_connections', true)::int, 0)
    - (SELECT sum(numbackends) FROM pg_stat_database)::int,
    CASE WHEN rolconnlimit >= 0 THEN rolconnlimit - (
        SELECT count(*) FROM pg_stat_activity WHERE usename = current_user
    )::int END
)
FROM pg_roles WHERE rolname = current_user
"""


#: Parameters of a URL that mean the same to psql.
_LIBPQ = ("host", "sslmode", "sslrootcert", "sslcert", "sslkey")


def _quoted(value: str) -> str:
    """A value in libpq's connection strings."""
    if value and not set(value) & set(" '\\"):
        return value
    return "'" + value.replace("\\", r"\\").replace("'", r"\'") + "'"


class Postgres(Backend):
    """PostgreSQL 14 and newer.

    ``DROP DATABASE … WITH (FORCE)`` is of version 13, ``initdb --no-instructions`` of 14.
    """

    name = "postgres"
    aliases = ("postgresql",)
    label = "PostgreSQL"
    dialect = "postgresql"
    failed_transaction = "25P02"
    lock_timeouts = frozenset({"55P03"})  # lock_not_available
    in_use = frozenset({"55006"})  # object_in_use
    cancelled = frozenset({"57014"})  # query_canceled
    schemes = ("postgresql", "postgres")
    oldest = "14"
    drivers = (Asyncpg, Psycopg)
    capabilities = Capabilities(
        transactional_ddl=True,
        several_connections=True,
        sequences_roll_back=False,
        schemas=True,
    )
    #: Servers that we start have no autovacuum.
    tidy = "VACUUM (SKIP_LOCKED)"
    deferred_exist = "SELECT EXISTS (SELECT FROM pg_constraint WHERE condeferrable)"
    deferred_check = (
        "SAVEPOINT asyncdb_deferred",
        "SET CONSTRAINTS ALL IMMEDIATE",
        "ROLLBACK TO SAVEPOINT asyncdb_deferred",
    )
    denied = frozenset({"42501"})  # insufficient_privilege
    grant = 'ALTER ROLE "{user}" CREATEDB'
    contents = _CONTENTS
    room = _ROOM
    local = LocalRecipe(
        programs=("postgres", "initdb"),
        folders=(
            "/usr/lib/postgresql/*/bin",
            "/usr/pgsql-*/bin",
            "/opt/homebrew/opt/postgresql@*/bin",
        ),
        version_command=("-V",),
        initialise=_initialise,
        serve=_serve,
        credentials="{password}\n",
        stop="SIGQUIT",  # "immediate shutdown": no checkpoint, shared memory removed
        refuses_root=True,
        user="postgres",
        maintenance="postgres",
        tuning=_TUNING,
        recognises=lambda line: "PostgreSQL" in line,
    )
    container = ContainerRecipe(
        image="postgres",
        tag="17",
        port=5432,
        environment=_environment,
        command=tuple(word for setting in _THROW_AWAY for word in ("-c", setting)),
        data_folder="/asyncdb",
        user="postgres",
        maintenance="postgres",
        tuning=f"data in memory, {_TUNING}",
    )

    def url(self, server: Server, driver: str, database: str | None) -> URL:
        from sqlalchemy.engine import URL

        return URL.create(
            f"postgresql+{driver}",
            username=server.user,
            password=server.password,
            host=server.host,
            port=server.port,
            database=database or server.maintenance,
            query=dict(server.query),
        )

    def client(self, server: Server, place: str, database: str) -> tuple[Sequence[str], str]:
        words = {"host": server.host, "port": server.port, "user": server.user}
        words |= {key: value for key, value in server.query if key in _LIBPQ}
        words |= {"dbname": database, "passfile": place}
        info = " ".join(f"{key}={_quoted(str(value))}" for key, value in words.items() if value)
        password = (server.password or "").replace("\\", r"\\").replace(":", r"\:")
        return ("psql", info), f"*:*:*:*:{password}\n"

    def begin(self, isolation_level: str | None) -> str:
        return f"BEGIN ISOLATION LEVEL {isolation_level}" if isolation_level else "BEGIN"

    def create_database(self, name: str) -> Sequence[str]:
        return (f'CREATE DATABASE "{name}"',)

    def drop_database(self, name: str, server: Server) -> Sequence[str]:
        return (f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)',)

    async def copier(self, sql: Sql, template: str, server: Server) -> Copier:
        # WAL_LOG, the default since 15, writes each page twice. Somebody else's server may be a
        # large one, for which the checkpoints of FILE_COPY are dear.
        new = int(server.version.split(".")[0]) >= 15
        strategy = " STRATEGY FILE_COPY" if server.managed and new else ""
        return lambda name: (f'CREATE DATABASE "{name}" TEMPLATE "{template}"{strategy}',)

    def restorer(self, sql: Sql, database: DatabaseRef, template: DatabaseRef) -> Restorer:
        from pytest_asyncdb.backends.postgres_reset import PostgresRestorer

        return PostgresRestorer(sql, self.tidy)

    def lock_timeout(self, seconds: float) -> Sequence[str]:
        return (f"SET lock_timeout = {round(seconds * 1000)}",)

    def waits(self, database: str) -> str | None:
        return WAITS.format(database=database)

    def holders(self, database: str) -> Sequence[str]:
        return (HOLDERS.format(database=database),)

    def connected(self, database: str) -> str | None:
        return CONNECTED.format(database=database)

    def cancel(self, session: int) -> str:
        return CANCEL.format(session=session)

    def list_databases(self) -> str:
        return "SELECT datname FROM pg_database"

    def sessions(self, prefix: str) -> Sequence[str]:
        return (
            f"SELECT pid FROM pg_stat_activity WHERE left(datname, {len(prefix)}) = '{prefix}' "
            "AND backend_type = 'client backend'",
        )

    def hold_lock(self, run: str) -> str | None:
        # Locks belong to a database, and runs may have different maintenance databases.
        return (
            f"SELECT pg_try_advisory_lock({_lock(run)}) AND NOT EXISTS (SELECT FROM pg_locks "
            f"WHERE locktype = 'advisory' AND classid = {_LOCKS} AND objid = {int(run, 16)} "
            "AND objsubid = 2 AND pid <> pg_backend_pid())"
        )

    def release_lock(self, run: str) -> str:
        return f"SELECT pg_advisory_unlock({_lock(run)})"

    def keep_session(self) -> Sequence[str]:
        # The first one is not known before 14.
        return tuple(
            f"SELECT set_config(name, '{value}', false) FROM pg_settings WHERE name = '{name}'"
            for name, value in (
                ("idle_session_timeout", "0"),
                ("tcp_keepalives_idle", "60"),
                ("tcp_keepalives_interval", "10"),
                ("tcp_keepalives_count", "6"),
            )
        )


def _lock(run: str) -> str:
    """The two numbers of a run's advisory lock: ours, and its id as a signed one."""
    number = int(run, 16)
    return f"{_LOCKS}, {number - 2**32 if number >= 2**31 else number}"
