"""PostgreSQL as data: drivers, server programs, image, and the SQL that creates databases.

``servers/`` runs the programs and images, and ``isolation/`` keeps tests apart. The drivers are in
``postgres_drivers.py``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from pytest_asyncdb import abc
from pytest_asyncdb.backends import postgres_settings
from pytest_asyncdb.backends.postgres_copy import FREE_TO_DROP, properties
from pytest_asyncdb.backends.postgres_drivers import Asyncpg, Psycopg
from pytest_asyncdb.backends.postgres_extensions import create_extensions

#: A server that is removed after the run needs no durability:
#: https://www.postgresql.org/docs/current/non-durability.html
_THROW_AWAY = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "jit=off",
    "max_connections=200",
    "max_prepared_transactions=20",  # by default there are none
    "checkpoint_timeout=30min",
    "max_wal_size=1GB",
    "wal_level=minimal",
    "max_wal_senders=0",
)
#: The first number of the plugin's advisory locks: "asdb" in ASCII.
_LOCKS = 0x61736462


#: Every glibc and musl has C.UTF-8; macOS does not.
_LOCALE = "C.UTF-8" if sys.platform == "linux" else "en_US.UTF-8"
#: Shared memory is in files, which are removed with the data folder. In /dev/shm it would stay.
_MEMORY = "dynamic_shared_memory_type=mmap"


def _log_in(version: str, *settings: str) -> tuple[str, ...]:
    """Return arguments of initdb for a fast log-in. From version 16 on they include *settings*.

    Hashing the password 4096 times takes 5 to 10 ms of each connection, and does not make a random
    password safer.
    """
    # The tag of an image may be "latest", "pg17", or "0.8.0-pg17".
    number = re.search(r"pg(\d+)", version) or re.match(r"(\d+)", version)
    if number is not None and int(number[1]) < 16:
        return ("--auth-host=md5",)
    settings = ("scram_iterations=1", *settings)
    return ("--auth-host=scram-sha-256", *(f"--set={setting}" for setting in settings))


def _environment(tag: str) -> dict[str, str]:
    return {
        "POSTGRES_PASSWORD": "{password}",
        "POSTGRES_INITDB_ARGS": " ".join(["--no-sync", *_log_in(tag)]),
        # Not below the image's volume, because its place differs between 17 and 18.
        "PGDATA": "/asyncdb/data",
    }


def _initialise(place: abc.LocalPlace) -> list[str]:
    return [
        *(place.programs["initdb"], "-D", place.data, "-U", "postgres"),
        *("-E", "UTF8", f"--locale={_LOCALE}", "--no-sync", "--no-instructions"),
        *("--auth-local=reject", *_log_in(place.version, _MEMORY)),
        f"--pwfile={place.credentials}",
    ]


def _serve(place: abc.LocalPlace, port: int) -> list[str]:
    own = (f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", _MEMORY)
    return [
        *(place.programs["postgres"], "-D", place.data),
        *(word for setting in (*own, *_THROW_AWAY) for word in ("-c", setting)),
    ]


_FREE_CONNECTIONS = """
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


#: Parameters of a URL that have the same meaning for psql.
_LIBPQ = ("host", "sslmode", "sslrootcert", "sslcert", "sslkey")


def _quoted(value: str) -> str:
    """Return a value as libpq's connection strings take it."""
    if value and not set(value) & set(" '\\"):
        return value
    return "'" + value.replace("\\", r"\\").replace("'", r"\'") + "'"


class Postgres(abc.Backend):
    """PostgreSQL 14 and newer.

    ``DROP DATABASE … WITH (FORCE)`` needs version 13, ``initdb --no-instructions`` needs version
    14.
    """

    name = "postgres"
    aliases = ("postgresql",)
    label = "PostgreSQL"
    dialect = "postgresql"
    #: active_sql_transaction, invalid_transaction_termination (a procedure that commits), and
    #: unsafe_new_enum_value_usage.
    outside_transactions = "^(25001|2D000|55P04):"
    failed_transaction = "25P02"
    lock_timeout_codes = frozenset({"55P03"})  # lock_not_available
    in_use_codes = frozenset({"55006"})  # object_in_use
    schemes = ("postgresql", "postgres")
    oldest = "14"
    drivers = (Asyncpg, Psycopg)
    capabilities = abc.Capabilities(
        transactional_ddl=True, several_connections=True, sequences_roll_back=False, schemas=True
    )
    deferred_query = "SELECT EXISTS (SELECT FROM pg_constraint WHERE condeferrable)"
    deferred_check = (
        "SAVEPOINT asyncdb_deferred",
        "SET CONSTRAINTS ALL IMMEDIATE",
        "ROLLBACK TO SAVEPOINT asyncdb_deferred",
        postgres_settings.END_DEFERRING,
    )
    read_only = ("SET TRANSACTION READ ONLY",)
    access_denied_codes = frozenset({"42501"})  # insufficient_privilege
    read_only_codes = frozenset({"25006"})  # read_only_sql_transaction
    create_right = "CREATEDB"
    create_grant = 'ALTER ROLE "{user}" CREATEDB'
    after_rollback = (
        "SELECT pg_catalog.pg_advisory_unlock_all()",
        "DISCARD SEQUENCES",
        # Fails if PREPARE has left statements. DEALLOCATE ALL would also end those of the drivers.
        "SELECT CAST('left by PREPARE: ' OPERATOR(pg_catalog.||) name AS integer)"
        " FROM pg_catalog.pg_prepared_statement() WHERE from_sql",
    )
    # Parts of what DISCARD ALL does. DISCARD ALL itself cannot run in a script.
    after_commits = (
        *("SET SESSION AUTHORIZATION DEFAULT", "RESET ROLE", "RESET ALL"),
        *("CLOSE ALL", "UNLISTEN *", "DISCARD TEMP"),
    )
    free_connections_query = _FREE_CONNECTIONS
    free_to_drop_query = FREE_TO_DROP
    own_settings = frozenset(
        {"port", "listen_addresses", "unix_socket_directories", "data_directory", "hba_file"}
    )
    tuning = "no fsync, no full-page writes"
    user = "postgres"
    maintenance = "postgres"
    local = abc.LocalRecipe(
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
        recognises=lambda line: "PostgreSQL" in line,
    )
    container = abc.ContainerRecipe(
        image="postgres",
        tag="17",
        port=5432,
        environment=_environment,
        command=tuple(word for setting in _THROW_AWAY for word in ("-c", setting)),
        data_folder="/asyncdb",
    )

    def set_at_start(self, name: str, value: str) -> Sequence[str]:
        return ("-c", f"{name}={value}")

    def setting_query(self, name: str) -> str:
        return f"SELECT current_setting('{name}', true)"

    async def after_create(
        self, sql: abc.Sql, server: abc.Server, extensions: Sequence[str]
    ) -> None:
        await create_extensions(sql, self, server, extensions)

    local_settings = staticmethod(postgres_settings.local_settings)
    at_commit = staticmethod(postgres_settings.at_commit)
    keep_setting = staticmethod(postgres_settings.keep_and_put_back)

    def client_command(
        self, server: abc.Server, file: str, database: str
    ) -> tuple[Sequence[str], str]:
        words = {"host": server.host, "port": server.port, "user": server.user}
        words |= {key: value for key, value in server.query if key in _LIBPQ}
        words |= {"dbname": database, "passfile": file}
        info = " ".join(f"{key}={_quoted(str(value))}" for key, value in words.items() if value)
        password = (server.password or "").replace("\\", r"\\").replace(":", r"\:")
        return ("psql", info), f"*:*:*:*:{password}\n"

    def begin(self, isolation_level: str | None) -> str:
        return f"BEGIN ISOLATION LEVEL {isolation_level}" if isolation_level else "BEGIN"

    def create_database(self, name: str) -> Sequence[str]:
        return (f'CREATE DATABASE "{name}"',)

    def drop_database(self, name: str, server: abc.Server) -> Sequence[str]:
        return (f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)',)

    def drop_again(self, name: str) -> Sequence[str]:
        # WITH (FORCE) fails while autovacuum works in the database, unless the account may end any
        # session. Without FORCE, DROP ends autovacuum for every account.
        return (*self.end_idle(name), f'DROP DATABASE IF EXISTS "{name}"')

    async def copier(self, sql: abc.Sql, template: str, server: abc.Server) -> abc.Copier:
        # WAL_LOG, the default since 15, writes each page twice. FILE_COPY makes checkpoints, which
        # are expensive if the server waits for its disk.
        ((fsync,),) = await sql.fetch("SHOW fsync")
        cheap = fsync == "off" and int(server.version.split(".")[0]) >= 15
        others = await properties(sql, template)
        create = f'TEMPLATE "{template}"{" STRATEGY FILE_COPY" if cheap else ""}'
        # This limit for locks costs no connection a round trip, and holds for other engines, too.
        # What the user sets for the database, a role or a connection has precedence.
        limit = f"SET lock_timeout = '{round(self.lock_wait * 1000)}ms'"
        return lambda name: (
            f'CREATE DATABASE "{name}" {create}',
            f'ALTER DATABASE "{name}" {limit}',
            *others(name),
        )

    def restorer(
        self, sql: abc.Sql, database: abc.DatabaseRef, template: abc.DatabaseRef
    ) -> abc.Restorer:
        from pytest_asyncdb.backends.postgres_reset import PostgresRestorer

        return PostgresRestorer(sql)

    def lock_timeout(self, seconds: float) -> Sequence[str]:
        return (f"SET lock_timeout = {round(seconds * 1000)}",)

    def list_databases(self) -> str:
        return "SELECT datname FROM pg_database"

    def sessions(self, prefix: str) -> Sequence[str]:
        return (
            f"SELECT pid FROM pg_stat_activity WHERE left(datname, {len(prefix)}) = '{prefix}' "
            "AND backend_type = 'client backend'",
        )

    def hold_lock(self, run: str) -> str:
        number = int(run, 16)
        signed = number - 2**32 if number >= 2**31 else number
        # A lock belongs to a database, and runs may have different maintenance databases.
        return (
            f"SELECT pg_try_advisory_lock({_LOCKS}, {signed}) AND NOT EXISTS (SELECT FROM pg_locks "
            f"WHERE locktype = 'advisory' AND classid = {_LOCKS} AND objid = {number} "
            "AND objsubid = 2 AND pid <> pg_backend_pid())"
        )

    def hold_lock_in_transaction(self, run: str) -> Sequence[str]:
        query = self.hold_lock(run).replace("pg_try_advisory_lock", "pg_try_advisory_xact_lock")
        return ("BEGIN", "SET LOCAL idle_in_transaction_session_timeout = 0", query)

    def end_idle(self, database: str) -> Sequence[str]:
        return (
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            f"WHERE datname = '{database}' AND pg_has_role(usesysid, 'MEMBER')",
        )

    def version_query(self) -> str:
        address = "concat_ws(':', host(inet_server_addr()), inet_server_port())"
        return f"SELECT version(), pg_backend_pid(), {address}"

    def keep_session(self) -> Sequence[str]:
        keepalives = ("idle = 60", "interval = 10", "count = 6")
        return ("SET idle_session_timeout = 0", *(f"SET tcp_keepalives_{k}" for k in keepalives))
