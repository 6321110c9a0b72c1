"""``reset`` on PostgreSQL notices every change of the schema, and nothing of its own gets in the way.

A superuser's server notes every DDL statement; for other accounts the catalogs are compared. The
restorer is used as it is, on a database that an outside connection changes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from fix_servers import WORDS, Servers, Target
from sqlalchemy import MetaData, create_engine, inspect
from sqlalchemy.engine import URL

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._databases.connection import AutocommitConnection
from pytest_asyncdb.abc import BackendSpec
from pytest_asyncdb.backends.postgres_reset import PostgresRestorer

DATABASE = f"schema_changes_{os.getpid()}"
ORDINARY = f"ordinary_{os.getpid()}"

SETUP = [
    "CREATE TYPE mood AS ENUM ('fine', 'bad')",
    "CREATE TABLE doc (id INT PRIMARY KEY, mood mood, body TEXT)",
    "CREATE INDEX by_body ON doc (body)",
    "CREATE TABLE empty (id SERIAL PRIMARY KEY)",
    "INSERT INTO doc VALUES (1, 'fine', 'one'), (2, 'bad', 'two')",
    "CREATE TEXT SEARCH CONFIGURATION app (COPY = simple)",
    "CREATE FUNCTION one() RETURNS INT LANGUAGE sql AS 'SELECT 1'",
    "CREATE PUBLICATION news FOR TABLE doc",
]

#: What the owner of the database can change.
CHANGES = [
    "ALTER TYPE mood ADD VALUE 'best'",
    "ALTER TABLE doc ADD COLUMN more INT",
    "ALTER TABLE doc ALTER COLUMN mood TYPE TEXT",
    "DROP INDEX by_body",
    "ALTER TABLE doc ENABLE ROW LEVEL SECURITY",
    "CREATE VIEW more AS SELECT 1",
    "CREATE OR REPLACE FUNCTION one() RETURNS INT LANGUAGE sql AS 'SELECT 2'",
    "CREATE TEXT SEARCH CONFIGURATION more (COPY = simple)",
    "ALTER TEXT SEARCH CONFIGURATION app ALTER MAPPING FOR asciiword WITH english_stem",
    "CREATE TEXT SEARCH DICTIONARY more (TEMPLATE = simple)",
    "CREATE PUBLICATION more FOR TABLE doc",
    "ALTER PUBLICATION news ADD TABLE empty",
    "CREATE CONVERSION more FOR 'UTF8' TO 'LATIN1' FROM pg_catalog.utf8_to_iso8859_1",
    "CREATE STATISTICS more ON id, body FROM doc",
    "CREATE DOMAIN more AS INT",
    'CREATE COLLATION more FROM "C"',
    "SELECT lo_from_bytea(0, 'blob')",
    "COMMENT ON SCHEMA public IS 'ours'",
    "COMMENT ON COLUMN doc.body IS 'text'",
    "GRANT USAGE ON SCHEMA public TO pg_monitor",
    "GRANT SELECT ON doc TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
    f"COMMENT ON DATABASE {DATABASE} IS 'ours'",
    f"GRANT TEMPORARY ON DATABASE {DATABASE} TO pg_monitor",
    f"ALTER DATABASE {DATABASE} SET work_mem = '5MB'",
    f"ALTER ROLE {ORDINARY} IN DATABASE {DATABASE} SET work_mem = '5MB'",
]
#: What a superuser can change besides.
MORE = [
    "CREATE FOREIGN DATA WRAPPER more",
    "CREATE OPERATOR FAMILY more USING btree",
    "CREATE ACCESS METHOD more TYPE INDEX HANDLER bthandler",
    "CREATE CAST (mood AS INT) WITH INOUT",
    "CREATE TRUSTED LANGUAGE more HANDLER plpgsql_call_handler",
    "COMMENT ON FUNCTION pg_catalog.now() IS 'ours'",
    "COMMENT ON LANGUAGE plpgsql IS 'ours'",
    "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_sleep(float8) FROM PUBLIC",
    "GRANT USAGE ON LANGUAGE plpgsql TO pg_monitor",
    f"REASSIGN OWNED BY {ORDINARY} TO pg_monitor",
    f"GRANT SELECT ON empty TO {ORDINARY}",
    f"DROP OWNED BY {ORDINARY}",
    "CREATE FUNCTION more() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; "
    "CREATE EVENT TRIGGER more ON sql_drop EXECUTE FUNCTION more()",
    "SET session_replication_role = replica; CREATE TABLE more (id INT)",
    "ALTER EVENT TRIGGER asyncdb_ddl DISABLE; CREATE TABLE more (id INT)",
]

#: What leaves the schema as it was.
HARMLESS = [
    "CREATE TEMP TABLE more (id SERIAL PRIMARY KEY, mood mood); CREATE INDEX ON more (id); "
    "COMMENT ON TABLE more IS 'mine'; CREATE TEMP VIEW less AS SELECT 1; "
    "DROP TABLE more; DISCARD TEMP",
    "BEGIN; CREATE TABLE more (id INT); DROP TABLE doc; ROLLBACK",
    "CREATE TABLE IF NOT EXISTS empty (id INT); DROP TABLE IF EXISTS nothing",
    "INSERT INTO empty DEFAULT VALUES; TRUNCATE empty RESTART IDENTITY",
    "VACUUM; ANALYZE",
]


@pytest.fixture(params=WORDS[1:3], ids=lambda word: word.replace("+", "-"))
def target(request: pytest.FixtureRequest, servers: Servers) -> Target:
    return servers.target(request.param)


class Database:
    """A database that belongs to an ordinary role, with a restorer of an account's."""

    def __init__(self, target: Target, superuser: bool) -> None:
        assert target.server is not None
        self.observer = target.observer
        plain = target.server.set(database=DATABASE)
        self.superuser = superuser
        self.url: URL = plain if superuser else plain.set(username=ORDINARY, password="ordinary")
        self.driver = type(Registry().driver(BackendSpec("postgres", target.driver), None))()

    def ask(self, *changes: str) -> list[list[str]]:
        """What a restorer sees after each of *changes*; each has a restorer of its own, as what is
        changed is not put back."""

        async def ask() -> list[list[str]]:
            found = []
            async with AutocommitConnection(self.url, self.driver) as sql:
                for number, change in enumerate(changes):
                    restorer = PostgresRestorer(sql)
                    await restorer.remember()
                    for statement in change.replace("more", f"more{number}").split("; "):
                        connection.execute(statement)
                    connection.execute("SET session_replication_role = DEFAULT" * self.superuser)
                    found.append([*await restorer.changed()])
                    await sql.script(["DISCARD TEMP"])  # as the end of the restorer does
            return found

        with closing(self.connect()) as connection:
            return asyncio.run(ask())

    def connect(self) -> psycopg.Connection[Any]:
        """Another connection of the account."""
        plain = self.url.set(drivername="postgresql").render_as_string(hide_password=False)
        return psycopg.connect(plain, autocommit=True)


@pytest.fixture
def made(target: Target) -> Iterator[Any]:
    """A function that gives the database, for an account that is a superuser or not."""
    look = target.observer
    look.query(f"CREATE ROLE {ORDINARY} LOGIN CREATEDB PASSWORD 'ordinary'")
    look.query(f"GRANT pg_monitor TO {ORDINARY} WITH ADMIN OPTION")
    try:
        with look.throw_away(DATABASE):
            look.query(f"ALTER DATABASE {DATABASE} OWNER TO {ORDINARY}")
            with closing(Database(target, superuser=False).connect()) as connection:
                for statement in SETUP:
                    connection.execute(statement)
            yield lambda superuser: Database(target, superuser)
    finally:
        look.query(f"DROP ROLE {ORDINARY}")


@pytest.mark.parametrize("superuser", [True, False], ids=["superuser", "ordinary"])
def test_every_change_of_the_schema_is_seen(made: Any, superuser: bool) -> None:
    """Also of the database's settings, and of built-in objects, by whoever can change them."""
    changes = CHANGES + MORE * superuser
    found = made(superuser).ask(*changes)
    assert [
        change for change, seen in zip(changes, found, strict=True) if "schema" not in seen
    ] == []


@pytest.mark.parametrize("superuser", [True, False], ids=["superuser", "ordinary"])
def test_what_leaves_the_schema_as_it_was_is_no_change(made: Any, superuser: bool) -> None:
    """Temporary objects, and DDL that was rolled back; for a superuser also TRUNCATE."""
    harmless = [change for change in HARMLESS if superuser or "TRUNCATE" not in change]
    assert made(superuser).ask(*harmless) == [[] for _ in harmless]


def test_what_the_plugin_makes_is_not_visible(made: Any) -> None:
    """Neither to reflection, nor to ``pg_dump``, nor to ``DROP TYPE``, and it is gone with its
    connection."""
    database = made(superuser=True)
    queries = (
        "SELECT count(*) FROM pg_largeobject_metadata",
        "SELECT count(*) FROM information_schema.tables WHERE table_schema !~ '^pg_'",
        # pg_dump leaves out what belongs to an extension.
        "SELECT count(*) FROM pg_event_trigger WHERE oid NOT IN (SELECT objid FROM pg_depend "
        "WHERE classid = 'pg_event_trigger'::regclass AND deptype = 'e')",
    )
    engine = create_engine(database.url.set(drivername="postgresql+psycopg"))

    def look() -> list[Any]:
        with engine.connect() as connection:
            seen = [connection.exec_driver_sql(query).scalar() for query in queries]
            for statement in ("DROP TABLE doc", "DROP TYPE mood"):
                connection.exec_driver_sql(statement)
            connection.rollback()
            metadata = MetaData()
            metadata.reflect(connection)
            names = sorted(inspect(connection).get_schema_names())
            return [*seen, sorted(metadata.tables), names]

    async def during() -> list[Any]:
        async with AutocommitConnection(database.url, database.driver) as sql:
            await PostgresRestorer(sql).remember()
            return look()

    try:
        before = look()
        assert asyncio.run(during()) == before
        ours = "SELECT 1 FROM pg_event_trigger UNION ALL SELECT 1 FROM pg_proc WHERE proname ~ 'asyncdb'"
        while database.observer.query(ours, DATABASE):  # until the server has seen the end
            pass
    finally:
        engine.dispose()
