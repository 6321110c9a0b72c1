"""A schema with everything in it goes through ``reset`` and ``copy`` unchanged.

Each inner test does damage of one kind, and commits it. Before every one the observer takes a
dump that has nothing to do with how we look: it has to equal the first. (MySQL and MariaDB have
the same in ``test_mysql_copy.py``.)
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from fix_observer import Observer
from fix_project import QUIET, Project
from fix_servers import WORDS, Servers, Target
from sqlalchemy.engine import URL

TABLES = "\n".join(
    f"CREATE TABLE t{n} (id SERIAL PRIMARY KEY, a INT, team_id INT REFERENCES team (id));"
    for n in range(34)
)
POSTGRES = f"""
CREATE SCHEMA other;
CREATE TYPE mood AS ENUM ('fine', 'bad');
CREATE DOMAIN short AS text CHECK (length(VALUE) < 9);
CREATE SEQUENCE numbers START 100 INCREMENT 5;
CREATE SEQUENCE other.unused;
CREATE TABLE team (id INT PRIMARY KEY, name TEXT, lead_id INT);
CREATE TABLE users (
    id SERIAL PRIMARY KEY, name TEXT UNIQUE NOT NULL, mood mood DEFAULT 'fine',
    nick short, team_id INT REFERENCES team (id) ON DELETE CASCADE ON UPDATE CASCADE,
    loud TEXT GENERATED ALWAYS AS (upper(name)) STORED, picture BYTEA, CHECK (name <> '')
);
ALTER TABLE team ADD FOREIGN KEY (lead_id) REFERENCES users (id) DEFERRABLE INITIALLY DEFERRED;
CREATE INDEX by_loud ON users (lower(name));
CREATE TABLE other.users (id INT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, owner_id INT
    REFERENCES users (id) ON UPDATE CASCADE ON DELETE CASCADE);
CREATE TABLE pair (a INT, b TEXT COLLATE "C", data JSONB, t TIMESTAMPTZ, PRIMARY KEY (a, b));
CREATE TABLE triple (id INT PRIMARY KEY, a INT, b TEXT, FOREIGN KEY (a, b) REFERENCES pair (a, b)
    DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE heap (a INT, b TEXT);
CREATE TABLE nothing ();
CREATE COLLATION other.plain FROM "C";
CREATE TYPE other.point AS (x INT, mood mood);
CREATE TABLE own (id INT GENERATED ALWAYS AS (1) STORED, moods mood[], point other.point,
    short short, name VARCHAR(9) COLLATE other.plain, at TIMESTAMPTZ, "%s"" it's" mood);
CREATE TABLE tree (id INT PRIMARY KEY, parent_id INT REFERENCES tree (id), x REAL[]);
CREATE TABLE animal (id SERIAL PRIMARY KEY, legs INT);
CREATE TABLE bird (wings INT) INHERITS (animal);
CREATE TABLE parts (a INT, b TEXT) PARTITION BY RANGE (a);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200);
CREATE UNLOGGED TABLE fast (a INT);
CREATE TABLE big (id SERIAL PRIMARY KEY, a TEXT, b NUMERIC);
CREATE TABLE audit (id SERIAL PRIMARY KEY, what TEXT);
CREATE TABLE "we'ird 100%s ""name" ("a b" SERIAL PRIMARY KEY, "%" INT);
CREATE VIEW loud AS SELECT loud, mood FROM users;
CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM users;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO audit (what) VALUES (TG_OP || TG_TABLE_NAME); RETURN NULL; END $$;
CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE ON users
    FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER noted AFTER INSERT OR DELETE ON big FOR EACH STATEMENT EXECUTE FUNCTION note();
CREATE RULE never AS ON DELETE TO heap WHERE a = 99 DO INSTEAD NOTHING;
COMMENT ON TABLE users IS 'people';
{TABLES}
"""
POSTGRES_SEED = """
INSERT INTO team VALUES (1, 'one', NULL), (2, 'two', NULL);
INSERT INTO users (name, mood, team_id, picture) VALUES
    ('ada', 'bad', 1, decode('00ff25', 'hex')), ('bob', 'fine', 2, NULL), ('cyd', NULL, NULL, '');
UPDATE team SET lead_id = id;
INSERT INTO other.users (owner_id) VALUES (1), (1), (2);
INSERT INTO pair VALUES (1, 'x', '{"a": [1, null]}', '2026-01-01 12:00:00.123456+05'),
    (1, 'X', NULL, 'infinity');
INSERT INTO triple VALUES (1, 1, 'x'), (2, 1, 'X');
INSERT INTO heap VALUES (1, 'a'), (1, 'a'), (NULL, NULL);
INSERT INTO tree VALUES (1, 3, ARRAY[1.5, 'NaN']), (2, 1, NULL), (3, 2, NULL);
INSERT INTO animal (legs) VALUES (4);
INSERT INTO bird (legs, wings) VALUES (2, 2);
INSERT INTO parts VALUES (1, 'x'), (150, 'y');
INSERT INTO fast VALUES (1);
INSERT INTO nothing DEFAULT VALUES;
INSERT INTO own (moods, point, short, name, at, "%s"" it's") VALUES
    ('{fine,NULL}', '(1,bad)', 'a b', 'x', 'infinity', 'bad'), (NULL, '(,)', '', NULL, NULL, NULL);
INSERT INTO big (a, b) SELECT 'row ' || i, i / 3.0 FROM generate_series(1, 10000) i;
INSERT INTO "we'ird 100%s ""name" ("%") VALUES (1), (2);
SELECT nextval('numbers'), nextval('numbers');
REFRESH MATERIALIZED VIEW counted;
"""

#: What is put back in place.
POSTGRES_ROWS = [
    "INSERT INTO users (name) VALUES ('new')",
    "INSERT INTO users (id, name) VALUES (1000, 'far')",
    "UPDATE users SET name = 'ADA' WHERE id = 1",
    "UPDATE users SET id = 77 WHERE id = 3",
    "UPDATE users SET picture = NULL; UPDATE users SET picture = decode('00ff25', 'hex') WHERE id = 1",
    "DELETE FROM other.users; DELETE FROM team",
    "DELETE FROM users WHERE id = 3",
    "UPDATE team SET id = 9 WHERE id = 2",
    "UPDATE team SET lead_id = 3",
    "INSERT INTO team VALUES (5, 'five', 50); INSERT INTO users (id, name, team_id) VALUES (50, 'l', 5)",
    "INSERT INTO other.users (owner_id) VALUES (1)",
    "INSERT INTO other.users (id, owner_id) OVERRIDING SYSTEM VALUE VALUES (50, 1)",
    "DELETE FROM triple; DELETE FROM pair",
    "UPDATE pair SET b = 'y' WHERE b = 'x'; UPDATE triple SET b = 'y' WHERE b = 'x'",
    "UPDATE pair SET data = '1', t = now()",
    "DELETE FROM heap WHERE ctid = (SELECT min(ctid) FROM heap)",
    "UPDATE heap SET b = 'b' WHERE a IS NULL",
    "INSERT INTO heap VALUES (1, 'a')",
    "UPDATE tree SET parent_id = id",
    "DELETE FROM tree",
    "UPDATE tree SET x[1] = 0 WHERE id = 1",
    "INSERT INTO animal (legs) VALUES (6); DELETE FROM ONLY animal WHERE legs = 4",
    "UPDATE animal SET legs = 0",
    "INSERT INTO bird (legs, wings) VALUES (2, 0)",
    "UPDATE parts SET a = 160 WHERE a = 1",
    "DELETE FROM parts",
    "INSERT INTO parts VALUES (5, 'x'), (105, 'x')",
    "INSERT INTO fast VALUES (2)",
    "INSERT INTO nothing DEFAULT VALUES",
    "DELETE FROM nothing",
    "UPDATE own SET moods = '{bad}', at = now(), short = 'x' WHERE name = 'x'",
    "DELETE FROM own",
    "DELETE FROM big WHERE id > 9000",
    "UPDATE big SET a = upper(a)",
    "UPDATE big SET id = id + 20000 WHERE id < 4",
    "INSERT INTO big (a) SELECT 'new' FROM generate_series(1, 500)",
    "INSERT INTO audit (what) VALUES ('x')",
    'UPDATE "we\'ird 100%s ""name" SET "%" = 7 WHERE "a b" = 1',
    'INSERT INTO "we\'ird 100%s ""name" ("%") VALUES (5)',
    "INSERT INTO t3 (a) VALUES (1), (2)",
    "INSERT INTO t3 (a, team_id) VALUES (1, 1); INSERT INTO t33 (team_id) VALUES (2)",
    "SELECT nextval('numbers')",
    "SELECT setval('numbers', 5000, false)",
    "SELECT nextval('other.unused')",
    "SELECT nextval('users_id_seq'), nextval('t5_id_seq')",
    "INSERT INTO t9 (a) VALUES (1); DELETE FROM t9",
    "TRUNCATE big",
    "TRUNCATE users, team, triple RESTART IDENTITY CASCADE",
    "INSERT INTO t3 (a) VALUES (1); TRUNCATE t3, t5",
    "VACUUM FULL heap; UPDATE heap SET b = 'c' WHERE b IS NULL",
]
#: What ends with another copy.
POSTGRES_SCHEMA = [
    "CREATE TABLE more (id INT)",
    "ALTER TABLE t1 ADD COLUMN more INT",
    "ALTER TABLE users ALTER COLUMN nick SET DEFAULT 'x'",
    "ALTER TABLE users ALTER COLUMN name DROP NOT NULL",
    "ALTER TABLE users DROP CONSTRAINT users_name_key",
    "ALTER TABLE users DISABLE TRIGGER noted",
    "ALTER TABLE heap ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY mine ON heap USING (true)",
    "DROP TABLE triple",
    "DROP VIEW loud",
    "CREATE OR REPLACE VIEW loud AS SELECT loud, mood FROM users WHERE id > 1",
    "INSERT INTO users (name) VALUES ('new'); REFRESH MATERIALIZED VIEW counted",
    "CREATE INDEX more ON t1 (a)",
    "DROP INDEX by_loud",
    "ALTER INDEX by_loud RENAME TO by_quiet",
    "CREATE TYPE more AS (a INT)",
    "ALTER TYPE mood RENAME VALUE 'bad' TO 'worse'",
    "ALTER TYPE mood ADD VALUE 'best'",
    "ALTER DOMAIN short DROP CONSTRAINT short_check",
    "CREATE OR REPLACE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN RETURN NULL;END $$",
    "CREATE FUNCTION more() RETURNS INT LANGUAGE sql AS 'SELECT 1'",
    "DROP TRIGGER noted ON users",
    "DROP RULE never ON heap",
    "CREATE SCHEMA more",
    "CREATE SEQUENCE more",
    "ALTER SEQUENCE numbers INCREMENT 7",
    "ALTER SEQUENCE numbers RESTART WITH 1 CYCLE",
    "DROP SEQUENCE other.unused",
    "COMMENT ON TABLE users IS 'others'",
    "COMMENT ON COLUMN users.name IS 'a name'",
    "GRANT SELECT ON users TO PUBLIC",
    "GRANT SELECT (name) ON users TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
    "ALTER TABLE parts DETACH PARTITION parts_2",
    "ALTER TABLE bird NO INHERIT animal",
    "ALTER TABLE users CLUSTER ON users_pkey",
    "CREATE STATISTICS more ON a, b FROM heap",
    'CREATE COLLATION more FROM "C"',
    "CREATE CAST (mood AS INT) WITH INOUT",
    "SELECT lo_from_bytea(0, 'blob')",
]

SQLITE_TABLES = "\n".join(
    f"CREATE TABLE t{n} (id INTEGER PRIMARY KEY, a INT, team_id INT REFERENCES team (id));"
    for n in range(40)
)
SQLITE = f"""
CREATE TABLE team (id INTEGER PRIMARY KEY, name TEXT, lead_id INT REFERENCES users (id)
    DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE users (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE NOT NULL,
    mood TEXT CHECK (mood IN ('fine', 'bad')), team_id INT REFERENCES team (id) ON DELETE CASCADE,
    loud TEXT GENERATED ALWAYS AS (upper(name)) STORED, picture BLOB);
CREATE INDEX by_loud ON users (lower(name));
CREATE TABLE pair (a INT, b TEXT, data BLOB, PRIMARY KEY (a, b)) WITHOUT ROWID;
CREATE TABLE triple (id INTEGER PRIMARY KEY, a INT, b TEXT, FOREIGN KEY (a, b) REFERENCES pair);
CREATE TABLE heap (a INT, b);
CREATE TABLE tree (id INTEGER PRIMARY KEY, parent_id INT REFERENCES tree (id)
    DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE big (id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT, b REAL);
CREATE TABLE audit (id INTEGER PRIMARY KEY, what TEXT);
CREATE TABLE "we ird 100%s name" ("a b" INTEGER PRIMARY KEY, "%" INT);
CREATE VIEW loud AS SELECT loud, mood FROM users;
CREATE TRIGGER noted AFTER INSERT ON users BEGIN INSERT INTO audit (what) VALUES (NEW.name); END;
{SQLITE_TABLES}
"""
SQLITE_SEED = """
INSERT INTO team VALUES (1, 'one', NULL), (2, 'two', NULL);
INSERT INTO users (name, mood, team_id, picture) VALUES
    ('ada', 'bad', 1, x'00ff25'), ('bob', 'fine', 2, NULL), ('cyd', NULL, NULL, x'');
UPDATE team SET lead_id = id;
INSERT INTO pair VALUES (1, 'x', x'00'), (1, 'X', NULL);
INSERT INTO triple VALUES (1, 1, 'x'), (2, 1, 'X');
INSERT INTO heap VALUES (1, 'a'), (1, x'61'), (NULL, 1e300);
INSERT INTO tree VALUES (1, 2), (2, 1);
INSERT INTO big (a, b) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n
    WHERE i < 10000) SELECT 'row ' || i, i / 3.0 FROM n;
"""
SQLITE_DAMAGE = [
    "INSERT INTO users (name) VALUES ('new')",
    "UPDATE users SET name = 'ADA', id = 77 WHERE id = 3",
    "DELETE FROM team",
    "UPDATE pair SET data = x'01'; UPDATE heap SET b = 'b'",
    "DELETE FROM triple; DELETE FROM pair",
    "UPDATE tree SET parent_id = id",
    "DELETE FROM big",
    "DELETE FROM sqlite_sequence",
    'INSERT INTO "we ird 100%s name" VALUES (5, 5)',
    "CREATE TABLE more (id INT)",
    "ALTER TABLE t1 ADD COLUMN more INT",
    "ALTER TABLE heap RENAME COLUMN a TO z",
    "ALTER TABLE big RENAME TO small",
    "DROP TABLE triple",
    "DROP VIEW loud",
    "DROP TRIGGER noted",
    "DROP INDEX by_loud",
    "CREATE INDEX more ON t1 (a)",
    "PRAGMA user_version = 7",
    "PRAGMA application_id = 7",
]

CONFTEST = """
import pytest

SCHEMA = {schema!r}
SEED = {seed!r}


def statements(script):
    part = ""
    for line in script.splitlines():
        part += line + "\\n"
        if line.endswith(";") and (line.endswith(("END;", "$$;")) or "BEGIN" not in part):
            yield part.strip().removesuffix(";")
            part = ""


@pytest.fixture(scope="session")
def asyncdb_migrate():
    async def migrate(connection):
        for statement in statements(SCHEMA):
            await connection.exec_driver_sql(statement, None,
                                             execution_options={{"no_parameters": True}})
    return migrate


@pytest.fixture(scope="session")
def asyncdb_seed():
    async def seed(session):
        connection = await session.connection()
        for statement in statements(SEED):
            await connection.exec_driver_sql(statement, None,
                                             execution_options={{"no_parameters": True}})
    return seed
"""

TESTS = """
import re

DAMAGE = {damage!r}

@pytest.mark.parametrize("n", range(len(DAMAGE)))
async def test_it(asyncdb_engine, n):
    async with asyncdb_engine.connect() as connection:
        level = {{"isolation_level": "AUTOCOMMIT"}} if re.search("ADD VALUE|VACUUM", DAMAGE[n]) else {{}}
        connection = await connection.execution_options(no_parameters=True, **level)
        for statement in DAMAGE[n].split("; "):
            await connection.exec_driver_sql(statement)
        await connection.commit()


async def test_end(asyncdb_url):
    pass
"""


class Dumps:
    """A plugin of an inner run: dumps each test's database before the test."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.seen: list[tuple[str, str, Any]] = []
        #: What ``pg_dump`` says before the first and the last test.
        self.told: list[list[str]] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[Any]:
        result = yield
        if fixturedef.argname == "_asyncdb_view":
            found = dump(self.target, result.url)
            self.seen.append((request.node.name, result.url.database, found))
            if self.target.server is not None and (
                len(self.seen) == 1 or "end" in request.node.name
            ):
                self.told.append(_pg_dump(self.target.observer, result.url))
        return result

    def check(self) -> None:
        """Every test has found what the first one found."""
        if self.told:
            before, after = map(Counter, self.told)
            assert (before - after, after - before) == (Counter(), Counter())
        first = self.seen[0][2]
        previous = "the first"
        for name, _, found in self.seen:
            gone, new = sorted(set(first) - set(found)), sorted(set(found) - set(first))
            assert (gone, new) == ([], []), f"{name}, after {previous}"
            assert len(found) == len(first)
            previous = name


def dump(target: Target, url: URL) -> list[str]:
    """Schema, rows and counters of a database as text, in an order of its own."""
    if target.server is None:
        with closing(target.observer.connect(url.database)) as connection:
            pragmas = [
                f"{name} {connection.execute(f'PRAGMA {name}').fetchone()}"
                for name in ("user_version", "application_id")
            ]
            return sorted([*connection.iterdump(), *pragmas])
    rows = []
    with closing(target.observer.connect(url.database)) as connection:
        cursor = connection.cursor()
        for schema, name in cursor.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('public', 'other')"
        ).fetchall():
            table = f'"{schema}"."{name.replace(chr(34), chr(34) * 2)}"'
            rows += [
                f"{table} {row}" for (row,) in cursor.execute(f"SELECT t::text FROM ONLY {table} t")
            ]
        for query in CATALOGS:
            rows += [f"{query[:40]} {row}" for row in cursor.execute(query).fetchall()]
    return sorted(rows)


#: What ``pg_dump`` would tell, for where it is of another version than the server.
CATALOGS = (
    "SELECT attrelid::regclass::text, attname, atttypid::regtype, attnotnull, attacl::text,"
    " attgenerated, attidentity, col_description(attrelid, attnum) FROM pg_attribute"
    " WHERE attrelid >= 16384 AND attnum > 0 AND attrelid::regclass::text NOT LIKE 'pg_toast%'"
    # Temporary tables are their connection's alone; a plain one sees that they are there.
    " AND attrelid::regclass::text NOT LIKE 'pg_temp%'",
    "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE oid >= 16384",
    "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid), indisclustered"
    " FROM pg_index WHERE indexrelid >= 16384 AND indrelid::regclass::text NOT LIKE 'pg_toast%'",
    "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public'",
    "SELECT tgname, pg_get_triggerdef(oid), tgenabled FROM pg_trigger WHERE NOT tgisinternal",
    "SELECT proname, prosrc FROM pg_proc WHERE oid >= 16384"
    " AND pronamespace::regnamespace::text NOT LIKE 'pg_temp%'",
    "SELECT enumlabel, enumsortorder FROM pg_enum",
    "SELECT relname, relacl::text, relrowsecurity, obj_description(oid) FROM pg_class"
    " WHERE oid >= 16384 AND relname NOT LIKE 'pg_toast%'",
    "SELECT sequencename, start_value, increment_by, cycle, last_value FROM pg_sequences",
    "SELECT * FROM counted",
    "SELECT adrelid::regclass::text, pg_get_expr(adbin, adrelid) FROM pg_attrdef",
    "SELECT polname FROM pg_policy",
    "SELECT nspname, nspacl::text FROM pg_namespace WHERE oid >= 16384 AND nspname !~ '^pg_'",
    "SELECT typname FROM pg_type WHERE oid >= 16384 AND typname NOT LIKE 'pg_toast%'",
    "SELECT defaclobjtype, defaclacl::text FROM pg_default_acl",
    "SELECT castsource::regtype, casttarget::regtype FROM pg_cast WHERE oid >= 16384",
    "SELECT collname FROM pg_collation WHERE oid >= 16384",
    "SELECT stxname FROM pg_statistic_ext",
    "SELECT tablename, rulename FROM pg_rules WHERE schemaname = 'public'",
    "SELECT inhrelid::regclass::text FROM pg_inherits",
    "SELECT count(*) FROM pg_largeobject_metadata",
)


def _pg_dump(observer: Observer, url: URL) -> list[str]:
    """Nothing, where the program is not that of the server's version."""
    ((version,),) = observer.query("SHOW server_version")
    try:
        told = subprocess.run(["pg_dump", "--version"], capture_output=True, text=True, check=True)
    except OSError:
        return []
    if re.findall(r"\d+", told.stdout)[0] != version.partition(".")[0]:
        return []
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    found = subprocess.run(["pg_dump", plain], capture_output=True, text=True, check=True)
    # Its comments number objects, and newer ones have a random word against injections.
    lines = found.stdout.splitlines()
    return sorted(line for line in lines if not re.match(r"--|\\(un)?restrict ", line))


def play(
    project: Project, target: Target, strategy: str, script: tuple[str, str], damage: list[str]
) -> Dumps:
    """Run *damage*, each in a test; every test found what the first one did."""
    project.ini(asyncdb_metadata=None)
    project.write("conftest.py", CONFTEST.format(schema=script[0], seed=script[1]))
    project.tests(TESTS.format(damage=damage))
    dumps = Dumps(target)
    result = project.pytester.runpytest_inprocess(
        *(*QUIET, *target.arguments, f"--asyncdb-isolation={strategy}"), plugins=[dumps]
    )
    result.assert_outcomes(passed=len(damage) + 1)
    dumps.check()
    return dumps


@pytest.mark.parametrize("word", WORDS[1:3])
def test_rows_on_postgresql_are_put_back_in_place(
    project: Project, servers: Servers, word: str
) -> None:
    target = servers.target(word)
    dumps = play(project, target, "reset", (POSTGRES, POSTGRES_SEED), POSTGRES_ROWS)
    assert len(dumps.seen[0][2]) > 10000
    assert len({database for _, database, _ in dumps.seen}) == 1


@pytest.mark.parametrize("word", WORDS[1:3])
def test_a_changed_schema_on_postgresql_is_replaced(
    project: Project, servers: Servers, word: str
) -> None:
    target = servers.target(word)
    dumps = play(project, target, "reset", (POSTGRES, POSTGRES_SEED), POSTGRES_SCHEMA)
    databases = [database for _, database, _ in dumps.seen]
    assert len(set(databases)) == len(databases)


@pytest.mark.parametrize("word", WORDS[1:3])
def test_copies_on_postgresql_are_equal(project: Project, servers: Servers, word: str) -> None:
    target = servers.target(word)
    damage = POSTGRES_ROWS[::6] + POSTGRES_SCHEMA[::6]
    dumps = play(project, target, "copy", (POSTGRES, POSTGRES_SEED), damage)
    assert len({database for _, database, _ in dumps.seen}) == len(damage) + 1


@pytest.mark.parametrize("strategy", ["reset", "copy"])
def test_sqlite_is_put_back_and_copied(project: Project, servers: Servers, strategy: str) -> None:
    target = servers.target("sqlite")
    dumps = play(project, target, strategy, (SQLITE, SQLITE_SEED), SQLITE_DAMAGE)
    assert len(dumps.seen[0][2]) > 10000


@pytest.mark.everyday("sqlite")
@pytest.mark.parametrize("word", ["sqlite", "postgres+psycopg"])
def test_the_dump_would_see_each_damage(project: Project, servers: Servers, word: str) -> None:
    """Control: what each statement does is in the dump, so that its repair can be seen."""
    target = servers.target(word)
    seen: list[tuple[str, bool]] = []

    class After(Dumps):
        @pytest.hookimpl(wrapper=True)
        def pytest_pyfunc_call(self, pyfuncitem: Any) -> Iterator[Any]:
            result = yield
            if pyfuncitem.name.startswith("test_it"):
                url = pyfuncitem.funcargs["asyncdb_engine"].url
                seen.append((pyfuncitem.name, dump(target, url) == self.seen[0][2]))
            return result

    sqlite = target.server is None
    script = (SQLITE, SQLITE_SEED) if sqlite else (POSTGRES, POSTGRES_SEED)
    damage = SQLITE_DAMAGE if sqlite else POSTGRES_ROWS + POSTGRES_SCHEMA
    project.ini(asyncdb_metadata=None)
    project.write("conftest.py", CONFTEST.format(schema=script[0], seed=script[1]))
    project.tests(TESTS.format(damage=damage))
    project.pytester.runpytest_inprocess(
        *(*QUIET, *target.arguments, "--asyncdb-isolation=copy"), plugins=[After(target)]
    )
    assert len(seen) == len(damage)
    assert [damage[n] for n, (_, same) in enumerate(seen) if same] == []
