"""The detector of ``reset``, tested from outside: a complete dump of the server's catalogs before
and after each of many changes; and copies against their template.

The dumps use nothing of the plugin. One rich schema for each backend has an object of each kind.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pymysql
import pytest
from dump import changes_mysql, changes_postgres, changes_sqlite
from dump.stage import Change, change, open_stage
from fix_servers import Servers
from fix_suite import COMPLETE
from sqlalchemy.ext.asyncio import AsyncEngine

from pytest_asyncdb.isolation.copy import Copy
from pytest_asyncdb.isolation.reset import Reset

SCHEMAS = {
    "sqlite": changes_sqlite.SCHEMA,
    "postgres": (*changes_postgres.SCHEMA, *changes_postgres.SETTINGS),
    "mysql": (*changes_mysql.SCHEMA["mysql"], *changes_mysql.GRANTS),
    "mariadb": (*changes_mysql.SCHEMA["mariadb"], *changes_mysql.GRANTS),
}
CHANGES = {
    "sqlite": changes_sqlite.CHANGES,
    "postgres": changes_postgres.CHANGES,
    **changes_mysql.CHANGES,
}
SAMPLES = {
    "sqlite": changes_sqlite.SAMPLE,
    "postgres": changes_postgres.SAMPLE,
    **changes_mysql.SAMPLE,
}
#: How many changes there are at least.
AT_LEAST = {"sqlite": 60, "postgres": 150, "mysql": 150, "mariadb": 150}

#: On MySQL and MariaDB they belong to accounts, which all databases of the server share.
_RIGHTS = "rights are rows of the server's own tables, under the name of the database"

#: What ``reset`` does not undo, with the reason. A change that it undoes must not stand here.
LIMITS: dict[str, dict[str, str]] = {
    "sqlite": {},
    "postgres": {
        "comment on event trigger": "event triggers do not run for commands on event triggers",
    },
    "mysql": {name: _RIGHTS for name in CHANGES["mysql"] if name.startswith("grant ")},
    "mariadb": {name: _RIGHTS for name in CHANGES["mariadb"] if name.startswith("grant ")},
}

#: The parts of a dump that copies lose, with the reason.
_GRANTED = {
    **{f"mysql.{name}": _RIGHTS for name in ("db", "tables_priv", "procs_priv")},
    **{f"information_schema.{name}_PRIVILEGES": _RIGHTS for name in ("SCHEMA", "TABLE")},
}
LOST: dict[str, dict[str, str]] = {
    "sqlite": {},
    "postgres": {},
    "mysql": _GRANTED,
    "mariadb": _GRANTED,
}

#: What is judged does not depend on the driver.
WORDS = ("sqlite", "postgres+asyncpg", "mysql+aiomysql", "mariadb+asyncmy")


def doing(statements: Change) -> Callable[[AsyncEngine], object]:
    return lambda engine: change(engine, statements)


@pytest.mark.parametrize("word", WORDS)
def test_reset_undoes_every_change(servers: Servers, word: str) -> None:
    """After each change the database equals what it was before the first one.

    Control: each change is in the dump before the test ends.
    """
    target = servers.target(word)
    backend = target.backend
    changes = CHANGES[backend]
    assert len(changes) >= AT_LEAST[backend]
    left: dict[str, str] = {}
    unseen = []
    reported: list[BaseException] = []
    with open_stage(target, servers, SCHEMAS[backend], Reset) as stage:
        assert stage.play("first", doing("SELECT 1")) == []
        expected = stage.dump()
        for name in changes if COMPLETE else SAMPLES[backend]:
            with stage.test(name, doing(changes[name])) as breaches:
                if stage.dump() == expected:
                    unseen.append(name)
            reported += breaches
            found = stage.dump()
            if found != expected:
                left[name] = stage.explain(found, expected, stage.database.url.database)
                stage.renew()
    expected_to_stay = LIMITS[backend].keys() & (changes if COMPLETE else SAMPLES[backend])
    assert left.keys() == expected_to_stay, "\n".join(f"{n}: {left[n]}" for n in left)
    assert unseen == []
    assert reported == []


@pytest.mark.parametrize("word", WORDS)
def test_a_copy_is_the_whole_database(servers: Servers, word: str) -> None:
    """The dump of a copy equals that of its template."""
    target = servers.target(word)
    backend = target.backend
    with open_stage(target, servers, SCHEMAS[backend], Copy) as stage:
        expected = stage.dump(stage.template.url.database)
        copy = stage.database.copy(0, lambda ref: None)
        found = stage.dump(copy.url.database)
        lost = {name for name in expected if found.get(name) != expected[name]}
        new = found.keys() - expected.keys()
        assert (lost, new) == (LOST[backend].keys(), set()), stage.explain(
            found, expected, copy.url.database
        )


#: Triggers that fire also where the session has switched triggers off.
ALWAYS = (
    "CREATE TABLE person (id INT PRIMARY KEY, name TEXT)",
    "CREATE TABLE audit (id SERIAL PRIMARY KEY, what TEXT)",
    "CREATE TABLE kept (id INT)",
    """CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO audit (what) VALUES (TG_OP); RETURN NULL; END $$""",
    "CREATE TRIGGER noted AFTER INSERT OR DELETE ON person FOR EACH ROW EXECUTE FUNCTION note()",
    "CREATE TRIGGER kept BEFORE DELETE ON kept FOR EACH ROW EXECUTE FUNCTION note()",
    "INSERT INTO person VALUES (1, 'ada')",
    "ALTER TABLE person ENABLE {word} TRIGGER noted",
    "ALTER TABLE kept ENABLE {word} TRIGGER kept",
)


@pytest.mark.parametrize("word", ["ALWAYS", "REPLICA"])
def test_what_triggers_do_that_always_fire_is_undone(servers: Servers, word: str) -> None:
    """Also what they do while rows are put back.

    Control: they fire in a session that has switched triggers off.
    """
    target = servers.target("postgres+asyncpg")
    schema = [statement.format(word=word) for statement in ALWAYS]
    with open_stage(target, servers, schema, Reset) as stage:
        assert stage.play("first", doing("SELECT 1")) == []
        expected = stage.dump()
        for statement in (
            "UPDATE person SET name = 'eve'",
            "DELETE FROM person",
            "INSERT INTO kept VALUES (1)",
        ):
            assert stage.play("writes", doing(statement)) == []
            assert stage.dump() == expected, statement
        with closing(target.observer.connect(stage.database.url.database)) as connection:
            cursor = connection.cursor()
            cursor.execute("SET session_replication_role = replica")
            cursor.execute("DELETE FROM person")
            cursor.execute("SELECT what FROM audit WHERE id = lastval()")
            assert cursor.fetchall() == [("DELETE",)]


@pytest.mark.parametrize("word", ["mysql+aiomysql", "mariadb+asyncmy"])
def test_a_view_of_a_dropped_table_or_column_is_left_out(servers: Servers, word: str) -> None:
    """No statement can create it. Control: the template has it, and it cannot be read there."""
    target = servers.target(word)
    schema = (
        "CREATE TABLE team (id INT, name VARCHAR(9))",
        "CREATE TABLE old (id INT)",
        "CREATE VIEW names AS SELECT name FROM team",
        "CREATE VIEW old_ids AS SELECT id FROM old",
        "CREATE VIEW older_ids AS SELECT id FROM old_ids",
        "CREATE VIEW ids AS SELECT id FROM team",
        "CREATE PROCEDURE names() SELECT id FROM team",
        "DROP TABLE old",
        "ALTER TABLE team DROP COLUMN name",
    )
    with open_stage(target, servers, schema, Reset) as stage:
        assert stage.play("reads", doing("SELECT id FROM ids")) == []
        kept = stage.dump()
        assert stage.play("breaks", doing(("CREATE VIEW v AS SELECT 1", "DROP TABLE team"))) == []
        assert stage.dump() == kept
        views = {name for name in stage.dump(stage.template.url.database) if "VIEW " in name}
        assert views - kept.keys() == {"VIEW names", "VIEW old_ids", "VIEW older_ids"}
        assert "PROCEDURE names" in kept
        with pytest.raises(pymysql.err.OperationalError, match="references invalid table"):
            target.observer.query("SELECT * FROM older_ids", stage.template.url.database)


def test_what_mariadb_has_not_checked_is_copied(servers: Servers) -> None:
    """A migration may switch off checks of rows and of the options of tables.

    Control: the server refuses such a row and such a table in another session.
    """
    target = servers.target("mariadb+asyncmy")
    wide = ", ".join(f"c{number} VARCHAR(40)" for number in range(300))
    table = f"CREATE TABLE wide (id INT, {wide}) CHARACTER SET latin1 ROW_FORMAT = COMPACT"
    schema = (
        "SET check_constraint_checks = 0, innodb_strict_mode = 0",
        "CREATE TABLE person (id INT, age INT CHECK (age > 0))",
        "INSERT INTO person VALUES (1, -1)",
        table,
    )
    with open_stage(target, servers, schema, Reset) as stage:
        template = stage.template.url.database
        expected = stage.dump(template)
        for statement in ("SELECT 1", "DELETE FROM person"):
            assert stage.play("writes", doing(statement)) == []
            found = stage.dump()
            for part in ("TABLE wide", "TABLE person", "rows of person"):
                assert found[part] == expected[part], statement
        with pytest.raises(pymysql.err.OperationalError, match="CONSTRAINT"):
            target.observer.query("INSERT INTO person VALUES (2, -1)", template)
        with pytest.raises(pymysql.err.OperationalError, match="Row size too large"):
            target.observer.query(table.replace("wide (", "wider ("), template)
