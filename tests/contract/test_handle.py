"""``asyncdb``: checkpoint(), changes(), connections(), in every strategy, on every backend."""

from __future__ import annotations

import pytest
from fix_project import QUIET, Project
from fix_servers import Target
from fix_suite import EACH_ONCE

pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")

STRATEGIES = ("rollback", "reset", "copy")
REAL = STRATEGIES[1:]

SEED = """
import pytest
from app.models import User


@pytest.fixture(scope="session")
def asyncdb_seed():
    async def seed(session):
        session.add_all([User(name="ada"), User(name="bob")])

    return seed
"""
SEEDED = {"users": [(1, "ada"), (2, "bob")], "posts": []}


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.everyday(*EACH_ONCE)
def test_a_checkpoint_puts_the_data_back(project: Project, target: Target, strategy: str) -> None:
    """Again and again; what is open when it is left is undone."""
    project.write("conftest.py", SEED)
    project.tests(
        """
        async def test_it(asyncdb, asyncdb_sessionmaker):
            for _ in range(3):
                async with asyncdb.checkpoint():
                    async with asyncdb_sessionmaker() as session:
                        assert await names(session) == ["ada", "bob"]
                        await add(session, "cyd")
                        await session.execute(text("DELETE FROM users WHERE name = 'ada'"))
                        await session.commit()
                        assert await names(session) == ["bob", "cyd"]
            async with asyncdb_sessionmaker() as session:
                assert await names(session) == ["ada", "bob"]

        async def test_raises(asyncdb, asyncdb_sessionmaker):
            with pytest.raises(LookupError):
                async with asyncdb.checkpoint():
                    async with asyncdb_sessionmaker() as session, session.begin():
                        await add(session, "cyd")
                    raise LookupError
            async with asyncdb_sessionmaker() as session:
                assert await names(session) == ["ada", "bob"]
        """
    )
    project.run(target, f"--asyncdb-isolation={strategy}", expected=SEEDED).passed(2)


@pytest.mark.everyday(*EACH_ONCE)
def test_a_checkpoint_behind_commits(project: Project, target: Target, strategy: str) -> None:
    """``rollback`` leads back to them; real commits can only be put back to the template."""
    project.write("conftest.py", SEED)
    project.tests(
        """
        async def test_it(asyncdb, asyncdb_sessionmaker):
            async with asyncdb_sessionmaker() as session:
                await session.execute(text("UPDATE users SET name = 'cyd' WHERE id = 1"))
                await session.commit()
            async with asyncdb.checkpoint():
                async with asyncdb_sessionmaker() as session:
                    await add(session, "dan")
                    await session.commit()
            async with asyncdb_sessionmaker() as session:
                assert await names(session) == ["bob", "cyd"]
        """
    )
    outcome = project.run(target, f"--asyncdb-isolation={strategy}", expected=SEEDED)
    if strategy == "rollback":
        outcome.passed(1)
        return
    changed = {"sqlite": "database", "postgres": "table public.users"}
    outcome.had(failed=1).shows(
        f"""
        asyncdb.checkpoint() begins after something has been committed

        test: test_it.py::test_it[{target.id}]
        changed: {changed.get(target.backend, "table users")}
        With real commits a checkpoint leads back to the schema and seed only.

        To fix this: enter it first, put what it begins with into asyncdb_seed, \
or mark the test @pytest.mark.asyncdb(isolation="rollback")
        """
    )


def test_a_checkpoint_in_a_transaction_is_refused(project: Project, target: Target) -> None:
    line = 'await add(asyncdb_session, "cyd")'
    project.tests(
        f"""
        async def test_it(asyncdb, asyncdb_session):
            {line}
            async with asyncdb.checkpoint():
                pass
        """
    )
    inner = 'await session.execute(insert(User), [{"name": word} for word in words])'
    project.run(target).had(failed=1).shows(
        f"""
        asyncdb.checkpoint() begins while a transaction is open

        test: test_it.py::test_it[{target.id}]
        It was opened
          at {project.place(line, "test_it")}
          at {project.place(inner, "add")}

        To fix this: end it before: await session.commit(), or await session.rollback()
        """
    )


ODD = {
    "postgres": [
        'CREATE TYPE "pa%s:ir" AS (a INT, b TEXT)',
        "CREATE TABLE arrays (id INT[] PRIMARY KEY, v TEXT)",
        "INSERT INTO arrays VALUES ('{7}', 'seeded')",
        "CREATE TABLE documents (id JSONB PRIMARY KEY)",
        'CREATE TABLE pairs (id "pa%s:ir" PRIMARY KEY, n NUMERIC, at TIMESTAMPTZ)',
        "CREATE TABLE endless (id DATE PRIMARY KEY, at TIMESTAMPTZ, f FLOAT8)",
        "INSERT INTO endless VALUES ('infinity', '-infinity', 'NaN')",
        "CREATE TABLE settings (asyncdb INT PRIMARY KEY, text TEXT)",
    ],
    "mysql": [
        "CREATE TABLE documents (id INT PRIMARY KEY, d JSON)",
        "CREATE TABLE hidden (id INT PRIMARY KEY AUTO_INCREMENT INVISIBLE, a INT)",
        "CREATE TABLE points (id INT PRIMARY KEY, p POINT)",
        "CREATE TABLE vectors (id INT PRIMARY KEY, v VECTOR(2))",
    ],
    "mariadb": [
        "CREATE TABLE documents (id INT PRIMARY KEY, d JSON)",
        "CREATE TABLE hidden (id INT PRIMARY KEY AUTO_INCREMENT INVISIBLE, a INT)",
        "CREATE TABLE points (id INT PRIMARY KEY, p POINT)",
    ],
    "sqlite": [],
}
_OF_MYSQL = {
    "documents": ("""1, '{"a": [1]}'""", "d = '[]'"),
    "hidden": ("7", "a = 8"),
    "points": ("1, POINT(1, 2)", "p = POINT(2, 1)"),
}
ODD_ROWS = {
    "postgres": {
        "arrays": ("'{1,2}', 'x'", "v = 'y'"),
        "documents": ("""'{"a": [1]}'""", """id = '{"a": [2]}'"""),
        "pairs": ("ROW(1, 'x'), 'NaN', now()", "n = 1"),
        "endless": ("'-infinity', now(), 'inf'", "f = 0"),
        "settings": ("1, 'x'", "text = 'y'"),
    },
    "mysql": {
        **_OF_MYSQL,
        "vectors": ("1, STRING_TO_VECTOR('[1, 2]')", "v = STRING_TO_VECTOR('[2, 1]')"),
    },
    "mariadb": _OF_MYSQL,
    "sqlite": {},
}


@pytest.mark.everyday(
    *(("sqlite", "rollback"), ("mysql+aiomysql", "rollback"), ("mariadb+asyncmy", "reset")),
    *(("postgres+asyncpg", "rollback"), ("postgres+psycopg", "reset")),
)
@pytest.mark.parametrize("strategy", ["rollback", "reset"])
def test_changes_of_tables_with_odd_keys_and_names(
    project: Project, target: Target, strategy: str
) -> None:
    """Keys that are arrays or documents, or none; any name; values that a driver cannot read;
    types that SQLAlchemy does not know, without a warning; invisible columns."""
    quote = "`" if target.backend in ("mysql", "mariadb") else '"'
    name = f"{quote}it's 100%s of :x %(y)s{quote}"
    ddl = [
        *ODD[target.backend],
        f"CREATE TABLE {name} ({quote}a:b %s{quote} INT PRIMARY KEY, {quote}c %{quote} INT)",
        "CREATE TABLE heap (a INT, b INT)",
        "INSERT INTO heap VALUES (1, 1), (1, 1), (2, 2)",
    ]
    rows = {
        **ODD_ROWS[target.backend],
        name: ("1, 1", f"{quote}c %{quote} = 2"),
        "heap": ("1, 1", ""),
    }
    project.ini(asyncdb_metadata=None, filterwarnings="error")
    project.write(
        "conftest.py",
        f"""
        import pytest


        @pytest.fixture(scope="session")
        def asyncdb_migrate():
            async def migrate(connection):
                for statement in {ddl!r}:
                    await connection.exec_driver_sql(
                        statement, execution_options={{"no_parameters": True}})
            return migrate
        """,
    )
    project.tests(
        f"""
        ROWS = {rows!r}

        async def run(engine, statement):
            async with engine.begin() as connection:
                await connection.exec_driver_sql(
                    statement, execution_options={{"no_parameters": True}})


        async def test_it(asyncdb, asyncdb_engine):
            assert await asyncdb.changes() == {{}}
            for name, (row, _) in ROWS.items():
                await run(asyncdb_engine, f"INSERT INTO {{name}} VALUES ({{row}})")
            changes = await asyncdb.changes()
            assert [len(changes[name.strip('`"')].inserted) for name in ROWS] == [1] * len(ROWS)
            assert len(changes) == len(ROWS)
            assert changes["heap"].inserted == [{{"a": 1, "b": 1}}]
            if "hidden" in ROWS:
                assert changes["hidden"].inserted == [{{"id": 1, "a": 7}}]
            for name, (_, update) in ROWS.items():
                if update:
                    await run(asyncdb_engine, f"UPDATE {{name}} SET {{update}}")
            await run(asyncdb_engine, "DELETE FROM heap WHERE a = 1")
            changes = await asyncdb.changes()
            assert len(changes["heap"].deleted) == 2
            assert all(len(changes[name.strip('`"')].inserted) == 1
                       for name, (_, update) in ROWS.items() if update)
            assert len(changes.get("arrays", changes["heap"]).updated) == ("arrays" in changes)
        """
    )
    result = project.pytester.runpytest_inprocess(
        *QUIET, *target.arguments, f"--asyncdb-isolation={strategy}"
    )
    result.assert_outcomes(passed=1)


@pytest.mark.everyday(
    *(("sqlite", "copy"), ("postgres+asyncpg", "reset")),
    *(("mysql+aiomysql", "copy"), ("mariadb+asyncmy", "reset")),
)
@pytest.mark.parametrize("strategy", REAL)
def test_ddl_in_a_checkpoint_cannot_be_put_back(
    project: Project, target: Target, strategy: str
) -> None:
    """But on SQLite; the next test is clean all the same."""
    project.tests(
        """
        async def test_it(asyncdb, asyncdb_engine):
            async with asyncdb.checkpoint():
                async with asyncdb_engine.begin() as connection:
                    await connection.execute(text("CREATE TABLE more (id INTEGER)"))

        async def test_next(asyncdb_session):
            assert await names(asyncdb_session) == []
        """
    )
    outcome = project.run(target, f"--asyncdb-isolation={strategy}")
    if target.backend == "sqlite":
        outcome.passed(2)
        return
    outcome.had(passed=1, failed=1)
    if target.backend != "postgres":
        outcome.shows(
            f"""
            asyncdb.checkpoint() cannot put the data back

            test: test_it.py::test_it[{target.id}]
            changed: schema

            To fix this: keep DDL out of the checkpoint
            """
        )
        return
    outcome.shows(
        f"""
        asyncdb.checkpoint() cannot put the data back

        test: test_it.py::test_it[{target.id}]
        changed: schema

        To fix this: keep DDL out of the checkpoint
        """
    )


@pytest.mark.everyday(*EACH_ONCE)
def test_changes_are_those_of_the_test(project: Project, target: Target, strategy: str) -> None:
    project.write("conftest.py", SEED)
    project.tests(
        """
        @pytest.mark.parametrize("n", range(2))
        async def test_it(asyncdb, asyncdb_session, n):
            assert await asyncdb.changes() == {}
            await asyncdb_session.execute(text("UPDATE users SET name = 'eve' WHERE id = 1"))
            await asyncdb_session.execute(text("DELETE FROM users WHERE id = 2"))
            await asyncdb_session.execute(insert(User).values(id=7, name="cyd"))
            await asyncdb_session.execute(insert(Post).values(id=1, user_id=7, text="hers"))
            await asyncdb_session.commit()
            changes = await asyncdb.changes()
            assert list(changes) == ["posts", "users"]
            assert changes["posts"].inserted == [{"id": 1, "user_id": 7, "text": "hers"}]
            users = changes["users"]
            assert users.inserted == [{"id": 7, "name": "cyd"}]
            assert users.updated == [({"id": 1, "name": "ada"}, {"id": 1, "name": "eve"})]
            assert users.deleted == [{"id": 2, "name": "bob"}]
        """
    )
    project.run(target, f"--asyncdb-isolation={strategy}", expected=SEEDED).passed(2)


@pytest.mark.everyday(
    ("sqlite", "copy"), ("postgres+asyncpg", "reset"), ("mariadb+asyncmy", "copy")
)
@pytest.mark.parametrize("strategy", REAL)
def test_connections_have_transactions_of_their_own(
    project: Project, target: Target, strategy: str
) -> None:
    project.tests(
        """
        @pytest.mark.parametrize("n", range(2))
        async def test_it(asyncdb, n):
            async with asyncdb.connections(3, lock_timeout=1) as (one, two, three):
                assert await names(one) == await names(two) == await names(three) == []
                for connection in (one, two, three):
                    await connection.rollback()
                await add(one, "ada")
                with pytest.raises(DBAPIError):  # its lock is waited for, not for long
                    async with asyncio.timeout(10):
                        await add(two, "ada")
                await two.rollback()
                await one.commit()
                assert await names(three) == ["ada"]
        """
    )
    project.run(target, f"--asyncdb-isolation={strategy}").passed(2)


def test_rollback_has_no_connections_to_give(project: Project, target: Target) -> None:
    project.tests(
        """
        async def test_it(asyncdb):
            async with asyncdb.connections(2):
                pass
        """
    )
    project.run(target).had(failed=1).shows(
        f"""
        asyncdb.connections() needs connections of their own, which 'rollback' does not have

        test: test_it.py::test_it[{target.id}]

        To fix this: mark the test @pytest.mark.asyncdb(isolation="reset")
        """
    )


@pytest.mark.everyday(*EACH_ONCE)
def test_the_url_in_the_middle_of_a_test(project: Project, target: Target, strategy: str) -> None:
    """Also after the test has written, when SQLite lets no other connection read."""
    project.tests(
        """
        @pytest.mark.parametrize("number", range(2))
        async def test_it(asyncdb, asyncdb_session, number):
            await add(asyncdb_session, "ada")
            assert asyncdb.url.drivername == asyncdb.engine.url.drivername
            await asyncdb_session.commit()
            assert await names(asyncdb_session) == ["ada"]
        """
    )
    project.run(target, f"--asyncdb-isolation={strategy}").passed(2)
