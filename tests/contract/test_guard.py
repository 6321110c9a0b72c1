"""What applications do around the transaction: raw connections, two phases, late checks.

For each the guilty test is told, and the next one is clean.
"""

from __future__ import annotations

import pytest
from fix_project import MODELS, Project
from fix_servers import PREPARES_BY_CALL, WORDS, Servers, Target, skip_without_two_phase
from fix_suite import EACH_DRIVER

pytestmark = pytest.mark.everyday(*EACH_DRIVER)

NEXT = """
async def test_next(asyncdb_session):
    assert await names(asyncdb_session) == []
"""

#: What the driver's own connection calls to run a statement, by driver.
EXECUTE = {
    "aiosqlite": "await driver.execute({0!r})",
    "asyncpg": "await driver.execute({0!r})",
    "psycopg": "await driver.execute({0!r})",
    "asyncmy": "await driver.query({0!r})",
    "aiomysql": "await driver.query({0!r})",
}


def raw(target: Target, statement: str) -> str:
    return EXECUTE[target.driver].format(statement)


def test_the_drivers_own_connection_works_in_the_tests_transaction(
    project: Project, target: Target
) -> None:
    """It would write for good, if its first call did not begin anything. asyncpg's own connection begins
    no transaction, so there the application needs no commit."""
    kept = ["ada"] if target.driver == "asyncpg" else []
    project.tests(
        f"""
        async def test_it(asyncdb_engine, asyncdb_session):
            connection = await asyncdb_engine.raw_connection()
            driver = connection.driver_connection
            {raw(target, "INSERT INTO users (name) VALUES ('ada')")}
            connection.close()
            assert await names(asyncdb_session) == {kept}

        async def test_commit(asyncdb_engine, asyncdb_session):
            async with asyncdb_engine.begin() as connection:
                raw = await connection.get_raw_connection()
                driver = raw.driver_connection
                {raw(target, "INSERT INTO users (name) VALUES ('ada')")}
            assert await names(asyncdb_session) == ["ada"]
        """,
        NEXT,
    )
    project.run(target).passed(3)


@pytest.mark.parametrize(
    ("word", "call"),
    [
        (word, call)
        for word in WORDS
        for call in ("commit", "rollback", "close", "executescript")
        if (call != "executescript" or word == "sqlite")  # which would commit first
        if word != "postgres+asyncpg" or call == "close"  # asyncpg has no other of these
    ],
)
def test_the_drivers_own_connection_cannot_end_the_test(
    project: Project, servers: Servers, word: str, call: str
) -> None:
    target = servers.target(word)
    script = "\"INSERT INTO users (name) VALUES ('ada')\"" if call == "executescript" else ""
    line = f"await connection.driver_connection.{call}({script})"
    project.tests(
        f"""
        async def test_it(asyncdb_engine):
            connection = await asyncdb_engine.raw_connection()
            {line}
        """,
        NEXT,
    )
    project.run(target).had(failed=1, passed=1).shows(
        f"""
        refused: driver_connection.{call}()

        test: test_it.py::test_it[{target.id}]
        at {project.place(line, "test_it")}
        In the strategy 'rollback' it would end the test's outer transaction.

        To fix this: mark the test @pytest.mark.asyncdb(isolation="reset")
        """
    )


LABELS = {"sqlite": "SQLite", "postgres": "PostgreSQL", "mysql": "MySQL", "mariadb": "MariaDB"}


def refused(target: Target, statement: str, place: str, why: str) -> str:
    """The whole text of a refused statement."""
    return f"""
        refused before it ran: {statement}

        test: test_it.py::test_it[{target.id}]
        at {place}
        On {LABELS[target.backend]} {why}, and what the test wrote could not be undone.

        To fix this: use session.commit() and session.rollback() rather than their SQL text, \
keep DDL out of the test, or mark it @pytest.mark.asyncdb(isolation="reset")
        """


@pytest.mark.everyday("COMMIT", "postgres+asyncpg", ("SET autocommit = 1", "mysql+aiomysql"))
@pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK", "BEGIN", "SET autocommit = 1"])
def test_an_end_over_the_drivers_own_connection_is_refused(
    project: Project, target: Target, statement: str
) -> None:
    line = raw(target, statement)
    project.tests(
        f"""
        async def test_it(asyncdb_engine):
            connection = await asyncdb_engine.raw_connection()
            driver = connection.driver_connection
            {raw(target, "INSERT INTO users (name) VALUES ('ada')")}
            {line}
        """,
        NEXT,
    )
    why = "it ends or begins a transaction itself"
    project.run(target).had(failed=1, passed=1).shows(
        refused(target, statement, project.place(line, "test_it"), why)
    )


@pytest.mark.everyday(
    *("sqlite", "postgres+asyncpg", ("postgres+psycopg", "ROLLBACK"), ("mysql+asyncmy", "BEGIN")),
    *(("mysql+aiomysql", "SET autocommit = 1"), ("mysql+aiomysql", "TRUNCATE TABLE posts")),
    *(("mariadb+asyncmy", "ROLLBACK"), ("mariadb+asyncmy", "LOCK TABLES users WRITE")),
)
@pytest.mark.parametrize(
    ("word", "statement", "why"),
    [
        *(
            (word, statement, "it ends or begins a transaction itself")
            for word in WORDS
            for statement in ("BEGIN", "ROLLBACK", "SET autocommit = 1")
        ),
        *(
            (word, statement, "it commits by itself")
            for word in WORDS[3:]
            for statement in ("LOCK TABLES users WRITE", "TRUNCATE TABLE posts")
        ),
    ],
)
def test_statements_about_transactions_are_refused(
    project: Project, servers: Servers, word: str, statement: str, why: str
) -> None:
    """As text, after work that must not be committed; a lock of tables commits, too."""
    target = servers.target(word)
    line = f'await asyncdb_session.execute(text("{statement}"))'
    project.tests(
        f"""
        async def test_it(asyncdb_session):
            await add(asyncdb_session, "ada")
            {line}
        """,
        NEXT,
    )
    project.run(target).had(failed=1, passed=1).shows(
        refused(target, statement, project.place(line, "test_it"), why)
    )


#: Where two-phase transactions are refused: the line, and what it would have sent.
TWO_PHASE = {"asyncpg": ("transaction.prepare()", "PREPARE TRANSACTION 'x'")}
if not PREPARES_BY_CALL:
    TWO_PHASE["psycopg"] = TWO_PHASE["asyncpg"]


@pytest.mark.parametrize("word", WORDS[1:])
def test_two_phase_transactions_are_refused(project: Project, servers: Servers, word: str) -> None:
    """A prepared transaction outlives its connection. SQLite has none."""
    target = servers.target(word)
    skip_without_two_phase(target)
    project.tests(
        """
        async def test_it(asyncdb_engine):
            def work(connection):
                transaction = connection.begin_twophase("x")
                connection.execute(insert(User).values(name="ada"))
                transaction.prepare()
                transaction.commit()

            async with asyncdb_engine.connect() as connection:
                await connection.run_sync(work)
        """,
        NEXT,
    )
    call = project.place("await connection.run_sync(work)", "test_it")
    outcome = project.run(target).had(failed=1, passed=1)
    if target.driver in TWO_PHASE:
        line, statement = TWO_PHASE[target.driver]
        places = f"{call}\n        at {project.place(line, 'work')}"
        why = "it ends or begins a transaction itself"
        outcome.shows(refused(target, statement, places, why))
        return
    outcome.shows(
        f"""
        refused: begin_twophase()

        test: test_it.py::test_it[{target.id}]
        at {call}
        at {project.place('transaction = connection.begin_twophase("x")', "work")}
        In the strategy 'rollback' a prepared transaction would outlive the test.

        To fix this: mark the test @pytest.mark.asyncdb(isolation="reset")
        """
    )


#: The models with a foreign key that is checked at COMMIT.
@pytest.mark.everyday("mysql+asyncmy", "mariadb+aiomysql")
@pytest.mark.parametrize("first", ["", "commit"])
@pytest.mark.parametrize("word", WORDS[3:])
def test_ddl_by_the_drivers_own_connection_is_noticed(
    project: Project, servers: Servers, word: str, first: str
) -> None:
    """Also if it is the first thing on the connection, before any statement of SQLAlchemy."""
    target = servers.target(word)
    project.tests(
        f"""
        import inspect

        async def create(own):
            cursor = own.cursor()
            cursor = await cursor if inspect.isawaitable(cursor) else cursor
            await cursor.execute("CREATE PROCEDURE more() SELECT 1")
            await cursor.close()

        async def test_it(asyncdb_session):
            if {first!r}:
                await asyncdb_session.commit()
            connection = await asyncdb_session.connection()
            await connection.run_sync(
                lambda sync: sync.connection.dbapi_connection.run_async(create)
            )
        """,
        NEXT,
    )
    outcome = project.run(target).had(failed=1, passed=1)
    assert "the test's outer transaction was ended under it" in outcome.text


DEFERRED = MODELS.replace(
    'ForeignKey("users.id")', 'ForeignKey("users.id", deferrable=True, initially="DEFERRED")'
)


@pytest.mark.parametrize("word", WORDS[:3])
def test_deferred_constraints_are_checked_at_the_commit(
    project: Project, servers: Servers, word: str
) -> None:
    """As PostgreSQL and SQLite do at a real COMMIT, which never comes here."""
    target = servers.target(word)
    project.write("app/models.py", DEFERRED)
    project.tests(
        """
        async def test_violated(asyncdb_session):
            await add(asyncdb_session, "before")
            await asyncdb_session.commit()
            asyncdb_session.add(Post(user_id=99, text="an orphan"))
            await asyncdb_session.flush()  # not yet
            with pytest.raises(IntegrityError, match="(?i)foreign key"):
                await asyncdb_session.commit()
            await asyncdb_session.rollback()
            assert await names(asyncdb_session) == ["before"]
            assert (await asyncdb_session.scalars(select(Post))).all() == []

        async def test_mended_in_time(asyncdb_session):
            asyncdb_session.add(Post(user_id=99, text="early"))
            await asyncdb_session.flush()
            asyncdb_session.add(User(id=99, name="late"))
            await asyncdb_session.commit()
            asyncdb_session.add(Post(user_id=98, text="early"))
            await asyncdb_session.flush()  # deferred as before
            asyncdb_session.add(User(id=98, name="later"))
            await asyncdb_session.commit()
            assert await names(asyncdb_session) == ["late", "later"]
        """,
        NEXT,
    )
    project.run(target).passed(3)


def test_sqlite_checks_deferred_constraints_as_a_file_does(
    project: Project, servers: Servers
) -> None:
    """The same error at the same place; none at the end of an inner unit."""
    project.write("app/models.py", DEFERRED)
    project.tests(
        """
        from pytest_asyncdb import build_engine
        from sqlalchemy import event

        def in_memory(connection, record):
            cursor = connection.cursor()
            cursor.execute("PRAGMA temp_store = MEMORY")  # drops temporary tables
            cursor.close()

        async def orphan(engine):
            event.listen(engine.sync_engine, "connect", in_memory)
            async with engine.connect() as connection:
                await connection.execute(insert(Post).values(user_id=99, text="an orphan"))
                with pytest.raises(IntegrityError) as caught:
                    await connection.commit()
                await connection.invalidate()  # a failed COMMIT leaves the file locked
            async with engine.connect() as connection:
                found = (await connection.execute(select(Post.text))).all()
            return str(caught.value.orig), caught.value.orig.sqlite_errorname, found

        async def test_file(asyncdb_engine, tmp_path):
            file = build_engine(f"sqlite+aiosqlite:///{tmp_path / 'control.db'}")
            async with file.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            real = await orphan(file)
            assert real == ("FOREIGN KEY constraint failed", "SQLITE_CONSTRAINT_FOREIGNKEY", [])
            assert await orphan(asyncdb_engine) == real
            await file.dispose()

        async def test_inner(asyncdb_sessionmaker):
            async with asyncdb_sessionmaker() as outer:
                outer.add(Post(user_id=99, text="early"))
                await outer.flush()
                async with asyncdb_sessionmaker() as inner:
                    await add(inner, "inner")
                    await inner.commit()
                outer.add(User(id=99, name="late"))
                await outer.commit()
                assert await names(outer) == ["inner", "late"]
        """,
        NEXT,
    )
    project.run(servers.target("sqlite")).passed(3)


def test_a_statement_of_aiosqlites_own_connection_is_awaited(
    project: Project, servers: Servers
) -> None:
    """A plain engine allows ``async with`` as well."""
    project.tests(
        """
        from pytest_asyncdb import build_engine

        async def in_a_block(statement):
            async with statement as cursor:
                return await cursor.fetchone()

        @pytest.mark.parametrize(
            "strategy",
            [pytest.param(s, marks=pytest.mark.asyncdb(isolation=s)) for s in ("rollback", "reset")],
        )
        async def test_it(asyncdb_engine, strategy):
            plain = build_engine("sqlite+aiosqlite://")
            for engine in (plain, asyncdb_engine):
                async with engine.connect() as connection:
                    raw = (await connection.get_raw_connection()).driver_connection
                    statement = raw.execute("SELECT 1")
                    if engine is plain:
                        assert await in_a_block(statement) == (1,)
                        continue
                    with pytest.raises(TypeError):
                        await in_a_block(statement)
                    cursor = await statement
                    assert await cursor.fetchone() == (1,)
                    await cursor.close()
            await plain.dispose()
        """
    )
    project.run(servers.target("sqlite")).passed(2)


def test_isolation_levels_are_answered(project: Project, target: Target) -> None:
    project.tests(
        """
        from pytest_asyncdb import IsolationConflict

        async def test_the_levels_of_the_outer_transaction(asyncdb_engine):
            level = asyncdb_engine.dialect.default_isolation_level
            async with asyncdb_engine.connect() as connection:
                await connection.execution_options(isolation_level=level)
                await connection.execute(select(User))
            async with asyncdb_engine.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                await connection.execute(insert(User).values(name="ada"))
            async with asyncdb_engine.connect() as connection:
                assert await names_of(connection) == ["ada"]

        async def names_of(connection):
            return list((await connection.execute(select(User.name))).scalars())

        async def test_another_level(asyncdb_engine):
            default = asyncdb_engine.dialect.default_isolation_level
            level = "READ UNCOMMITTED" if default == "SERIALIZABLE" else "SERIALIZABLE"
            async with asyncdb_engine.connect() as connection:
                with pytest.raises(IsolationConflict, match="cannot change to") as caught:
                    await connection.execution_options(isolation_level=level)
            assert '{"isolation_level": …} from asyncdb_engine_options' in str(caught.value)
        """,
        NEXT,
    )
    project.run(target).had(passed=3, errors=1)  # the test has kept the error to itself


def test_an_engine_may_be_disposed_of_and_used_again(project: Project, target: Target) -> None:
    """As the lifespan of an application does."""
    project.tests(
        """
        async def test_it(asyncdb_engine, asyncdb_session):
            async with asyncdb_engine.begin() as connection:
                await connection.execute(insert(User).values(name="ada"))
            await asyncdb_engine.dispose()
            async with asyncdb_engine.begin() as connection:
                await connection.execute(insert(User).values(name="grace"))
            assert await names(asyncdb_session) == ["ada", "grace"]
            await asyncdb_engine.dispose()
        """,
        NEXT,
    )
    project.run(target).passed(2)


def test_streams_pool_events_and_connection_info_are_there(
    project: Project, target: Target
) -> None:
    project.tests(
        """
        from sqlalchemy import event

        async def test_it(asyncdb_engine):
            seen = []
            for name in ("checkout", "checkin"):
                event.listen(
                    asyncdb_engine.sync_engine, name, lambda *args, name=name: seen.append(name)
                )
            async with asyncdb_engine.begin() as connection:
                (await connection.get_raw_connection()).info["key"] = "value"
                assert connection.info["key"] == "value"
                await connection.execute(insert(User), [{"name": f"u{n}"} for n in range(300)])
                stream = await connection.stream(select(User.name).order_by(User.id))
                first = await stream.fetchmany(10)
                assert [row.name for row in first] == [f"u{n}" for n in range(10)]
                await stream.close()
                found = [row.name async for row in await connection.stream(select(User.name))]
                assert len(found) == 300
            assert seen == ["checkout", "checkin"]
        """,
        NEXT,
    )
    project.run(target).passed(2)


def test_no_cursor_is_left_to_the_garbage_collector(project: Project, servers: Servers) -> None:
    """On SQLite it would wait for the statement that runs in the driver's thread meanwhile."""
    project.tests(
        """
        import gc
        import sqlite3

        ENDLESS = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) " \\
            "SELECT count(*) FROM r"

        def is_open(cursor):
            try:
                cursor.fetchone()
            except sqlite3.ProgrammingError as error:
                return "closed cursor" not in str(error)
            return True

        def open_cursors():
            return [c for c in gc.get_objects() if isinstance(c, sqlite3.Cursor) and is_open(c)]

        async def test_cancelled(asyncdb_session):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncdb_session.execute(text(ENDLESS)), 0.2)
            assert open_cursors() == []

        KEPT = []

        async def test_stream(asyncdb_session):
            await add(asyncdb_session, "ada", "grace")
            KEPT.append(await asyncdb_session.stream(select(User)))
            assert len(open_cursors()) == 1

        async def test_after_the_stream(asyncdb_session):
            assert open_cursors() == []
        """
    )
    project.run(servers.target("sqlite")).passed(3)
