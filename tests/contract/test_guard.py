"""What applications do around the transaction: raw connections, two phases, late checks.

For each the guilty test is told, and the next one is clean.
"""

from __future__ import annotations

import pytest
from fix_project import MODELS, Project
from fix_servers import WORDS, Servers, Target

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
    """It would write at once, and for good, if its first call did not begin anything."""
    project.tests(
        f"""
        async def test_it(asyncdb_engine, asyncdb_session):
            connection = await asyncdb_engine.raw_connection()
            driver = connection.driver_connection
            {raw(target, "INSERT INTO users (name) VALUES ('ada')")}
            connection.close()
            assert await names(asyncdb_session) == []  # closed without a commit

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
        for call in ("commit", "rollback", "close")
        if word != "postgres+asyncpg" or call == "close"  # asyncpg has no other of these
    ],
)
def test_the_drivers_own_connection_cannot_end_the_test(
    project: Project, servers: Servers, word: str, call: str
) -> None:
    target = servers.target(word)
    project.tests(
        f"""
        async def test_it(asyncdb_engine):
            connection = await asyncdb_engine.raw_connection()
            await connection.driver_connection.{call}()
        """,
        NEXT,
    )
    project.run(target).had(failed=1, passed=1).shows(
        f"""
        refused: driver_connection.{call}()

        test: test_it.py::test_it[{target.id}]
        at {project.place(f"await connection.driver_connection.{call}()", "test_it")}
        In the strategy 'rollback' it would end the test's outer transaction.

        To fix this: mark the test @pytest.mark.asyncdb(isolation="reset")
        """
    )


def test_a_commit_over_the_drivers_own_connection_is_refused(
    project: Project, target: Target
) -> None:
    project.tests(
        f"""
        async def test_it(asyncdb_engine):
            connection = await asyncdb_engine.raw_connection()
            driver = connection.driver_connection
            {raw(target, "COMMIT")}
        """,
        NEXT,
    )
    outcome = project.run(target).had(failed=1, passed=1)
    assert "IsolationBreach: refused before it ran: COMMIT" in outcome.text


@pytest.mark.parametrize("word", WORDS[1:])
def test_two_phase_transactions_are_refused(project: Project, servers: Servers, word: str) -> None:
    """A prepared transaction outlives its connection. SQLite has none."""
    target = servers.target(word)
    project.tests(
        """
        async def test_it(asyncdb_engine):
            def work(connection):
                transaction = connection.begin_twophase()
                connection.execute(insert(User).values(name="ada"))
                transaction.prepare()
                transaction.commit()

            async with asyncdb_engine.connect() as connection:
                await connection.run_sync(work)
        """,
        NEXT,
    )
    outcome = project.run(target).had(failed=1, passed=1)
    assert "IsolationBreach: refused" in outcome.text


#: The models with a foreign key that is checked at COMMIT.
DEFERRED = MODELS.replace(
    'ForeignKey("users.id")', 'ForeignKey("users.id", deferrable=True, initially="DEFERRED")'
)


@pytest.mark.parametrize("word", WORDS[1:3])
def test_deferred_constraints_are_checked_at_the_commit(
    project: Project, servers: Servers, word: str
) -> None:
    """As PostgreSQL does at a real COMMIT, which never comes here."""
    target = servers.target(word)
    project.write("app/models.py", DEFERRED)
    project.tests(
        """
        async def test_violated(asyncdb_session):
            await add(asyncdb_session, "before")
            await asyncdb_session.commit()
            asyncdb_session.add(Post(user_id=99, text="an orphan"))
            await asyncdb_session.flush()  # not yet
            with pytest.raises(IntegrityError, match="foreign key"):
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
                with pytest.raises(IsolationConflict, match="cannot change to isolation level"):
                    await connection.execution_options(isolation_level=level)
        """,
        NEXT,
    )
    project.run(target).passed(3)


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
