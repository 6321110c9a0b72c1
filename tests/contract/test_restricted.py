"""Accounts without the right to create databases.

The accounts are real ones, made by the observer on each server; so are the refusals.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from fix_observer import MySQLObserver, Observer
from fix_project import QUIET, Project
from fix_servers import WORDS, Servers, Target
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._databases.provisioner import drop_leftovers
from pytest_asyncdb.abc import BackendSpec

PASSWORD = "little-right"


class Account:
    """An account with no right but to one database, which it may fill as it likes."""

    def __init__(self, target: Target, database: str) -> None:
        assert target.server is not None
        self.target = target
        self.database = database
        self.name = f"little_{os.getpid()}"
        self.server: URL = target.server.set(username=self.name, password=PASSWORD)

    def url(self) -> str:
        return self.server.set(database=self.database).render_as_string(hide_password=False)

    @property
    def observer(self) -> Observer:
        return self.target.observer

    @contextlib.contextmanager
    def made(self) -> Iterator[Account]:
        """The account and its database, for as long as the context is entered."""
        look = self.observer
        mysql = isinstance(look, MySQLObserver)
        account = f"'{self.name}'@'%'" if mysql else self.name
        identified = "IDENTIFIED BY" if mysql else "PASSWORD"
        look.query(f"CREATE USER {account} {identified} '{PASSWORD}'")
        try:
            if mysql:
                with look.throw_away(self.database):
                    look.query(f"GRANT ALL ON `{self.database}`.* TO {account}")
                    yield self
            else:
                with look.throw_away(self.database):
                    look.query(f"GRANT ALL ON SCHEMA public TO {account}", self.database)
                    yield self
        finally:
            look.query(f"DROP USER {account}")


@pytest.fixture(params=[w for w in WORDS if w != "sqlite"], ids=lambda w: w.replace("+", "-"))
def target(request: pytest.FixtureRequest, servers: Servers) -> Target:
    return servers.target(request.param)


@pytest.fixture
def account(target: Target) -> Iterator[Account]:
    with Account(target, f"given_{os.getpid()}").made() as made:
        yield made


def run(project: Project, account: Account, *arguments: str):  # type: ignore[no-untyped-def]
    """An inner run as the account."""
    given = account.url()
    return project.pytester.runpytest_inprocess(
        *QUIET, f"--asyncdb={account.target.word}", f"--asyncdb-url={given}", *arguments
    )


def errors_in(result: pytest.RunResult) -> str:
    """The text of the first error, as a whole."""
    lines = str(result.stdout).splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("____")) + 1
    end = next(
        n for n in range(start, len(lines)) if re.match("____|====|---- Cap|---------", lines[n])
    )
    return "\n".join(lines[start:end]).strip()


ONE = "async def test_it(asyncdb_session): assert await names(asyncdb_session) == []"


def test_without_the_right_to_create_databases_the_cure_is_told(
    project: Project, account: Account
) -> None:
    project.tests(ONE)
    result = run(project, account)
    result.assert_outcomes(errors=1)
    right = "ALL on databases whose names begin with asyncdb_"
    if account.target.backend == "postgres":
        right = "CREATEDB"
    label, said, grant = {
        "postgres": (
            "PostgreSQL",
            "permission denied to create database",
            f'ALTER ROLE "{account.name}" CREATEDB',
        ),
        "mysql": ("MySQL", "", rf"GRANT ALL ON `asyncdb\_%`.* TO '{account.name}'"),
        "mariadb": ("MariaDB", "", rf"GRANT ALL ON `asyncdb\_%`.* TO '{account.name}'"),
    }[account.target.backend]
    text = errors_in(result)
    text = re.sub(r"the driver said: \w+: (.*)", r"the driver said: \1", text)
    if not said:
        text = re.sub(r"the driver said: .*Access denied for user.*", "the driver said: ", text)
    text = re.sub(r"<class '.*?'>: ", "", text)
    assert (
        text
        == textwrap.dedent(
            f"""
        the account '{account.name}' may not create databases (--asyncdb-url)

        the driver said: {said}
        The account needs the right {right}.

        To fix this, do one of:
          - let an administrator of the {label} server run: {grant}
          - or leave --asyncdb-url out and let a server be started
        """
        ).strip()
    )


def test_the_told_right_suffices(project: Project, account: Account) -> None:
    """Exactly the statement of the error, as an administrator runs it."""
    project.tests(ONE)
    text = errors_in(run(project, account))
    (grant,) = re.findall(r"server run: (.*)", text)
    account.observer.query(grant)
    result = run(project, account, "--asyncdb-isolation=reset")
    result.assert_outcomes(passed=1)
    result = run(project, account, "--asyncdb-isolation=copy")
    result.assert_outcomes(passed=1)


class Tenant(Account):
    """An account that may create databases, but does not get past row security."""

    @contextlib.contextmanager
    def made(self) -> Iterator[Account]:
        self.observer.query(f"CREATE ROLE {self.name} LOGIN CREATEDB PASSWORD '{PASSWORD}'")
        try:
            yield self
        finally:
            self.observer.query(f"DROP ROLE {self.name}")


async def create_database(url: URL) -> None:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            await connection.exec_driver_sql("CREATE DATABASE never_made")
    finally:
        await engine.dispose()


def test_a_read_only_account_is_named_as_that(project: Project, target: Target) -> None:
    """As on a replica. Control: a plain engine gets the driver's error."""
    assert target.server is not None
    with contextlib.ExitStack() as stack:
        url = target.server.update_query_dict({"init_command": "SET SESSION TRANSACTION READ ONLY"})
        if target.backend == "postgres":
            account = stack.enter_context(Tenant(target, "postgres").made())
            target.observer.query(f"ALTER ROLE {account.name} SET default_transaction_read_only=on")
            url = account.server.set(database="postgres")
        with pytest.raises(DBAPIError, match="(?i)read.only"):
            asyncio.run(create_database(url))
        project.tests(ONE)
        result = project.pytester.runpytest_inprocess(
            *(*QUIET, f"--asyncdb={target.word}", f"--asyncdb-allow-hosts={url.host}"),
            f"--asyncdb-url={url.render_as_string(hide_password=False)}",
        )
    result.assert_outcomes(errors=1)
    said, _, rest = errors_in(result).partition("The server is")
    assert said.startswith(f"the account '{url.username}' may not create databases (--asyncdb-url)")
    assert re.search("(?i)the driver said: .*read.only", said)
    assert f"The server is{rest}" == (
        "The server is read-only, or the account's transactions are.\n\n"
        "To fix this, do one of:\n"
        "  - let --asyncdb-url lead to a server and an account that may write\n"
        "  - or leave --asyncdb-url out and let a server be started"
    )


def test_a_database_that_the_account_may_not_use(project: Project, account: Account) -> None:
    """The URL's database is named as the cause, not the password, and the run does not wait."""
    look, other = account.observer, f"closed_{os.getpid()}"
    project.tests(ONE)
    with look.throw_away(other):
        if account.target.backend == "postgres":
            look.query(f"REVOKE CONNECT ON DATABASE {other} FROM PUBLIC")
        account.database = other
        with pytest.raises(Exception, match=f"denied.* database ['\"]{other}"):
            asyncio.run(create_database(make_url(account.url())))
        result = run(project, account, f"--asyncdb-allow-hosts={account.server.host}")
    result.assert_outcomes(errors=1)
    text = errors_in(result)
    assert re.match(r"the \w+ server refused the database \(--asyncdb-url\)\n", text)
    assert "\n  - name a database in --asyncdb-url to which the account may connect\n" in text
    seconds = re.search(r"asked for ([\d.]+) s", text)
    assert seconds is not None
    assert float(seconds[1]) < 8


@pytest.mark.everyday("postgres+asyncpg")
@pytest.mark.parametrize("word", WORDS[1:3])
def test_what_row_security_hides_does_not_stay(
    project: Project, servers: Servers, word: str
) -> None:
    """The database is replaced, which the summary says; ``changes()`` and checkpoints do not look
    through policies. Control: a look with the same account sees no change."""
    project.ini(asyncdb_metadata=None)
    project.write(
        "conftest.py",
        """
        import pytest

        @pytest.fixture(scope="session")
        def asyncdb_migrate():
            async def migrate(connection):
                for statement in (
                    "CREATE TABLE doc (id SERIAL PRIMARY KEY, tenant TEXT NOT NULL)",
                    "CREATE TABLE plain (id INT PRIMARY KEY)",
                    "ALTER TABLE doc ENABLE ROW LEVEL SECURITY",
                    "ALTER TABLE doc FORCE ROW LEVEL SECURITY",
                    "CREATE POLICY own ON doc USING (tenant = current_setting('app.tenant', true))",
                ):
                    await connection.exec_driver_sql(statement)
            return migrate
        """,
    )
    project.tests(
        """
        async def insert(engine):
            async with engine.begin() as connection:
                await connection.execute(text("SELECT set_config('app.tenant', 'acme', true)"))
                query = text("SELECT count(*) FROM doc")
                assert await connection.scalar(query) == 0
                await connection.execute(text("INSERT INTO doc (tenant) VALUES ('acme')"))
                assert await connection.scalar(query) == 1
            async with engine.begin() as connection:
                assert await connection.scalar(query) == 0  # control

        @pytest.mark.parametrize("n", range(2))
        @pytest.mark.parametrize("strategy", [
            pytest.param(word, marks=pytest.mark.asyncdb(isolation=word))
            for word in ("reset", "rollback")])
        async def test_rows(asyncdb_engine, asyncdb_url, strategy, n):
            await insert(asyncdb_engine)

        @pytest.mark.asyncdb(isolation="reset")
        async def test_changes(asyncdb, asyncdb_engine):
            async with asyncdb_engine.begin() as connection:
                await connection.execute(text("INSERT INTO plain VALUES (1)"))
            changes = await asyncdb.changes()
            assert changes["plain"].inserted == [{"id": 1}]
            assert sorted(changes) == ["doc", "plain"]
            print(f"shown: {changes['doc']}")
            print(changes["doc"].inserted)

        @pytest.mark.asyncdb(isolation="reset")
        async def test_checkpoint(asyncdb, asyncdb_engine):
            async with asyncdb.checkpoint():
                await insert(asyncdb_engine)

        @pytest.mark.asyncdb(isolation="reset")
        async def test_end(asyncdb_engine):
            await insert(asyncdb_engine)
        """
    )
    with Tenant(servers.target(word), "postgres").made() as account:
        result = run(project, account, f"--asyncdb-allow-hosts={account.server.host}")
    result.assert_outcomes(passed=5, failed=2)
    shown = str(result.stdout)
    hidden = f"row security hides rows from the role {account.name}"
    assert "shown: <asyncdb.changes() could not read the table doc>" in shown
    assert (
        "asyncdb.changes() could not read the table doc\n\n"
        f"{hidden}\n\n"
        "To fix this, do one of:\n"
        "  - query the table in the test\n"
        "  - or connect with a role that may read all its rows\n"
    ) in shown
    assert (
        "asyncdb.checkpoint() cannot put the data back\n\n"
        f"test: test_it.py::test_checkpoint[{account.target.id}]\n"
        f"table public.doc: {hidden}\n"
        "What changes cannot be seen, so only the whole database could be replaced.\n\n"
        'To fix this: mark the test @pytest.mark.asyncdb(isolation="rollback")\n'
    ) in shown
    assert f"doc: not compared: {hidden}" in shown
    assert (
        "asyncdb: the database was replaced after 5 tests, as its changes cannot be seen: "
        f"table public.doc: {hidden}\n" in shown
    )


def test_autovacuum_does_not_keep_a_database(servers: Servers) -> None:
    """An account that may not end other sessions drops a database in which autovacuum works.
    Control: ``WITH (FORCE)`` fails."""
    target = servers.target("postgres+psycopg")
    look, name = target.observer, f"asyncdb_vacuumed_{os.getpid()}"
    registry = Registry()
    backend = registry.backend("postgres")
    driver = type(registry.driver(BackendSpec("postgres", "psycopg"), None))()
    with Tenant(target, name).made() as account, contextlib.ExitStack() as stack:
        server = dataclasses.replace(
            servers.server("postgres"), user=account.name, password=PASSWORD
        )
        with closing(psycopg.connect(dbname="postgres", **login(account), autocommit=True)) as sql:
            sql.execute(f"CREATE DATABASE {name}")
            stack.callback(look.query, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            with closing(psycopg.connect(dbname=name, **login(account), autocommit=True)) as own:
                own.execute("CREATE TABLE big AS SELECT n FROM generate_series(1, 100000) AS n")
                own.execute(
                    "ALTER TABLE big SET (autovacuum_vacuum_cost_delay = 100, "
                    "autovacuum_vacuum_cost_limit = 1)"
                )
                own.execute("DELETE FROM big")
            look.query("ALTER SYSTEM SET autovacuum_naptime = 1")
            stack.callback(look.query, "SELECT pg_reload_conf()")
            stack.callback(look.query, "ALTER SYSTEM RESET autovacuum_naptime")
            look.query("SELECT pg_reload_conf()")
            vacuums = (
                f"SELECT pid FROM pg_stat_activity WHERE datname = '{name}' "
                "AND backend_type = 'autovacuum worker'"
            )
            until = time.monotonic() + 60
            while not look.query(vacuums):
                assert time.monotonic() < until, "autovacuum has not begun"
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                sql.execute(f"DROP DATABASE {name} WITH (FORCE)")
        assert look.query(vacuums)
        asyncio.run(drop_leftovers(server, backend, driver, name))
        assert name not in look.databases()


def login(account: Account) -> dict[str, Any]:
    """The account's arguments of ``psycopg.connect()``."""
    url = account.server
    return {"host": url.host, "port": url.port, "user": url.username, "password": url.password}
