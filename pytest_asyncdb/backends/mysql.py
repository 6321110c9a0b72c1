"""MySQL and MariaDB as data: two servers with one protocol and the same two drivers.

``_MySQLFamily`` holds what they share. Their programs, images and versions differ. The drivers are
in ``mysql_drivers.py``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import ClassVar

from pytest_asyncdb import abc
from pytest_asyncdb.backends.mysql_drivers import Aiomysql, Asyncmy
from pytest_asyncdb.backends.mysql_dump import make_copier
from pytest_asyncdb.backends.mysql_reset import MySQLRestorer
from pytest_asyncdb.backends.mysql_tables import on_processlist

_THROW_AWAY = (
    "--skip-log-bin",
    "--innodb-flush-log-at-trx-commit=0",
    "--skip-innodb-doublewrite",
    # Otherwise each TRUNCATE, CREATE and DROP writes statistics into tables of the server.
    "--innodb-stats-persistent=OFF",
    "--innodb-buffer-pool-size=64M",
    "--character-set-server=utf8mb4",
    "--max-connections=200",
    # A session uses one instance. If there are 16, as on MySQL, each has room for 250 tables.
    "--table-open-cache-instances=1",
    # For the user's own engines; Backend.lock_wait limits the test's connections.
    "--innodb-lock-wait-timeout=20",
    "--lock-wait-timeout=20",
    # Otherwise the events of the schema run in templates and copies.
    "--event-scheduler=OFF",
)


#: One connection of the account's own limit is left out: it holds the run's lock.
_FREE_CONNECTIONS = """
SELECT least(
    @@max_connections - variable_value,
    CASE WHEN @@max_user_connections > 0 THEN @@max_user_connections - 1 ELSE 100000 END
)
FROM {status} WHERE variable_name = 'Threads_connected'
"""


def _escaped(value: str) -> str:
    """Return a value as an option file takes it between quotes."""
    return value.replace("\\", r"\\").replace('"', r"\"")


class _MySQLFamily(abc.Backend):
    dialect = "mysql"
    schemas_are_databases = True
    url_query: ClassVar[Mapping[str, str]] = {"charset": "utf8mb4"}
    drivers = (Asyncmy, Aiomysql)
    capabilities = abc.Capabilities(
        transactional_ddl=False,
        several_connections=True,
        sequences_roll_back=False,
        schemas=False,
        deadlock_ends_transaction=True,
    )
    #: 1213, ER_LOCK_DEADLOCK: InnoDB rolls the whole transaction back. With the server's option
    #: innodb_rollback_on_timeout, it does so for 1205, ER_LOCK_WAIT_TIMEOUT, too.
    transaction_ending_errors = frozenset({1205, 1213})
    #: ER_CANT_CHANGE_TX_CHARACTERISTICS, errors about variables that no transaction can change, and
    #: about XA (1400).
    outside_transactions = "^(1400|1568|1679|1694|1766):"
    lock_timeout_codes = frozenset({1205})
    #: ER_DBACCESS_DENIED_ERROR, ER_TABLEACCESS_DENIED_ERROR, ER_SPECIFIC_ACCESS_DENIED_ERROR.
    access_denied_codes = frozenset({1044, 1142, 1227})
    #: ER_OPTION_PREVENTS_STATEMENT, ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION, ER_READ_ONLY_MODE.
    read_only_codes = frozenset({1290, 1792, 1836})
    after_rollback = ("USE `{database}`",)
    create_right = "ALL on databases whose names begin with asyncdb_"
    create_grant = r"GRANT ALL ON `asyncdb\_%`.* TO '{user}'"
    probe = "DO 0"  # no SELECT: aiomysql ignores the status that comes with rows

    tuning = "no binary log, no flush at commit, no doublewrite"
    user = "root"
    maintenance = "information_schema"
    own_settings = frozenset({"port", "bind_address", "socket", "datadir", "event_scheduler"})

    def set_at_start(self, name: str, value: str) -> Sequence[str]:
        return (f"--{name.replace('_', '-')}={value}",)

    def setting_query(self, name: str) -> str:
        return f"SELECT @@global.{name.replace('-', '_')}"

    def create_database(self, name: str) -> Sequence[str]:
        return (f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4",)

    async def copier(self, sql: abc.Sql, template: str, server: abc.Server) -> abc.Copier:
        return await make_copier(sql, template)

    def restorer(
        self, sql: abc.Sql, database: abc.DatabaseRef, template: abc.DatabaseRef
    ) -> abc.Restorer:
        return MySQLRestorer(sql, database.name, template.name)

    def client_command(
        self, server: abc.Server, file: str, database: str
    ) -> tuple[Sequence[str], str]:
        words = {"host": server.host, "port": server.port, "user": server.user}
        words |= {"password": server.password, "socket": dict(server.query).get("unix_socket")}
        # For "localhost" a client uses a socket, a driver uses an address.
        words |= {} if words["socket"] else {"protocol": "TCP"}
        lines = [f'{key}="{_escaped(str(value))}"\n' for key, value in words.items() if value]
        command = (self.name, f"--defaults-extra-file={file}", database)
        return command, "".join(["[client]\n", *lines])

    def drop_database(self, name: str, server: abc.Server) -> Sequence[str]:
        return (f"DROP DATABASE IF EXISTS `{name}`",)

    def end_connections(self, database: str) -> Sequence[str]:
        # DROP waits for the metadata locks of a transaction that was left open. A database that is
        # read only cannot be dropped.
        return on_processlist(
            "SELECT concat('KILL ', id) FROM {processlist} "
            f"WHERE db = '{database}' AND id <> connection_id() /*!80022 UNION ALL "
            f"SELECT 'ALTER DATABASE `{database}` READ ONLY = 0' FROM information_schema."
            f"schemata_extensions WHERE schema_name = '{database}' AND options LIKE '%=1%' */"
        )

    def stop_events(self, database: str, server: abc.Server) -> Sequence[str]:
        if server.managed:  # see _THROW_AWAY
            return ()
        return (
            "SELECT concat('ALTER EVENT `', event_schema, '`.`', replace(event_name, '`', '``'), "
            "'` DISABLE') FROM information_schema.events "
            f"WHERE event_schema = '{database}' AND status = 'ENABLED'",
        )

    def lock_timeout(self, seconds: float) -> Sequence[str]:
        whole = max(1, round(seconds))
        return (f"SET SESSION innodb_lock_wait_timeout = {whole}, lock_wait_timeout = {whole}",)

    def at_connect(self) -> Sequence[str]:
        # If a session differs from the server, connect_args have set its own limit. The cast is
        # needed because for MySQL the result of LEAST is not an integer.
        limits = (
            f"{name} = cast(if(@@SESSION.{name} = @@GLOBAL.{name}, "
            f"least(@@GLOBAL.{name}, {round(self.lock_wait)}), @@SESSION.{name}) AS UNSIGNED)"
            for name in ("innodb_lock_wait_timeout", "lock_wait_timeout")
        )
        return (f"SET SESSION {', '.join(limits)}",)

    def list_databases(self) -> str:
        return "SELECT schema_name FROM information_schema.schemata"

    def sessions(self, prefix: str) -> Sequence[str]:
        return on_processlist(
            f"SELECT id FROM {{processlist}} WHERE left(db, {len(prefix)}) = '{prefix}'"
        )

    def hold_lock(self, run: str) -> str | None:
        return f"SELECT get_lock('asyncdb_{run}', 0)"

    def keep_session(self) -> Sequence[str]:
        return ("SET SESSION wait_timeout = 86400",)


def _as_root(place: abc.LocalPlace) -> tuple[str, ...]:
    """Return the option that the programs demand as root, and refuse otherwise."""
    return ("--user=root",) if place.root else ()


def _initialise_mysql(place: abc.LocalPlace) -> list[str]:
    return [
        *(place.programs["mysqld"], "--no-defaults", *_as_root(place)),
        *("--initialize-insecure", f"--datadir={place.data}"),
    ]


def _initialise_mariadb(place: abc.LocalPlace) -> list[str]:
    return [
        *(place.programs["mariadb-install-db"], "--no-defaults", *_as_root(place)),
        *(f"--datadir={place.data}", "--auth-root-authentication-method=normal"),
        *("--skip-test-db", "--skip-name-resolve"),
    ]


def _serve(program: str, option: str, place: abc.LocalPlace, port: int) -> list[str]:
    """Return the command of the server; *option* is one that only this server needs."""
    return [
        *(place.programs[program], "--no-defaults", *_as_root(place)),
        *(f"--datadir={place.data}", f"--tmpdir={place.data}"),
        *(f"--init-file={place.credentials}", f"--port={port}", "--bind-address=127.0.0.1"),
        # Relative to the data folder, because the path of a socket must be short.
        *("--socket=socket", "--pid-file=pid"),
        *(*_THROW_AWAY, option),
    ]


_LOCAL = abc.LocalRecipe(
    programs=("mysqld",),
    folders=("/usr/sbin", "/usr/local/mysql/bin", "/opt/homebrew/opt/mysql*/bin"),
    version_command=("--no-defaults", "--version"),
    initialise=_initialise_mysql,
    serve=functools.partial(_serve, "mysqld", "--mysqlx=OFF"),
    # MySQL has only the first account. It resolves names, so 127.0.0.1 is localhost.
    credentials="".join(
        f"ALTER USER IF EXISTS 'root'@'{host}' IDENTIFIED BY '{{password}}';\n"
        for host in ("localhost", "127.0.0.1", "::1")
    ),
    recognises=lambda line: "MariaDB" not in line,
)


def _container(image: str, tag: str) -> abc.ContainerRecipe:
    prefix = image.upper()
    return abc.ContainerRecipe(
        image=image,
        tag=tag,
        port=3306,
        environment=lambda _: {
            f"{prefix}_ROOT_PASSWORD": "{password}",
            f"{prefix}_INITDB_SKIP_TZINFO": "1",
        },
        command=(*_THROW_AWAY, "--skip-name-resolve"),
        data_folder="/var/lib/mysql",
    )


class MySQL(_MySQLFamily):
    """MySQL 8 and newer."""

    name = "mysql"
    label = "MySQL"
    oldest = "8.0"
    schemes = ("mysql",)
    free_connections_query = _FREE_CONNECTIONS.format(status="performance_schema.global_status")
    local = _LOCAL
    container = _container("mysql", "9.7")


class MariaDB(_MySQLFamily):
    """MariaDB 10.6 and newer."""

    name = "mariadb"
    label = "MariaDB"
    oldest = "10.6"
    dialect = "mariadb"
    schemes = ("mariadb",)
    free_connections_query = _FREE_CONNECTIONS.format(status="information_schema.global_status")
    local = _LOCAL._replace(
        programs=("mariadbd", "mariadb-install-db"),
        folders=("/usr/sbin", "/usr/bin", "/opt/homebrew/opt/mariadb*/bin"),
        initialise=_initialise_mariadb,
        serve=functools.partial(_serve, "mariadbd", "--skip-name-resolve"),
        recognises=lambda line: "MariaDB" in line,
    )
    container = _container("mariadb", "11.8")
