"""What a server does at the end of a transaction, or outside of one, and what an application asks of
its pool and of the driver's own connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import limits
from sqlalchemy import event, insert, select, text
from stage import Item, Stage, User, scenario

INSERT = "INSERT INTO truth_user (key, name, score) VALUES (1, 'ada', 0)"


@scenario()
async def numbers_of_the_pool(stage: Stage) -> None:
    pool = stage.engine.pool
    stage.note(pool.size(), pool.checkedin(), pool.checkedout(), pool.overflow())
    async with stage.engine.connect() as outer, stage.engine.connect() as inner:
        await outer.scalar(select(1))
        await inner.scalar(select(1))
        stage.note(pool.checkedin(), pool.checkedout(), pool.overflow())
    stage.note(pool.checkedin(), pool.checkedout(), pool.status().split()[0])


async def driver_insert(connection) -> None:
    raw = await connection.get_raw_connection()
    await raw.driver_connection.execute(INSERT)


@scenario("sqlite", "postgres")
async def a_driver_inserts_and_nothing_commits(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await driver_insert(connection)
    stage.note(await stage.users())


@scenario("sqlite", "postgres")
async def a_driver_inserts_in_a_block_that_fails(stage: Stage) -> None:
    with stage.attempting("block"):
        async with stage.engine.begin() as connection:
            await driver_insert(connection)
            raise LookupError
    stage.note(await stage.users())


@scenario("sqlite", "postgres")
async def a_driver_inserts_after_a_statement(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.scalar(select(1))
        await driver_insert(connection)
        await connection.rollback()
    stage.note(await stage.users())


@scenario("sqlite", "postgres")
async def a_driver_inserts_by_run_async(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.run_sync(
            lambda c: c.connection.dbapi_connection.run_async(lambda own: own.execute(INSERT))
        )
    stage.note(await stage.users())


@scenario("postgres")
async def a_driver_fails_and_the_connection_goes_on(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        raw = await connection.get_raw_connection()
        await stage.attempt("bad", raw.driver_connection.execute("SELEC"))
        await stage.attempt("next", connection.execute(text(INSERT)))
        await stage.attempt("commit", connection.commit())
    stage.note(await stage.users())


@scenario("postgres")
async def a_temporary_table_is_dropped_at_commit(stage: Stage) -> None:
    for key in (1, 2):
        async with stage.engine.begin() as connection:
            await connection.execute(
                text("CREATE TEMP TABLE staged (LIKE truth_user) ON COMMIT DROP")
            )
            await connection.execute(text(f"INSERT INTO staged VALUES ({key}, 'n{key}', 0)"))
            await connection.execute(text("INSERT INTO truth_user SELECT * FROM staged"))
    stage.note(await stage.users())


@scenario("postgres")
async def a_driver_fills_a_temporary_table(stage: Stage) -> None:
    for key in (1, 2):
        async with stage.engine.begin() as connection:
            await connection.scalar(select(1))
            raw = await connection.get_raw_connection()
            await raw.driver_connection.execute(
                f"CREATE TEMP TABLE staged ON COMMIT DROP AS SELECT {key} AS key"
            )
            stage.note(await connection.scalar(text("SELECT key FROM staged")))


@scenario("postgres", limits=[limits.ON_COMMIT])
async def a_temporary_table_is_emptied_at_commit(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(text("CREATE TEMP TABLE staged (id int) ON COMMIT DELETE ROWS"))
        await connection.execute(text("INSERT INTO staged VALUES (1)"))
        await connection.commit()
        stage.note(await connection.scalar(text("SELECT count(*) FROM staged")))


@scenario("postgres", limits=[limits.ON_COMMIT])
async def a_cursor_of_sql_ends_with_its_transaction(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(text("DECLARE rows_left CURSOR FOR SELECT 1"))
        await connection.commit()
        await stage.attempt("fetch", connection.scalar(text("FETCH rows_left")))


@scenario("postgres")
async def set_constraints_ends_with_its_transaction(stage: Stage) -> None:
    async with stage.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE truth_p (id int PRIMARY KEY)"))
        await connection.execute(
            text(
                "CREATE TABLE truth_q (now int REFERENCES truth_p DEFERRABLE,"
                " late int REFERENCES truth_p DEFERRABLE INITIALLY DEFERRED)"
            )
        )
    async with stage.engine.connect() as connection:
        await connection.execute(text("SET CONSTRAINTS ALL DEFERRED"))
        await connection.execute(text("INSERT INTO truth_q VALUES (1, 1)"))
        await connection.execute(text("INSERT INTO truth_p VALUES (1)"))
        await stage.attempt("commit", connection.commit())
        wrong = text("INSERT INTO truth_q VALUES (2, 1)")
        await stage.attempt("at once", connection.execute(wrong))
        await connection.rollback()
        late = text("INSERT INTO truth_q VALUES (1, 2)")
        await stage.attempt("late", connection.execute(late))
        await stage.attempt("commit", connection.commit())
    async with stage.engine.begin() as connection:
        await connection.execute(text("DROP TABLE truth_q"))
        await connection.execute(text("DROP TABLE truth_p"))


@scenario("postgres")
async def a_deferred_trigger_writes_at_commit(stage: Stage) -> None:
    async with stage.engine.begin() as connection:
        await connection.execute(
            text(
                "CREATE FUNCTION truth_note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " INSERT INTO truth_ticket (text) VALUES (NEW.name); RETURN NULL; END $$"
            )
        )
        await connection.execute(
            text(
                "CREATE CONSTRAINT TRIGGER noted AFTER INSERT ON truth_user DEFERRABLE"
                " INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION truth_note()"
            )
        )
    await stage.add("ada")
    async with stage.engine.connect() as connection:
        stage.note(await connection.scalar(text("SELECT text FROM truth_ticket")))
    async with stage.engine.begin() as connection:
        await connection.execute(text("DROP FUNCTION truth_note() CASCADE"))


@scenario("postgres")
async def a_table_with_a_deferred_constraint_is_emptied(stage: Stage) -> None:
    async with stage.engine.begin() as connection:
        await connection.execute(
            text("CREATE TABLE truth_late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        )
    async with stage.engine.begin() as connection:
        await connection.execute(text("INSERT INTO truth_late VALUES (1), (1)"))
        await connection.execute(text("DELETE FROM truth_late"))
    async with stage.engine.begin() as connection:
        await connection.execute(text("TRUNCATE truth_late"))
        await connection.execute(text("DROP TABLE truth_late"))


@scenario()
async def executemany_fails_in_autocommit(stage: Stage) -> None:
    await stage.add("ada", start=2)
    async with stage.engine.connect() as connection:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        rows = [{"key": key, "name": f"n{key}", "score": 0} for key in (1, 2, 3)]
        await stage.attempt("rows", connection.execute(insert(User), rows))
    stage.note(await stage.users())


@scenario("postgres", limits=[limits.AUTOCOMMIT])
async def a_lock_needs_a_transaction(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await stage.attempt("lock", connection.execute(text("LOCK TABLE truth_user")))


@scenario("postgres", limits=[limits.AUTOCOMMIT])
async def a_savepoint_needs_a_transaction(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        with stage.attempting("savepoint"):
            async with connection.begin_nested():
                await connection.execute(text(INSERT))


@scenario("postgres", limits=[limits.SESSION])
async def a_setting_of_an_outer_session(stage: Stage) -> None:
    async with stage.engine.connect() as outer:
        await outer.execute(text("SET app.tenant = '1'"))
        await outer.commit()
        async with stage.engine.connect() as inner:
            query = "SELECT nullif(current_setting('app.tenant', true), '')"
            stage.note(await inner.scalar(text(query)))


@scenario("postgres", limits=[limits.SESSION])
async def a_temporary_table_in_two_sessions(stage: Stage) -> None:
    async with stage.engine.connect() as outer, stage.engine.connect() as inner:
        await outer.execute(text("CREATE TEMP TABLE mine (id int)"))
        await stage.attempt("inner", inner.execute(text("CREATE TEMP TABLE mine (id int)")))


@scenario("postgres", limits=[limits.TIME])
async def each_transaction_has_its_id(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        first = await connection.scalar(text("SELECT txid_current()"))
        await connection.commit()
        stage.note(first == await connection.scalar(text("SELECT txid_current()")))


@scenario("postgres", limits=[limits.TIME])
async def a_row_has_the_id_of_its_transaction(stage: Stage) -> None:
    await stage.add("ada")
    async with stage.engine.connect() as connection:
        await connection.execute(text("UPDATE truth_user SET score = 1"))
        mine = "SELECT xmin::text = txid_current()::text FROM truth_user"
        stage.note(await connection.scalar(text(mine)))


@scenario("postgres", limits=[limits.DEFERRED])
async def a_deferred_trigger_counts(stage: Stage) -> None:
    async with stage.engine.begin() as connection:
        for statement in (
            "CREATE SEQUENCE truth_count",
            "CREATE FUNCTION truth_next() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " PERFORM nextval('truth_count'); RETURN NULL; END $$",
            "CREATE CONSTRAINT TRIGGER counted AFTER INSERT ON truth_user DEFERRABLE"
            " INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION truth_next()",
        ):
            await connection.execute(text(statement))
    await stage.add("ada")
    async with stage.engine.begin() as connection:
        stage.note(await connection.scalar(text("SELECT last_value FROM truth_count")))
        await connection.execute(text("DROP FUNCTION truth_next() CASCADE"))
        await connection.execute(text("DROP SEQUENCE truth_count"))


@scenario("postgres", limits=[limits.ON_COMMIT])
async def a_commit_closes_large_objects(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        opened = await connection.scalar(text("SELECT lo_open(lo_from_bytea(0, 'a'), 131072)"))
        await connection.commit()
        write = text(f"SELECT lowrite({opened}, 'b')")
        await stage.attempt("write", connection.execute(write))
        await connection.rollback()
        await connection.execute(text("SELECT lo_unlink(oid) FROM pg_largeobject_metadata"))
        await connection.commit()


@scenario("sqlite", limits=[limits.INTERRUPTED])
async def a_slow_insert_is_cancelled(stage: Stage) -> None:
    await stage.add("ada")
    rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)"
    with stage.attempting("insert"):
        async with stage.engine.begin() as connection:
            await connection.scalar(select(1))
            async with asyncio.timeout(0.1):
                await connection.execute(
                    text(f"INSERT INTO truth_ticket (text) {rows} SELECT i FROM n")
                )
    stage.note(await stage.users())


@scenario("sqlite", limits=[limits.OUTSIDE])
async def foreign_keys_are_switched_off(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(text("PRAGMA foreign_keys = OFF"))
        await stage.attempt("orphan", connection.execute(insert(Item).values(key=1, user_key=9)))
        await connection.rollback()
        await connection.execute(text("PRAGMA foreign_keys = ON"))


@scenario("sqlite", limits=[limits.SAVEPOINTS])
async def sqlite_keeps_a_table_without_a_commit(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(text("CREATE TABLE truth_zz (id int)"))
        await connection.rollback()
        await stage.attempt("drop", connection.execute(text("DROP TABLE truth_zz")))
        await connection.commit()


@contextlib.asynccontextmanager
async def recipe(stage: Stage, begin: str) -> AsyncIterator[None]:
    """SQLAlchemy's recipe for transactions on SQLite, as its documentation has it."""

    def connected(connection, record):
        connection.isolation_level = None

    def begun(connection):
        connection.exec_driver_sql(begin)

    sync = stage.engine.sync_engine
    event.listen(sync, "connect", connected)
    event.listen(sync, "begin", begun)
    await stage.engine.dispose()
    try:
        yield
    finally:
        event.remove(sync, "connect", connected)
        event.remove(sync, "begin", begun)
        await stage.engine.dispose()


@scenario("sqlite")
async def the_recipe_for_sqlite(stage: Stage) -> None:
    async with recipe(stage, "BEGIN"):
        await stage.add("ada")
        async with stage.sessions() as session:
            async with session.begin_nested():
                session.add(User(key=2, name="bob"))
            await session.rollback()
        stage.note(await stage.users())
        async with stage.engine.connect() as connection:
            await connection.execute(text("CREATE TABLE truth_zz (id int)"))
            await connection.rollback()
            await stage.attempt("gone", connection.execute(text("SELECT * FROM truth_zz")))


@scenario("sqlite")
async def the_recipe_with_begin_immediate(stage: Stage) -> None:
    async def count() -> None:
        async with stage.sessions.begin() as session:
            user = await session.get_one(User, 1)
            await asyncio.sleep(0)
            user.score += 1

    async with recipe(stage, "BEGIN IMMEDIATE"):
        await stage.add("ada")
        await stage.gather(count(), count(), count())
        stage.note(await stage.users())


@scenario("sqlite")
async def foreign_keys_are_deferred_by_a_pragma(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(insert(User).values(key=1, name="ada", score=0))
        await connection.execute(text("PRAGMA defer_foreign_keys = ON"))
        await connection.execute(insert(Item).values(key=1, user_key=9))
        await stage.attempt("commit", connection.commit())
        await connection.invalidate()  # SQLAlchemy rolls nothing back here


@scenario("sqlite")
async def a_table_with_a_deferred_foreign_key_is_created_and_used(stage: Stage) -> None:
    async with stage.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE truth_p (id INTEGER PRIMARY KEY)"))
        await connection.execute(
            text(
                "CREATE TABLE truth_q (id INTEGER PRIMARY KEY,"
                " p INTEGER REFERENCES truth_p DEFERRABLE INITIALLY DEFERRED)"
            )
        )
    for p in (1, 2):
        with stage.attempting("block"):
            async with stage.engine.begin() as connection:
                await connection.execute(text(f"INSERT INTO truth_q (p) VALUES ({p})"))
                if p == 1:
                    await connection.execute(text("INSERT INTO truth_p VALUES (1)"))
    async with stage.engine.begin() as connection:
        stage.note(await connection.scalar(text("SELECT p FROM truth_q")))
        await connection.execute(text("DROP TABLE truth_q"))
        await connection.execute(text("DROP TABLE truth_p"))


@scenario("sqlite", limits=[limits.OUTSIDE])
async def a_database_is_detached(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(text("ATTACH DATABASE ':memory:' AS other"))
        await connection.execute(text("SELECT * FROM other.sqlite_master"))
        await stage.attempt("detach", connection.execute(text("DETACH DATABASE other")))


@scenario("sqlite", limits=[limits.OUTSIDE])
async def a_database_is_vacuumed(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await stage.attempt("vacuum", connection.execute(text("VACUUM")))


@scenario()
async def begin_is_sent_as_text(stage: Stage) -> None:
    async with stage.sessions() as session:
        await stage.attempt("begin", session.execute(text("BEGIN")))
        session.add(User(key=1, name="ada"))
        await session.commit()


@scenario("postgres")
async def a_deferrable_transaction_is_asked_for(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execution_options(postgresql_readonly=True, postgresql_deferrable=True)
        stage.note(await connection.scalar(select(1)))


@scenario("postgres")
async def a_table_of_pg_temp_is_dropped_at_commit(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(text("CREATE TABLE pg_temp.staged (id int) ON COMMIT DROP"))
        await connection.commit()
        await stage.attempt("gone", connection.execute(text("SELECT * FROM staged")))


@scenario("sqlite", limits=[limits.on(limits.AUTOCOMMIT, "sqlite")])
async def a_savepoint_in_autocommit_is_rolled_back(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        nested = await connection.begin_nested()
        await connection.execute(text(INSERT))
        await stage.attempt("rollback", nested.rollback())


@scenario("postgres", limits=[limits.LEVELS])
async def later_transactions_shall_only_read(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(text("SET default_transaction_read_only = on"))
        await connection.commit()
        await stage.attempt("insert", connection.execute(text(INSERT)))
        await connection.rollback()
        await connection.execute(text("SET default_transaction_read_only = off"))
        await connection.commit()


@scenario("postgres", limits=[limits.SETTINGS])
async def a_setting_is_set_after_set_local(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(text("SET LOCAL work_mem = '2MB'"))
        await connection.execute(text("SET work_mem = '3MB'"))
        await connection.commit()
        stage.note(await connection.scalar(text("SHOW work_mem")))
        await connection.execute(text("RESET work_mem"))
        await connection.commit()
