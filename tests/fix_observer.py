"""The outside observer: looks at a server with a plain, synchronous driver.

It uses nothing of pytest_asyncdb and decides whether something leaked. PostgreSQL is
watched by psycopg, MySQL and MariaDB by PyMySQL, and SQLite by a second ``sqlite3`` connection: to
the name of an in-memory database, which nobody outside of the process can see, or to a file.
"""

from __future__ import annotations

import abc
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from sqlalchemy.engine import URL

#: What every database that the plugin makes begins with.
PREFIX = "asyncdb_"

Rows = list[tuple[Any, ...]]


class Observer(abc.ABC):
    """A look at one server from outside; every call opens and closes a connection."""

    #: What makes DROP DATABASE wait for nobody.
    force = ""

    @abc.abstractmethod
    def connect(self, database: str | None = None) -> Any:
        """A plain connection of the driver, committing each statement by itself."""

    @abc.abstractmethod
    def databases(self) -> set[str]:
        """The databases that bear our prefix."""

    @abc.abstractmethod
    def tables(self, connection: Any) -> list[str]:
        """The tables of the database that *connection* is to."""

    @abc.abstractmethod
    def connections(self, database: str) -> list[int]:
        """The ids of the connections to a database, without the observer's own."""

    @abc.abstractmethod
    def kill(self, connection: int) -> None:
        """End a connection, as an administrator would."""

    def query(self, sql: str, database: str | None = None) -> Rows:
        """Run one statement and return its rows."""
        with closing(self.connect(database)) as connection:
            return rows(connection, sql)

    def quote(self, name: str) -> str:
        return f'"{name}"'

    @contextmanager
    def throw_away(self, database: str) -> Iterator[None]:
        """A database for as long as the context is entered, whoever is connected at its end."""
        self.query(f"CREATE DATABASE {database}")
        try:
            yield
        finally:
            # What a cancelled statement holds would make DROP wait.
            for connection in self.connections(database):
                self.kill(connection)
            self.query(f"DROP DATABASE {database}{self.force}")

    def look(self, database: str) -> dict[str, Rows] | None:
        """Like :meth:`dump`; None where the database is gone, as after a breach."""
        return self.dump(database) if database in self.databases() else None

    def dump(self, database: str) -> dict[str, Rows]:
        """Every table with its rows, sorted."""
        with closing(self.connect(database)) as connection:
            return {
                table: sorted(rows(connection, f"SELECT * FROM {self.quote(table)}"), key=repr)
                for table in self.tables(connection)
            }


def rows(connection: Any, sql: str) -> Rows:
    """What one statement gives on a connection of an observer."""
    cursor = connection.cursor()
    cursor.execute(sql)
    return [tuple(row) for row in cursor.fetchall()] if cursor.description else []


class PostgresObserver(Observer):
    """Looks at PostgreSQL with psycopg."""

    force = " WITH (FORCE)"

    def __init__(self, url: URL) -> None:
        self.url = url

    def connect(self, database: str | None = None) -> Any:
        return psycopg.connect(
            host=self.url.host,
            port=self.url.port,
            user=self.url.username,
            password=self.url.password,
            dbname=database or self.url.database,
            autocommit=True,
            # A lock that a test left behind is an answer, not something to wait for.
            options="-c lock_timeout=3000 -c statement_timeout=20000",
        )

    def databases(self) -> set[str]:
        names = self.query("SELECT datname FROM pg_database")
        return {name for (name,) in names if name.startswith(PREFIX)}

    def tables(self, connection: Any) -> list[str]:
        sql = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
        return [name for (name,) in rows(connection, sql)]

    def connections(self, database: str) -> list[int]:
        return [
            pid
            for (pid,) in self.query(
                "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                f"AND datname = '{database}' AND backend_type = 'client backend'"
            )
        ]

    def kill(self, connection: int) -> None:
        self.query(f"SELECT pg_terminate_backend({connection})")


class MySQLObserver(Observer):
    """Looks at MySQL or MariaDB with PyMySQL."""

    def __init__(self, url: URL) -> None:
        self.url = url

    def connect(self, database: str | None = None) -> Any:
        return pymysql.connect(
            host=self.url.host,
            port=self.url.port or 3306,
            user=self.url.username,
            password=self.url.password or "",
            database=database,
            autocommit=True,
            charset="utf8mb4",
            ssl_disabled=True,  # else it reads all certificates of the machine for each
            init_command="SET SESSION lock_wait_timeout = 3, innodb_lock_wait_timeout = 3",
        )

    def databases(self) -> set[str]:
        return {name for (name,) in self.query("SHOW DATABASES") if name.startswith(PREFIX)}

    def tables(self, connection: Any) -> list[str]:
        sql = "SHOW FULL TABLES WHERE Table_type = 'BASE TABLE'"
        return sorted(name for name, _ in rows(connection, sql))

    def connections(self, database: str) -> list[int]:
        # Not information_schema.processlist: on MySQL it fails if any session runs a statement with
        # an emoji. The observer's own connection has no database.
        return [number for number, _, _, db, *_ in self.query("SHOW PROCESSLIST") if db == database]

    def kill(self, connection: int) -> None:
        try:
            self.query(f"KILL {connection}")
        except pymysql.err.OperationalError as error:
            if error.args[0] != 1094:  # it has ended meanwhile
                raise

    def quote(self, name: str) -> str:
        return f"`{name}`"


class SQLiteObserver(Observer):
    """Looks at a named in-memory database of this process, or at a file, with ``sqlite3``."""

    def connect(self, database: str | None = None) -> Any:
        target = ":memory:"
        if database and database.startswith("file:"):
            target = f"{database}?vfs=memdb"
        elif database:
            target = f"file:{database}?mode=rw"
        return sqlite3.connect(target, uri=True, isolation_level=None, timeout=3)

    def databases(self) -> set[str]:
        return set()  # SQLite keeps no list of them

    def look(self, database: str) -> dict[str, Rows] | None:
        if not database.startswith("file:") and not Path(database).exists():
            return None
        return self.dump(database) or None  # nobody holds it: opening it made an empty one

    def tables(self, connection: Any) -> list[str]:
        sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        return sorted(name for (name,) in rows(connection, sql))

    def connections(self, database: str) -> list[int]:
        return []

    def kill(self, connection: int) -> None:
        raise NotImplementedError("an in-memory database has no connection to end")


def observer_of(url: URL | None) -> Observer:
    """The observer of the server at *url*; None: SQLite in this process."""
    if url is None:
        return SQLiteObserver()
    family = PostgresObserver if url.get_backend_name() == "postgresql" else MySQLObserver
    return family(url)


class Watch:
    """A plugin of an inner run: looks at the test database after every test; where each test
    has a database of its own, before it.

    Args:
        observer: How to look.
        expected: Every table that the template has, with its rows.

    Attributes:
        urls: The URL of each test's database, by node id.
        leaks: What was found elsewhere than in the template, by node id.
    """

    def __init__(self, observer: Observer, expected: Mapping[str, Sequence[Any]]) -> None:
        self.observer = observer
        self.expected = {table: list(rows) for table, rows in expected.items()}
        self.urls: dict[str, URL] = {}
        self.leaks: dict[str, dict[str, Rows]] = {}
        self.looked: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[Any]:
        result = yield
        if fixturedef.argname == "_asyncdb_view":  # below every fixture with a database
            self.urls[request.node.nodeid] = result.url
            if _has_its_own(request.node):
                self._look(request.node)
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: Any) -> Iterator[Any]:
        result = yield
        if item.nodeid in self.urls and not _has_its_own(item):
            self._look(item)
        return result

    def _look(self, item: pytest.Item) -> None:
        self.looked.append(item.nodeid)
        found = self.observer.look(self.urls[item.nodeid].database or "")
        if found not in (None, self.expected):
            self.leaks[item.nodeid] = found


def _has_its_own(item: pytest.Item) -> bool:
    """Is the test's strategy ``copy``, by its marker or by the command line?"""
    asked = [m.kwargs["isolation"] for m in item.iter_markers("asyncdb") if "isolation" in m.kwargs]
    return [*asked, item.config.getoption("asyncdb_isolation")][0] == "copy"


def left_behind(observer: Observer, output: str) -> set[str]:
    """The databases that an inner run has left on the server.

    Other inner runs use the server at the same time; a run's databases bear its id.

    Args:
        output: What the inner run has printed, with ``-p run_id`` among its arguments.
    """
    (run,) = re.findall(r"^run id: (\w{8})$", output, re.MULTILINE)
    return {name for name in observer.databases() if name.startswith(f"{PREFIX}{run}_")}
