"""MySQL and MariaDB: a copy equals its template, and a changed copy is put back to it.

Both are judged from outside, by SHOW CREATE and the rows over a plain PyMySQL connection;
AUTO_INCREMENT counters are part of SHOW CREATE TABLE.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pymysql
import pytest
from fix_servers import Servers, Target
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb.abc import Backend, BackendSpec, DatabaseRef, Driver, Restorer, Server, Sql

pytestmark = pytest.mark.asyncio
WORDS = ("mysql+asyncmy", "mysql+aiomysql", "mariadb+asyncmy")
REGISTRY = Registry()

SCHEMA = [
    # A circle of foreign keys, and one to itself.
    """CREATE TABLE team (
        id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(40) NOT NULL UNIQUE, captain INT,
        INDEX (captain)) AUTO_INCREMENT = 500 COMMENT = ' AUTO_INCREMENT=7'""",
    """CREATE TABLE users (
        id INT PRIMARY KEY AUTO_INCREMENT, team_id INT, boss_id INT,
        name VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL,
        kind ENUM('a', 'b%s', 'it''s') NOT NULL DEFAULT 'a', flags SET('x', 'y'),
        upper_name VARCHAR(40) AS (upper(name)) VIRTUAL,
        name_length INT AS (char_length(name)) STORED,
        born TIMESTAMP NOT NULL DEFAULT '2020-01-01 00:00:00',
        CONSTRAINT name_given CHECK (name <> ''),
        FOREIGN KEY (team_id) REFERENCES team (id) ON DELETE CASCADE ON UPDATE CASCADE,
        FOREIGN KEY (boss_id) REFERENCES users (id) ON DELETE SET NULL,
        INDEX by_kind (kind, name(5) DESC), FULLTEXT (name))""",
    "ALTER TABLE team ADD FOREIGN KEY (captain) REFERENCES users (id)",
    "CREATE TABLE audit (id BIGINT UNSIGNED PRIMARY KEY AUTO_INCREMENT, what TEXT) ENGINE = InnoDB",
    """CREATE TABLE pair (a INT, b VARCHAR(10), c DECIMAL(20, 5), d DOUBLE, e JSON, f BIT(3),
        g BLOB, PRIMARY KEY (b, a))""",
    "CREATE TABLE heap (a INT, b VARCHAR(20) COLLATE utf8mb4_bin)",
    "CREATE TABLE `we``ird %s 'n\"ame` (`a``b %d ''` INT PRIMARY KEY AUTO_INCREMENT, x INT)",
    "CREATE TABLE latin (a VARCHAR(20)) CHARACTER SET latin1 COLLATE latin1_german1_ci",
    "CREATE TABLE place (id INT PRIMARY KEY AUTO_INCREMENT, p POINT NOT NULL, SPATIAL INDEX (p))",
    "CREATE TABLE hidden (a INT PRIMARY KEY, b INT DEFAULT 7 INVISIBLE)",
    "CREATE TABLE aria (id INT PRIMARY KEY AUTO_INCREMENT, a INT) ENGINE = MyISAM",
    """CREATE TABLE parts (a INT, b INT, PRIMARY KEY (a, b)) PARTITION BY RANGE (a) (
        PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN MAXVALUE)""",
    "CREATE TABLE big (id INT PRIMARY KEY AUTO_INCREMENT, a VARCHAR(30), b FLOAT)",
    *(
        f"CREATE TABLE t{i} (id INT PRIMARY KEY AUTO_INCREMENT, a INT, parent INT, "
        f"FOREIGN KEY (parent) REFERENCES t{max(i - 1, 0)} (id))"
        for i in range(38)
    ),
    "CREATE FUNCTION twice(n INT) RETURNS INT DETERMINISTIC RETURN n * 2",
    "CREATE VIEW z_names AS SELECT id, name, twice(id) AS two FROM users WHERE name <> '{tpl}.x'",
    "CREATE VIEW a_names AS SELECT z.name, z.two FROM z_names AS z JOIN team ON team.id = z.id",
    """CREATE PROCEDURE fill() BEGIN
        -- it's a comment
        INSERT INTO {tpl}.audit (what) VALUES ('"{tpl}.no" 100%s');
    END""",
    "CREATE TRIGGER z_first AFTER INSERT ON users FOR EACH ROW "
    "INSERT INTO audit (what) VALUES (concat('+', NEW.name))",
    "CREATE TRIGGER a_second AFTER INSERT ON users FOR EACH ROW "
    "INSERT INTO audit (what) VALUES (concat('second ', NEW.name))",
    "SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT'",
    'CREATE TRIGGER gone AFTER DELETE ON users FOR EACH ROW INSERT INTO "audit" (what) '
    "VALUES ('-' || OLD.name)",
    "SET sql_mode = DEFAULT",
    "CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DISABLE "
    "DO DELETE FROM audit",
    "ALTER DATABASE {tpl} CHARACTER SET latin1 COLLATE latin1_swedish_ci",
]
#: What only one of the servers has.
ONLY = {
    "mysql": [
        "CREATE TABLE expression (a VARCHAR(10), INDEX ((lower(a))), INDEX hid (a) INVISIBLE)",
        "CREATE LIBRARY tools LANGUAGE JAVASCRIPT AS $$ export function f(n) { return n + 1 } $$",
        "CREATE FUNCTION next_of(n INT) RETURNS INT LANGUAGE JAVASCRIPT USING (tools AS t) "
        "AS $$ return t.f(n); $$",
        "CREATE JSON RELATIONAL DUALITY VIEW doubled AS "
        "SELECT JSON_DUALITY_OBJECT('_id': a, 'b': b) FROM hidden",
    ],
    "mariadb": [
        "CREATE SEQUENCE numbers START WITH 5 INCREMENT BY 2",
        "CREATE TABLE numbered (id INT PRIMARY KEY DEFAULT nextval(numbers), a INT)",
        "CREATE TABLE history (id INT PRIMARY KEY AUTO_INCREMENT, a INT) WITH SYSTEM VERSIONING",
        "CREATE TABLE past (id INT PRIMARY KEY, a INT, made INT AS (a + 1) STORED) "
        "WITH SYSTEM VERSIONING PARTITION BY SYSTEM_TIME "
        "(PARTITION p0 HISTORY, PARTITION p1 CURRENT)",
        "CREATE TABLE gone (`fr``om` TIMESTAMP(6) AS ROW START, id INT PRIMARY KEY, "
        "`to` TIMESTAMP(6) AS ROW END INVISIBLE, PERIOD FOR SYSTEM_TIME (`fr``om`, `to`)) "
        "WITH SYSTEM VERSIONING",
        "ALTER DATABASE {tpl} COMMENT 'it''s `{tpl}`, 100%'",
    ],
}
#: Rows and statistics that only one of the servers has.
SEED_ONLY = {
    "mysql": [
        "ANALYZE TABLE `we``ird %s 'n\"ame` UPDATE HISTOGRAM ON x WITH 4 BUCKETS",
        "ANALYZE TABLE users UPDATE HISTOGRAM ON name, kind WITH 3 BUCKETS",
        # The server's thread for such a histogram can hold the locks of its table until another
        # session's lock wait ends (MySQL 9.7). So it is one of a table that no test writes to.
        "ANALYZE TABLE t2 UPDATE HISTOGRAM ON a WITH 2 BUCKETS AUTO UPDATE",
    ],
    "mariadb": [
        "INSERT INTO past (id, a) VALUES (1, 1), (2, 2), (3, 3)",
        "UPDATE past SET a = 7 WHERE id = 1",
        "UPDATE past SET a = 1 WHERE id = 1",
        "DELETE FROM past WHERE id = 2",
        "INSERT INTO gone (id) VALUES (1)",
        "DELETE FROM gone",
    ],
}
SEED = [
    "INSERT INTO team (id, name) VALUES (1, 'red'), (2, 'blue'), (450, 'late')",
    "INSERT INTO users (team_id, name, kind, flags) VALUES (1, 'Ada', 'it''s', 'x,y'), (2, 'Bo', 'a', '')",
    "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'",
    "INSERT INTO users (id, name, boss_id) VALUES (0, 'Zero', 1)",
    "SET sql_mode = DEFAULT",
    "UPDATE team SET captain = 1 WHERE id = 1",
    """INSERT INTO pair VALUES (1, 'x', 1.5, 0.1, '{"a": [1, "b"]}', b'101', x'00ff275c25'),
        (2, 'x', NULL, NULL, NULL, NULL, NULL)""",
    "INSERT INTO heap VALUES (1, 'a'), (1, 'a'), (1, 'A')",
    "INSERT INTO latin VALUES (_latin1 x'e4f6fc')",
    "INSERT INTO place (p) VALUES (ST_GeomFromText('POINT(1 2)'))",
    "INSERT INTO hidden (a, b) VALUES (1, 2)",
    "INSERT INTO aria (a) VALUES (1), (2)",
    "INSERT INTO parts VALUES (1, 1), (50, 1)",
    "INSERT INTO big (a, b) VALUES " + ", ".join(f"('row {i}', {i} / 7)" for i in range(10_000)),
    # A counter that is not what the rows say.
    "INSERT INTO t5 (a) VALUES (1), (2)",
    "DELETE FROM t5",
]


class Plain(Sql):
    """The contract's ``Sql`` over a connection of SQLAlchemy."""

    def __init__(self, connection: AsyncConnection, driver: Driver) -> None:
        self._connection = connection
        self._driver = driver
        #: How many round trips have been made.
        self.trips = 0

    async def fetch(self, query: str) -> list[tuple[Any, ...]]:
        self.trips += 1
        result = await self._connection.exec_driver_sql(
            query, execution_options={"no_parameters": True}
        )
        return [tuple(row) for row in result]

    async def script(self, statements: Sequence[str]) -> Sequence[Sequence[tuple[Any, ...]]]:
        self.trips += 1
        raw = await self._connection.get_raw_connection()
        return await self._driver.run(raw.driver_connection, statements)


@dataclasses.dataclass
class Lab:
    """A server on which databases of one prefix may be made."""

    target: Target
    backend: Backend
    driver: Driver
    server: Server
    prefix: str

    @property
    def template(self) -> str:
        return f"{self.prefix}_tpl"

    @property
    def copy(self) -> str:
        return f"{self.prefix}_copy"

    @property
    def copied(self) -> tuple[DatabaseRef, DatabaseRef]:
        """The copy and its template as the contract names them."""
        names = (self.copy, self.template)
        urls = (self.backend.url(self.server, self.driver.name, name) for name in names)
        return tuple(map(DatabaseRef, names, urls))  # type: ignore[return-value]

    @contextlib.contextmanager
    def connect(self, database: str | None = None) -> Iterator[Callable[[str], Any]]:
        """A plain connection from outside: SQL to rows."""
        connection = self.target.observer.connect(database)
        with contextlib.closing(connection):

            def query(sql: str) -> Any:
                with connection.cursor() as cursor:
                    cursor.execute(sql)
                    return cursor.fetchall()

            yield query

    def run(self, database: str | None, *statements: str) -> None:
        with self.connect(database) as query:
            for statement in statements:
                found = query(statement.replace("{tpl}", self.template))
                if statement.startswith("ANALYZE"):  # its errors are rows
                    assert "Error" not in [row[2] for row in found], found

    @contextlib.asynccontextmanager
    async def sql(self, database: str | None) -> AsyncIterator[Plain]:
        """A connection as the mechanism has it."""
        engine = create_async_engine(
            self.backend.url(self.server, self.driver.name, database),
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
        )
        try:
            async with engine.connect() as connection:
                yield Plain(connection, self.driver)
        finally:
            await engine.dispose()

    async def make_copy(self) -> None:
        async with self.sql(None) as sql:
            copy = await self.backend.copier(sql, self.template, self.server)
            before = await sql.fetch(SESSION)
            await sql.script(copy(self.copy))
            assert await sql.fetch(SESSION) == before

    @contextlib.asynccontextmanager
    async def restorer(self) -> AsyncIterator[Restorer]:
        async with self.sql(self.copy) as sql:
            restorer = self.backend.restorer(sql, *self.copied)
            await restorer.remember()
            yield restorer

    def dump(self, database: str) -> dict[str, Any]:
        """Everything in a database, its name left out."""
        with self.connect(database) as query:
            query("SET time_zone = '+00:00', sql_mode = ''")
            found = {
                "database": query(f"SHOW CREATE DATABASE {database}")[0][1].replace(
                    database, "", 1
                ),
            }
            found["columns"] = query(
                "SELECT table_name, column_name, ordinal_position, column_default, is_nullable, "
                "column_type, character_set_name, collation_name, extra, generation_expression "
                f"FROM information_schema.columns WHERE table_schema = '{database}' "
                "ORDER BY table_name, ordinal_position"
            )
            for name, kind in query("SHOW FULL TABLES"):
                quoted = "`" + name.replace("`", "``") + "`"
                word = {"VIEW": "VIEW", "SEQUENCE": "SEQUENCE"}.get(kind, "TABLE")
                found[f"{kind} {name}"] = query(f"SHOW CREATE {word} {quoted}")
                selected = f"SELECT * FROM {quoted}"
                if "SYSTEM VERSIONING" in found[f"{kind} {name}"][0][1]:
                    times = "`fr``om`, `to`" if name == "gone" else "row_start, row_end"
                    selected = f"SELECT *, {times} FROM {quoted} FOR SYSTEM_TIME ALL"
                found[f"rows {name}"] = sorted(query(selected), key=repr)
            if self.backend.name == "mysql":
                for table, column, data in query(
                    # The server updates some of them.
                    "SELECT table_name, column_name, if(histogram->'$.\"auto-update\"', 1, "
                    "json_remove(histogram, '$.\"last-updated\"')) "
                    f"FROM information_schema.column_statistics WHERE schema_name = '{database}'"
                ):
                    found[f"HISTOGRAM {table}.{column}"] = data
                for (name,) in query("SELECT library_name FROM information_schema.libraries "
                                     f"WHERE library_schema = '{database}'"):  # fmt: skip
                    found[f"LIBRARY {name}"] = query(f"SHOW CREATE LIBRARY {name}")
            for kind in ("PROCEDURE", "FUNCTION"):
                for row in query(f"SHOW {kind} STATUS WHERE db = '{database}'"):
                    found[f"{kind} {row[1]}"] = query(f"SHOW CREATE {kind} {row[1]}")
            for (name,) in query("SELECT event_name FROM information_schema.events "
                                 f"WHERE event_schema = '{database}'"):  # fmt: skip
                found[f"EVENT {name}"] = query(f"SHOW CREATE EVENT {name}")
            for name, order in query("SELECT trigger_name, action_order FROM information_schema."
                                     f"triggers WHERE trigger_schema = '{database}'"):  # fmt: skip
                created = query(f"SHOW CREATE TRIGGER {name}")[0]
                found[f"TRIGGER {name}"] = (order, created[:6])
        return {key: _without(value, database) for key, value in found.items()}


SESSION = (
    "SELECT @@session.foreign_key_checks, @@session.unique_checks, @@session.sql_mode, "
    "@@session.time_zone, @@session.collation_connection, database()"
)


def _without(value: Any, database: str) -> Any:
    """A value of a dump without the database's name, where it is a name."""
    if isinstance(value, str):
        for before, after in ((f"`{database}`.", ""), (f" {database}.", " ")):
            value = value.replace(before, after)
        # The collation implies it; MySQL tells it once more when it was told the collation.
        value = re.sub(r" CHARACTER SET \w+(?= COLLATE)", "", value)
        # MySQL takes the semicolon behind a routine in a script for a part of it.
        return value.removesuffix(";")
    if isinstance(value, (tuple, list)):
        return [_without(item, database) for item in value]
    return value


def _lab(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Lab]:
    target = servers.target(request.param)
    backend = REGISTRY.backend(target.backend)
    spec = BackendSpec(target.backend, driver=target.driver, written=target.word)
    lab = Lab(
        target,
        backend,
        REGISTRY.driver(spec),
        servers.server(target.backend),
        f"lab_{secrets.token_hex(4)}",
    )
    try:
        yield lab
    finally:
        with lab.connect() as query:
            for (name,) in query("SHOW DATABASES"):
                if name.startswith(lab.prefix):
                    query(f"DROP DATABASE {name}")


@pytest.fixture(params=WORDS, ids=lambda word: word.replace("+", "-"))
def lab(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Lab]:
    """An empty template."""
    for found in _lab(request, servers):
        found.run(None, *found.backend.create_database(found.template))
        yield found


@pytest.fixture(scope="module", params=WORDS, ids=lambda word: word.replace("+", "-"))
def filled(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Lab]:
    for found in _lab(request, servers):
        found.run(None, *found.backend.create_database(found.template))
        name = found.backend.name
        found.run(found.template, *SCHEMA, *ONLY[name], *SEED, *SEED_ONLY[name])
        yield found


@pytest.fixture
def rich(filled: Lab) -> Iterator[Lab]:
    """A template with everything in it, which the test leaves as it is."""
    yield filled
    filled.run(None, f"DROP DATABASE IF EXISTS {filled.copy}")


async def test_a_copy_equals_its_template(rich: Lab) -> None:
    before = rich.dump(rich.template)
    await rich.make_copy()
    copy = rich.dump(rich.copy)
    assert copy == before == rich.dump(rich.template)
    assert len([key for key in copy if key.startswith("BASE TABLE")]) >= 50
    if rich.backend.name == "mysql":
        assert {"LIBRARY tools", "VIEW doubled", "HISTOGRAM users.kind"} <= copy.keys()
        rich.run(rich.copy, "SELECT * FROM doubled")
    else:
        assert [len(copy[f"rows {name}"]) for name in ("past", "gone")] == [5, 1]
    for view in ("VIEW a_names", "VIEW z_names"):
        assert f"`{rich.template}`" not in copy[view][0][1]
    # What was made works, and in the copy.
    rich.run(
        rich.copy,
        "INSERT INTO users (name) VALUES ('new')",
        "CALL fill()",
        "SELECT * FROM a_names",
    )
    after = rich.dump(rich.copy)
    assert [row[1] for row in after["rows audit"]][-1] == f'"{rich.template}.no" 100%s'
    assert rich.dump(rich.template) == before


async def test_create_table_like_would_lose_the_foreign_keys(rich: Lab) -> None:
    """Control: the naive copy."""
    rich.run(None, *rich.backend.create_database(rich.copy))
    rich.run(rich.copy, f"CREATE TABLE users LIKE {rich.template}.users")
    made = rich.dump(rich.copy)["BASE TABLE users"][0][1]
    wanted = rich.dump(rich.template)["BASE TABLE users"][0][1]
    assert "FOREIGN KEY" in wanted
    assert "FOREIGN KEY" not in made


async def test_an_empty_template_is_copied_and_restored(lab: Lab) -> None:
    await lab.make_copy()
    async with lab.restorer() as restorer:
        assert await restorer.changed() == ()
        lab.run(lab.copy, "CREATE TABLE a (id INT)")
        assert await restorer.changed() == ("schema",)
        assert not await restorer.restore(("schema",))


async def test_tables_that_do_not_fit_into_one_query_are_restored(lab: Lab) -> None:
    names = [f"t{number:03}" for number in range(110)]
    columns = "id INT AUTO_INCREMENT PRIMARY KEY"
    lab.run(lab.template, *(f"CREATE TABLE {name} ({columns})" for name in names))
    await lab.make_copy()
    before = lab.dump(lab.copy)
    async with lab.restorer() as restorer:
        assert await restorer.changed() == ()
        lab.run(lab.copy, "INSERT INTO t000 VALUES ()", "INSERT INTO t109 VALUES ()")
        changed = await restorer.changed()
        assert changed == ("table t000", "table t109", "ids of t000", "ids of t109")
        assert await restorer.restore(changed)
        assert lab.dump(lab.copy) == before


DAMAGE = [
    "INSERT INTO users (name) VALUES ('new')",
    "INSERT INTO users (id, name) VALUES (1000, 'far')",
    "UPDATE users SET name = 'ADA' WHERE id = 1",
    "UPDATE users SET kind = 'b%s' WHERE id = 2",
    "DELETE FROM users WHERE id = 2",
    "UPDATE users SET id = 77 WHERE id = 2",
    "UPDATE team SET id = 9 WHERE id = 2",  # cascades
    "DELETE FROM team WHERE id = 2",  # cascades, which fires no trigger
    "INSERT INTO audit (what) VALUES ('x'), ('y')",
    "UPDATE pair SET g = x'00' WHERE a = 1",
    "UPDATE pair SET d = d + 0.0000001 WHERE a = 1",
    "UPDATE pair SET b = 'X' WHERE a = 1",
    "DELETE FROM heap LIMIT 1",
    "UPDATE heap SET b = 'A ' LIMIT 1",
    "INSERT INTO `we``ird %s 'n\"ame` (x) VALUES (1)",
    "UPDATE latin SET a = _latin1 x'c4f6fc'",
    "UPDATE place SET p = ST_GeomFromText('POINT(2 1)')",
    "UPDATE hidden SET b = 3",
    "INSERT INTO aria (a) VALUES (3)",
    "DELETE FROM parts WHERE a = 50",
    "ALTER TABLE parts TRUNCATE PARTITION p1",
    "UPDATE big SET a = 'ROW 5' WHERE a = 'row 5'",
    "UPDATE big SET b = b * 1.0001 WHERE id < 4",
    "UPDATE big SET id = id + 20000 WHERE id < 4",
    "DELETE FROM big WHERE id > 9000",
    "INSERT INTO big (a) VALUES ('one more')",
    "TRUNCATE big",
    "INSERT INTO t3 (a) VALUES (1), (2)",
    "INSERT INTO t5 (a) VALUES (1)",
    "INSERT INTO t7 (id, a) VALUES (-5, 1)",
    "ALTER TABLE t8 AUTO_INCREMENT = 60",
    "UPDATE aria SET a = a + 1",
    "BEGIN; INSERT INTO t9 (a) VALUES (1); ROLLBACK",
    "BEGIN; INSERT INTO users (name) VALUES ('never'); ROLLBACK",
    "BEGIN; INSERT INTO big (a) VALUES ('never'); ROLLBACK",
    "CALL fill()",
]
DAMAGE_ONLY = {
    "mysql": ["INSERT INTO expression VALUES ('a')"],
    "mariadb": [
        "SELECT nextval(numbers)",
        "INSERT INTO numbered (a) VALUES (1), (2)",
        "INSERT INTO history (a) VALUES (1)",
        "INSERT INTO history (a) VALUES (1); DELETE FROM history",
    ],
}


@pytest.mark.everyday("mariadb+asyncmy")
async def test_damage_is_seen_and_undone(rich: Lab) -> None:
    """Each kind by itself, then several at once, in any order, without a pause."""
    await rich.make_copy()
    before = rich.dump(rich.copy)
    damage = DAMAGE + DAMAGE_ONLY[rich.backend.name]
    choice = random.Random(4)
    rounds = [[one] for one in damage] + [choice.sample(damage, 4) for _ in range(10)]
    async with rich.restorer() as restorer:
        for statements in rounds:
            with rich.connect(rich.copy) as query:
                for statement in statements:
                    for part in statement.split("; "):
                        with contextlib.suppress(pymysql.err.IntegrityError):
                            query(part)
            seen = await restorer.changed()
            assert seen, statements
            assert "schema" not in seen, statements
            assert await restorer.restore(seen), (statements, seen)
            assert await restorer.changed() == (), (statements, seen)
            assert rich.dump(rich.copy) == before, (statements, seen)


#: Statements and what undoes them.
SCHEMA_CHANGES = [
    ("ALTER TABLE t1 ADD COLUMN more INT", "ALTER TABLE t1 DROP COLUMN more"),
    ("ALTER TABLE t1 MODIFY a BIGINT", "ALTER TABLE t1 MODIFY a INT"),
    ("ALTER TABLE t1 COMMENT = 'x'", "ALTER TABLE t1 COMMENT = ''"),
    ("ALTER TABLE t1 ALTER a SET DEFAULT 1", "ALTER TABLE t1 MODIFY a INT"),
    ("CREATE INDEX extra ON t1 (a)", "DROP INDEX extra ON t1"),
    ("DROP INDEX by_kind ON users", "ALTER TABLE users ADD INDEX by_kind (kind, name(5) DESC)"),
    ("CREATE TABLE more (id INT)", "DROP TABLE more"),
    ("RENAME TABLE t1 TO other", "RENAME TABLE other TO t1"),
    ("CREATE VIEW more AS SELECT 1 AS x", "DROP VIEW more"),
    ("CREATE TRIGGER more BEFORE INSERT ON t1 FOR EACH ROW SET @x = 1", "DROP TRIGGER more"),
    ("CREATE PROCEDURE more() SELECT 1", "DROP PROCEDURE more"),
    ("CREATE FUNCTION more() RETURNS INT DETERMINISTIC RETURN 1", "DROP FUNCTION more"),
    ("CREATE EVENT more ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1", "DROP EVENT more"),
    ("ALTER DATABASE CHARACTER SET utf8mb4", "ALTER DATABASE CHARACTER SET latin1"),
]
SCHEMA_CHANGES_ONLY = {
    "mysql": [
        (
            "ANALYZE TABLE t1 UPDATE HISTOGRAM ON a WITH 2 BUCKETS",
            "ANALYZE TABLE t1 DROP HISTOGRAM ON a",
        ),
        ("CREATE LIBRARY more LANGUAGE JAVASCRIPT AS $$ 1 $$", "DROP LIBRARY more"),
        ("ALTER DATABASE READ ONLY = 1", "ALTER DATABASE READ ONLY = 0"),
    ],
    "mariadb": [
        ("ALTER DATABASE COMMENT 'more'", "ALTER DATABASE COMMENT 'it''s `{tpl}`, 100%'"),
        ("CREATE SEQUENCE more", "DROP SEQUENCE more"),
        ("ALTER SEQUENCE numbers MAXVALUE 900", "ALTER SEQUENCE numbers NOMAXVALUE"),
    ],
}


@pytest.mark.everyday("mariadb+asyncmy")
async def test_a_changed_schema_is_seen_at_once_and_not_restored(rich: Lab) -> None:
    await rich.make_copy()
    async with rich.restorer() as restorer:
        for change, back in SCHEMA_CHANGES + SCHEMA_CHANGES_ONLY[rich.backend.name]:
            rich.run(rich.copy, change)
            assert await restorer.changed() == ("schema",), change
            assert not await restorer.restore(("schema",))
            rich.run(rich.copy, back)
            if change.startswith("DROP INDEX"):
                # It stands at another place now.
                rich.run(
                    rich.copy,
                    "DROP INDEX name ON users",
                    "ALTER TABLE users ADD FULLTEXT (name)",
                )
            assert await restorer.changed() == (), back
        with rich.connect(rich.copy) as query:
            ((_, create),) = query("SHOW CREATE TABLE heap")
            query("DROP TABLE heap")
            assert await restorer.changed() == ("schema",)
            query(create)
        assert await restorer.changed() == ("table heap",)
        assert await restorer.restore(("table heap",))
        assert await restorer.changed() == ()
        rich.run(rich.copy, "ALTER EVENT nightly COMMENT 'x'")
        assert await restorer.changed() == ("schema",)


async def test_schema_changes_in_procedures_and_prepared_statements_are_seen(lab: Lab) -> None:
    lab.run(
        lab.template,
        "CREATE TABLE a (id INT)",
        "CREATE PROCEDURE grow() ALTER TABLE a ADD COLUMN b INT",
        "CREATE PROCEDURE shrink() ALTER TABLE a DROP COLUMN b",
    )
    await lab.make_copy()
    async with lab.restorer() as restorer:
        lab.run(lab.copy, "CALL grow()")
        assert await restorer.changed() == ("schema",)
        lab.run(lab.copy, "CALL shrink()")
        assert await restorer.changed() == ()
        lab.run(lab.copy, "PREPARE s FROM 'ALTER TABLE a ADD COLUMN b INT'", "EXECUTE s")
        assert await restorer.changed() == ("schema",)


async def test_creation_times_would_not_show_a_changed_schema(lab: Lab) -> None:
    """Control: a fingerprint of information_schema.tables."""
    naive = (
        "SELECT table_name, create_time, table_rows FROM information_schema.tables "
        f"WHERE table_schema = '{lab.copy}'"
    )
    lab.run(lab.template, "CREATE TABLE a (id INT)")
    for _ in range(5):
        await lab.make_copy()
        async with lab.restorer() as restorer:
            with lab.connect(lab.copy) as query:
                before = query(naive)
                query("ALTER TABLE a ADD COLUMN b INT")
                unseen = query(naive) == before
            assert await restorer.changed() == ("schema",)
        if unseen:
            return
        lab.run(None, f"DROP DATABASE {lab.copy}")
    pytest.fail("the naive recipe has seen five changes out of five")


async def test_databases_of_others_are_not_looked_at(lab: Lab) -> None:
    lab.run(lab.template, "CREATE TABLE a (id INT)")
    await lab.make_copy()
    async with lab.restorer() as restorer:
        lab.run(lab.template, "CREATE TABLE b (id INT)", "INSERT INTO a VALUES (1)")
        assert await restorer.changed() == ()


async def test_a_clean_database_costs_one_round_trip(lab: Lab) -> None:
    lab.run(
        lab.template,
        *(f"CREATE TABLE t{i} (id INT PRIMARY KEY AUTO_INCREMENT)" for i in range(5)),
        "INSERT INTO t1 VALUES (1)",
    )
    await lab.make_copy()
    async with lab.sql(lab.copy) as sql:
        restorer = lab.backend.restorer(sql, *lab.copied)
        await restorer.remember()
        # Within the second in which rows were written they are compared.
        deadline = time.monotonic() + 5
        trips = 0
        while trips != 1 and time.monotonic() < deadline:
            before = sql.trips
            assert await restorer.changed() == ()
            trips = sql.trips - before
        assert trips == 1


async def test_ids_restart_where_those_of_the_template_do(rich: Lab) -> None:
    await rich.make_copy()
    before = rich.dump(rich.copy)
    moves = [
        f"BEGIN; INSERT INTO {name} VALUES (); ROLLBACK" for name in ("t1", "t5", "t20", "big")
    ]
    if rich.backend.name == "mariadb":
        moves.append("SELECT nextval(numbers)")
    async with rich.restorer() as restorer:
        rich.run(rich.copy, *(part for move in moves for part in move.split("; ")))
        assert rich.dump(rich.copy) != before
        assert await restorer.restore(await restorer.changed())
        assert rich.dump(rich.copy) == before
        assert await restorer.changed() == ()


async def test_a_lock_of_somebody_is_not_waited_for(lab: Lab) -> None:
    """Whoever was left in a transaction in the test's database is ended."""
    lab.run(lab.template, "CREATE TABLE a (id INT PRIMARY KEY)")
    await lab.make_copy()
    async with lab.restorer() as restorer:
        lab.run(lab.copy, "INSERT INTO a VALUES (1)")
        with lab.connect(lab.copy) as query:
            query("BEGIN")
            query("SELECT * FROM a FOR UPDATE")
            ((number,),) = query("SELECT connection_id()")
            before = time.monotonic()
            changed = await restorer.changed()
            assert changed[0].startswith(f"connection {number}: ")
            assert await restorer.restore(changed)
            assert time.monotonic() - before < 5
        assert await restorer.changed() == ()


async def test_rows_that_a_trigger_keeps_are_not_restored(lab: Lab) -> None:
    """A trigger that forbids it, and one that never lets it be as it was."""
    lab.run(
        lab.template,
        "CREATE TABLE a (id INT PRIMARY KEY)",
        "CREATE TRIGGER forbid BEFORE DELETE ON a FOR EACH ROW SIGNAL SQLSTATE '45000'",
        "CREATE TABLE b (id INT PRIMARY KEY, n INT)",
        "INSERT INTO b VALUES (1, 1)",
        "CREATE TRIGGER change_it BEFORE INSERT ON b FOR EACH ROW SET NEW.n = NEW.n + 1",
    )
    await lab.make_copy()
    async with lab.restorer() as restorer:
        lab.run(lab.copy, "UPDATE b SET n = 5")
        assert await restorer.changed() == ("table b",)
        assert not await restorer.restore(("table b",))
        lab.run(lab.copy, "UPDATE b SET n = 1", "INSERT INTO a VALUES (1)")
        assert await restorer.changed() == ("table a",)
        assert not await restorer.restore(("table a",))
