"""The detector of ``reset``, tested from outside: a complete dump of the server's catalogs before
and after each of many changes; and copies against their template.

The dumps use nothing of the plugin. One rich schema for each backend has an object of each kind.
"""

from __future__ import annotations

from collections.abc import Callable

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
