"""PostgreSQL: what belongs to a database, and not to its contents, is part of every copy."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest
from fix_project import Project
from fix_servers import Servers, Target

pytestmark = pytest.mark.everyday("postgres+asyncpg")
WORDS = ("postgres+asyncpg", "postgres+psycopg")
ROLE = f'copied "role" {os.getpid()}'

#: What a migration says about its database; {db} and {role} are quoted names.
STATEMENTS = [
    "CREATE SCHEMA app",
    "CREATE TABLE app.thing (id serial PRIMARY KEY, at timestamptz DEFAULT now())",
    "ALTER DATABASE {db} SET search_path = app, \"$user\", 'Odd, \"name\"', ''",
    "ALTER DATABASE {db} SET timezone = 'Europe/Paris'",
    "ALTER DATABASE {db} SET app.tenant = 'it''s a \\ \"tenant\", = 100%'",
    "ALTER DATABASE {db} SET lock_timeout = '7s'",
    "ALTER ROLE {role} IN DATABASE {db} SET work_mem = '7MB'",
    "ALTER ROLE {role} IN DATABASE {db} SET search_path = 'Other'",
    "REVOKE ALL ON DATABASE {db} FROM PUBLIC",
    "GRANT CONNECT ON DATABASE {db} TO {role} WITH GRANT OPTION",
    "GRANT TEMPORARY ON DATABASE {db} TO PUBLIC",
    "COMMENT ON DATABASE {db} IS 'it''s \\ {{db}}, 100%'",
    "ALTER DATABASE {db} CONNECTION LIMIT 55",
    "ALTER DATABASE {db} OWNER TO {role}",
]

CONFTEST = """
import pytest
from sqlalchemy import text


@pytest.fixture(scope="session")
def asyncdb_migrate():
    async def migrate(connection):
        db = await connection.scalar(text("SELECT quote_ident(current_database())"))
        for statement in %r:
            statement = statement.format(db=db, role=%r)
            await connection.exec_driver_sql(statement.replace("%%", %r))

    return migrate


async def first(session):
    pass


async def second(session):
    pass


@pytest.fixture(scope="session")
def asyncdb_seed():
    return [first, second]
"""

TESTS = """
OF_DATABASE = '''
SELECT 'owner', pg_get_userbyid(datdba), '' FROM pg_database WHERE datname = current_database()
UNION ALL SELECT 'limit', datconnlimit::text, '' FROM pg_database WHERE datname = current_database()
UNION ALL SELECT 'comment', shobj_description(oid, 'pg_database'), ''
FROM pg_database WHERE datname = current_database()
UNION ALL SELECT 'acl', acl::text, ''
FROM pg_database, unnest(datacl) AS acl WHERE datname = current_database()
UNION ALL SELECT 'set', one, coalesce(pg_get_userbyid(nullif(setrole, 0)), '')
FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase, unnest(setconfig) AS one
WHERE datname = current_database()
'''


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("how", [
    pytest.param(how, marks=pytest.mark.asyncdb(isolation=how))
    for how in ("rollback", "reset", "copy")
])
async def test_it_is_there(asyncdb_session, asyncdb_engine, how, n):
    found = (await asyncdb_session.execute(text(OF_DATABASE))).all()
    assert sorted(map(tuple, found)) == sorted(EXPECTED)
    assert asyncdb_engine.dialect.default_schema_name == "app"
    assert await asyncdb_session.scalar(text("SHOW timezone")) == "Europe/Paris"
    await asyncdb_session.execute(text("INSERT INTO thing DEFAULT VALUES"))
    await asyncdb_session.commit()
"""


def expected() -> list[tuple[str, str, str]]:
    role = '"' + ROLE.replace('"', '""') + '"'
    return [
        ("owner", ROLE, ""),
        ("limit", "55", ""),
        ("comment", "it's \\ {db}, 100%", ""),
        ("acl", f"{role}=CTc*/{role}", ""),
        ("acl", f"=T/{role}", ""),
        ("set", 'search_path=app, "$user", "Odd, ""name""", ""', ""),
        ("set", "TimeZone=Europe/Paris", ""),
        ("set", 'app.tenant=it\'s a \\ "tenant", = 100%', ""),
        ("set", "lock_timeout=7s", ""),
        ("set", "work_mem=7MB", ROLE),
        ("set", 'search_path="Other"', ROLE),
    ]


@pytest.fixture(params=WORDS, ids=lambda word: word.replace("+", "-"))
def target(request: pytest.FixtureRequest, servers: Servers) -> Target:
    return servers.target(request.param)


@pytest.fixture
def role(target: Target) -> Iterator[str]:
    """A role of the server, as SQL has its name."""
    name = target.observer.quote(ROLE.replace('"', '""'))
    target.observer.query(f"CREATE ROLE {name}")
    try:
        yield name
    finally:
        with contextlib.suppress(Exception):
            target.observer.query(f"DROP OWNED BY {name}")
        target.observer.query(f"DROP ROLE {name}")


def test_a_copy_has_the_settings_privileges_comment_and_owner_of_its_template(
    project: Project, target: Target, role: str
) -> None:
    """In every strategy, also in a copy of a copy; the settings hold from the first connection
    on."""
    # psycopg takes a percent sign for a parameter.
    percent = "%%" if target.driver == "psycopg" else "%"
    project.write("conftest.py", CONFTEST % (STATEMENTS, role, percent))
    project.tests(TESTS, f"EXPECTED = {expected()!r}")
    project.ini(asyncdb_metadata=None)
    project.run(target, expected={}).passed(6)


def test_create_database_loses_them(target: Target, role: str) -> None:
    """Control: the statement that copies a database, by itself."""
    look = target.observer
    one, other = (f"naive_{n}_{os.getpid()}" for n in "ab")
    with look.throw_away(one):
        for statement in STATEMENTS:
            look.query(statement.format(db=one, role=role), one)
        look.query(f"CREATE DATABASE {other} TEMPLATE {one}")
        try:
            settings = (
                "SELECT count(*) FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase "
                "WHERE datname = "
            )
            assert look.query(f"{settings}'{one}'") == [(2,)]
            assert look.query(f"{settings}'{other}'") == [(0,)]
        finally:
            look.query(f"DROP DATABASE {other}")
