"""The detector of ``reset``, tested from outside: a complete dump of the server's catalogs before
and after each of many changes, and copies against their template.

The dumps use nothing of the plugin. One rich schema for each backend has an object of each kind.
"""

from __future__ import annotations


import pytest
from dump import changes_mysql, changes_postgres, changes_sqlite
from dump.stage import Stage, change, open_stage
from fix_servers import Servers
from fix_suite import COMPLETE

from pytest_asyncdb.isolation.copy import Copy
from pytest_asyncdb.isolation.reset import Reset

SCHEMAS = {
    "sqlite": changes_sqlite.SCHEMA,
    "postgres": (*changes_postgres.SCHEMA, *changes_postgres.SETTINGS),
    "mysql": (*changes_mysql.SCHEMA["mysql"], *changes_mysql.SETTINGS),
    "mariadb": (*changes_mysql.SCHEMA["mariadb"], *changes_mysql.SETTINGS),
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

#: Changes that `reset` does not undo, with the reason.
LIMITS: dict[str, dict[str, str]] = {"postgres": {}, "mysql": {}, "mariadb": {}, "sqlite": {}}

WORDS = ("sqlite", "postgres+asyncpg", "mysql+aiomysql", "mariadb+asyncmy")


@pytest.mark.parametrize("word", WORDS)
def test_reset_undoes_every_change(servers: Servers, word: str) -> None:
    """After each change the database equals what it was before the first one.

    Control: each change is in the dump before the test ends.
    """
    target = servers.target(word)
    backend = target.backend
    names = [n for n in CHANGES[backend] if n != 'create subscription'] if COMPLETE else SAMPLES[backend]
    left: dict[str, str] = {}
    reported: dict[str, list[str]] = {}
    unseen = []
    with open_stage(target, servers, SCHEMAS[backend], Reset) as stage:
        stage.play("first", lambda engine: change(engine, "SELECT 1"))
        expected = stage.dump()
        import time
        T = {}
        for name in names:
            t0 = time.perf_counter()
            statements = CHANGES[backend][name]
            try:
                with stage.test(name, lambda engine, s=statements: change(engine, s)) as breaches:
                    t1 = time.perf_counter()
                    if stage.dump() == expected:
                        unseen.append(name)
                    t2 = time.perf_counter()
            except Exception as error:
                left[name] = f"failed: {error}"
            if breaches:
                reported[name] = [str(breach) for breach in breaches]
            t3 = time.perf_counter()
            found = stage.dump()
            t4 = time.perf_counter()
            for k, v in dict(run=t1-t0, dump=t2-t1, close=t3-t2, dump2=t4-t3).items(): T[k] = T.get(k, 0) + v
            if found != expected:
                left[name] = stage.explain(found, expected)
                stage.renew()
        for name in sorted(left):
            print(f"LEFT {name}: {left[name]}")
        print("TIMES", T, len(names))
        print("UNSEEN", unseen)
        for name, texts in reported.items():
            print("REPORTED", name, texts)
    assert (sorted(left), unseen, reported) == ([], [], {})


@pytest.mark.parametrize("word", WORDS)
def test_a_copy_is_the_whole_database(servers: Servers, word: str) -> None:
    target = servers.target(word)
    with open_stage(target, servers, SCHEMAS[target.backend], Copy) as stage:
        expected = stage.dump(stage.template.name)
        copy = stage.database.copy(0, lambda ref: None)
        found = stage.dump(copy.name)
        assert found == expected, stage.explain(found, expected, copy.name)
