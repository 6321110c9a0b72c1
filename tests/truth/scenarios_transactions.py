"""Transactions and connections: https://docs.sqlalchemy.org/en/21/core/connections.html."""

from __future__ import annotations

import limits
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection
from stage import SERVERS, Item, Stage, Ticket, User, Versioned, scenario


def row(key: int, name: str | None = None) -> object:
    return insert(User).values(key=key, name=name or f"u{key}", score=0)


@scenario()
async def engine_begin_commits(stage: Stage) -> None:
    async with stage.engine.begin() as connection:
        await connection.execute(row(1))
    stage.note(await stage.users())


@scenario()
async def engine_begin_rolls_back_on_error(stage: Stage) -> None:
    with stage.attempting("block"):
        async with stage.engine.begin() as connection:
            await connection.execute(row(1))
            raise KeyError
    stage.note(await stage.users())


@scenario()
async def connect_without_commit(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(row(1))
    stage.note(await stage.users())


@scenario()
async def commit_as_you_go(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(row(1))
        await connection.commit()
        await connection.execute(row(2))
        await connection.rollback()
        await connection.execute(row(3))
        await connection.commit()
    stage.note(await stage.users())


@scenario()
async def begin_after_autobegin(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(select(1))
        await stage.attempt("begin", connection.begin())


@scenario()
async def begin_twice(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.begin()
        await stage.attempt("begin", connection.begin())


@scenario()
async def transaction_used_after_end(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        transaction = await connection.begin()
        await transaction.commit()
        await stage.attempt("commit", transaction.commit())
        await stage.attempt("rollback", transaction.rollback())
        stage.note(transaction.is_active, transaction.is_valid)


@scenario()
async def execute_in_ended_begin_block(stage: Stage) -> None:
    with stage.attempting("block"):
        async with stage.engine.connect() as connection, connection.begin() as transaction:
            await connection.execute(row(1))
            await transaction.rollback()
            await connection.execute(row(2))
    stage.note(await stage.users())


@scenario()
async def connection_used_after_close(stage: Stage) -> None:
    connection = await stage.engine.connect()
    await connection.close()
    await stage.attempt("execute", connection.execute(select(1)))
    stage.note(connection.closed)


@scenario()
async def connection_not_started(stage: Stage) -> None:
    connection = stage.engine.connect()
    await stage.attempt("execute", connection.execute(select(1)))


@scenario()
async def nested_commits(stage: Stage) -> None:
    async with stage.engine.begin() as connection:
        await connection.execute(row(1))
        async with connection.begin_nested():
            await connection.execute(row(2))
    stage.note(await stage.users())


@scenario()
async def nested_rolls_back_alone(stage: Stage) -> None:
    async with stage.engine.begin() as connection:
        await connection.execute(row(1))
        nested = await connection.begin_nested()
        await connection.execute(row(2))
        await nested.rollback()
        await connection.execute(row(3))
    stage.note(await stage.users())


@scenario()
async def nested_survives_an_integrity_error(stage: Stage) -> None:
    async with stage.sessions() as session:
        session.add(User(key=1, name="ada"))
        await session.flush()
        with stage.attempting("nested"):
            async with session.begin_nested():
                session.add(User(key=1, name="again"))
                await session.flush()
        session.add(User(key=2, name="bob"))
        await session.commit()
    stage.note(await stage.users())


@scenario()
async def nested_within_nested(stage: Stage) -> None:
    async with stage.engine.begin() as connection:
        async with connection.begin_nested():
            await connection.execute(row(1))
            inner = await connection.begin_nested()
            await connection.execute(row(2))
            await inner.rollback()
            async with connection.begin_nested():
                await connection.execute(row(3))
        await connection.execute(row(4))
    stage.note(await stage.users())


@scenario(limits=[limits.SAVEPOINTS])
async def outer_rollback_takes_released_savepoints(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        async with connection.begin_nested():
            await connection.execute(row(1))
        await connection.rollback()
    stage.note(await stage.users())


@scenario()
async def outer_commit_inside_nested(stage: Stage) -> None:
    async with stage.sessions() as session:
        session.add(User(key=1, name="ada"))
        nested = await session.begin_nested()
        session.add(User(key=2, name="bob"))
        await session.commit()
        stage.note(nested.is_active)
        await session.commit()
    stage.note(await stage.users())


@scenario()
async def session_rollback_inside_nested_block(stage: Stage) -> None:
    async with stage.sessions() as session:
        session.add(User(key=1, name="ada"))
        with stage.attempting("nested"):
            async with session.begin_nested():
                session.add(User(key=2, name="bob"))
                await session.flush()
                await session.rollback()
        await stage.attempt("commit", session.commit())
    stage.note(await stage.users())


@scenario()
async def savepoint_used_out_of_order(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.begin()
        one = await connection.begin_nested()
        await connection.execute(row(1))
        two = await connection.begin_nested()
        await connection.execute(row(2))
        await stage.attempt("outer", one.rollback())
        await stage.attempt("inner", two.rollback())
        await stage.attempt("go on", connection.execute(select(1)))
        await stage.attempt("commit", connection.commit())
    stage.note(await stage.users())


@scenario()
async def literal_savepoints(stage: Stage) -> None:
    async with stage.engine.begin() as connection:
        await connection.execute(row(1))
        await connection.execute(text("SAVEPOINT mine"))
        await connection.execute(row(2))
        await connection.execute(text("ROLLBACK TO SAVEPOINT mine"))
        await connection.execute(row(3))
        await connection.execute(text("RELEASE SAVEPOINT mine"))
    stage.note(await stage.users())


@scenario()
async def unknown_savepoint(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(row(1))
        await stage.attempt(
            "rollback to", connection.execute(text("ROLLBACK TO SAVEPOINT nothing"))
        )


@scenario("sqlite", "mysql", "mariadb")
async def a_failed_statement_undoes_only_itself(stage: Stage) -> None:
    await stage.add("ada")
    async with stage.engine.begin() as connection:
        await connection.execute(row(2))
        await stage.attempt("bad", connection.execute(row(1)))
        await connection.execute(row(3))
    stage.note(await stage.users())


@scenario("postgres")
async def a_failed_statement_fails_the_transaction(stage: Stage) -> None:
    await stage.add("ada")
    async with stage.engine.connect() as connection:
        await connection.execute(row(2))
        await stage.attempt("bad", connection.execute(row(1)))
        await stage.attempt("next", connection.execute(select(1)))
        await stage.attempt("commit", connection.commit())
        stage.note(await connection.scalar(select(1)))
    stage.note(await stage.users())


@scenario("postgres")
async def a_failed_transaction_that_is_committed_keeps_nothing(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(row(1))
        await stage.attempt("bad", connection.execute(text("SELECT 1 / 0")))
        await stage.attempt("commit", connection.commit())
    stage.note(await stage.users())


@scenario()
async def autocommit_connection(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(row(1))
        await connection.rollback()
        await connection.execute(row(2))
    stage.note(await stage.users())


@scenario()
async def autocommit_engine_option(stage: Stage) -> None:
    engine = stage.engine.execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(row(1))
    async with stage.engine.connect() as connection:
        await connection.execute(row(2))
    stage.note(await stage.users())


@scenario()
async def autocommit_with_a_failed_statement(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(row(1))
        await stage.attempt("bad", connection.execute(row(1)))
        await stage.attempt("next", connection.execute(row(2)))
    stage.note(await stage.users())


@scenario()
async def unknown_isolation_level(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await stage.attempt("level", connection.execution_options(isolation_level="PERFECT"))


@scenario(*SERVERS, limits=[limits.LEVELS])
async def another_isolation_level(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await stage.attempt("level", connection.execution_options(isolation_level="SERIALIZABLE"))
        stage.note(await connection.get_isolation_level())


@scenario()
async def default_isolation_level(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        stage.note(await connection.get_isolation_level())


@scenario()
async def nested_sessions_read_committed_work(stage: Stage) -> None:
    async with stage.sessions() as one:
        stage.note(await one.scalar(select(func.count()).select_from(User)))
        await one.commit()
        async with stage.sessions.begin() as two:
            two.add(User(key=1, name="ada"))
        stage.note(await one.scalar(select(func.count()).select_from(User)))


@scenario()
async def a_session_opened_within_an_idle_one_commits(stage: Stage) -> None:
    async with stage.sessions() as one:
        async with stage.sessions.begin() as two:
            two.add(User(key=1, name="ada"))
        await one.rollback()
        stage.note((await one.scalars(select(User.name))).all())


@scenario()
async def an_inner_commit_survives_an_outer_rollback(stage: Stage) -> None:
    async with stage.sessions() as one:
        await one.execute(select(1))
        async with stage.sessions.begin() as two:
            two.add(User(key=1, name="inner"))
        await one.rollback()
    stage.note(await stage.users())


@scenario(*SERVERS, limits=[limits.AROUND])
async def an_inner_commit_survives_a_writing_outer_rollback(stage: Stage) -> None:
    async with stage.sessions() as one:
        one.add(Versioned(key=1, value=1))
        await one.flush()
        async with stage.sessions.begin() as two:
            two.add(Versioned(key=2, value=2))
        await one.rollback()


@scenario(*SERVERS)
async def an_inner_rollback_leaves_the_outer_write(stage: Stage) -> None:
    async with stage.sessions() as one:
        one.add(Versioned(key=1, value=1))
        await one.flush()
        async with stage.sessions() as two:
            two.add(Versioned(key=2, value=2))
            await two.flush()
            await two.rollback()
        await one.commit()


@scenario(limits=[limits.UNCOMMITTED])
async def uncommitted_work_is_not_seen_by_another_session(stage: Stage) -> None:
    async with stage.sessions() as one:
        one.add(User(key=1, name="outer"))
        await one.flush()
        async with stage.sessions() as two:
            stage.note((await two.scalars(select(User.name))).all())
        await one.rollback()


@scenario(*SERVERS)
async def writers_closed_in_either_order(stage: Stage) -> None:
    one, two = stage.sessions(), stage.sessions()
    one.add(Versioned(key=1, value=1))
    await one.flush()
    two.add(Versioned(key=2, value=2))
    await two.flush()
    await stage.attempt("close one", one.close())
    await stage.attempt("close two", two.close())


@scenario(*SERVERS)
async def writers_committed_in_reverse(stage: Stage) -> None:
    one, two = stage.sessions(), stage.sessions()
    one.add(Versioned(key=1, value=1))
    await one.flush()
    two.add(Versioned(key=2, value=2))
    await two.flush()
    await two.commit()
    await one.commit()
    await one.close()
    await two.close()


@scenario(*SERVERS)
async def writers_committed_in_order(stage: Stage) -> None:
    one, two = stage.sessions(), stage.sessions()
    one.add(Versioned(key=1, value=1))
    await one.flush()
    two.add(Versioned(key=2, value=2))
    await two.flush()
    with stage.attempting("commit one"):
        await one.commit()
    with stage.attempting("commit two"):
        await two.commit()
    await one.close()
    await two.close()


@scenario("sqlite")
async def two_writers_on_sqlite(stage: Stage) -> None:
    one, two = stage.sessions(), stage.sessions()
    one.add(User(key=1, name="one"))
    await one.flush()
    await one.commit()
    two.add(User(key=2, name="two"))
    await two.flush()
    await two.commit()
    await one.close()
    await two.close()
    stage.note(await stage.users())


@scenario()
async def reader_then_writer_on_one_connection(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        stage.note(await connection.scalar(select(func.count()).select_from(User)))
        await connection.execute(row(1))
        stage.note(await connection.scalar(select(func.count()).select_from(User)))
        await connection.commit()
    stage.note(await stage.users())


@scenario()
async def run_sync_with_an_error(stage: Stage) -> None:
    def work(connection: object) -> None:
        raise LookupError

    async with stage.engine.connect() as connection:
        await stage.attempt("run_sync", connection.run_sync(work))
        stage.note(await connection.scalar(select(1)))


@scenario()
async def get_raw_connection(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        raw = await connection.get_raw_connection()
        stage.note(raw.driver_connection is not None, raw.is_valid)


@scenario()
async def connection_invalidate(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(select(1))
        await connection.commit()
        await connection.invalidate()
        stage.note(connection.invalidated)
        stage.note(await connection.scalar(select(1)))
        stage.note(connection.invalidated)


@scenario()
async def connection_invalidate_in_a_transaction(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(row(1))
        await connection.invalidate()
        await stage.attempt("next", connection.scalar(select(1)))
        await connection.rollback()
        await stage.attempt("after", connection.scalar(select(1)))
    stage.note(await stage.users())


@scenario()
async def connection_detached(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.run_sync(lambda c: c.detach())
        await connection.execute(row(1))
        await connection.commit()
    stage.note(await stage.users())


@scenario()
async def execution_options_are_kept(stage: Stage) -> None:
    engine = stage.engine.execution_options(tenant="blue")
    async with engine.connect() as connection:
        await connection.execution_options(more=1)
        options = await connection.run_sync(lambda c: dict(c.get_execution_options()))
        stage.note(options.get("tenant"), options.get("more"))


@scenario()
async def schema_translate_map_on_a_connection(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execution_options(schema_translate_map={"tenant": None})
        from sqlalchemy import column, table

        there = table("truth_user", column("name"), schema="tenant")
        await stage.attempt("select", connection.scalar(select(func.count()).select_from(there)))


@scenario()
async def update_waits_for_no_one(stage: Stage) -> None:
    await stage.add("ada", "bob")
    async with stage.engine.begin() as connection:
        await connection.execute(update(User).where(User.key == 1).values(score=1))
        await connection.execute(update(User).where(User.key == 2).values(score=2))
    stage.note(await stage.users())


@scenario("postgres")
async def set_local_ends_with_the_transaction(stage: Stage) -> None:
    async with stage.sessions() as session:
        await session.execute(text("SET LOCAL statement_timeout = '777ms'"))
        stage.note(await session.scalar(text("SHOW statement_timeout")))
        await session.commit()
        stage.note(await session.scalar(text("SHOW statement_timeout")))


@scenario("postgres")
async def set_config_local_ends_with_the_transaction(stage: Stage) -> None:
    async with stage.sessions() as session:
        await session.execute(text("SELECT set_config('app.tenant', 'blue', true)"))
        stage.note(await session.scalar(text("SELECT current_setting('app.tenant', true)")))
        await session.commit()
        stage.note(await session.scalar(text("SELECT current_setting('app.tenant', true)")) or "")


@scenario("postgres")
async def set_local_in_a_nested_transaction(stage: Stage) -> None:
    async with stage.sessions() as session:
        await session.execute(text("SET LOCAL statement_timeout = '1s'"))
        nested = await session.begin_nested()
        await session.execute(text("SET LOCAL statement_timeout = '2s'"))
        await nested.rollback()
        stage.note(await session.scalar(text("SHOW statement_timeout")))
        await session.commit()
        stage.note(await session.scalar(text("SHOW statement_timeout")))


@scenario("postgres")
async def set_is_undone_by_rollback(stage: Stage) -> None:
    async with stage.sessions() as session:
        await session.execute(text("SET statement_timeout = '3s'"))
        await session.rollback()
        stage.note(await session.scalar(text("SHOW statement_timeout")))


@scenario("postgres")
async def set_local_role_ends_with_the_transaction(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        before = await connection.scalar(text("SELECT current_user"))
        await connection.execute(text("SET LOCAL ROLE pg_read_all_data"))
        stage.note(await connection.scalar(text("SELECT current_user")) != before)
        await connection.commit()
        stage.note(await connection.scalar(text("SELECT current_user")) == before)


@scenario("postgres", limits=[limits.TIME])
async def now_moves_between_transactions(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        first = await connection.scalar(text("SELECT now()"))
        await connection.commit()
        second = await connection.scalar(text("SELECT now()"))
        stage.note(second > first)


@scenario("postgres")
async def deferred_constraint_is_checked_at_commit(stage: Stage) -> None:
    async with stage.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE truth_parent (id int PRIMARY KEY)"))
        await connection.execute(
            text(
                "CREATE TABLE truth_child (parent int REFERENCES truth_parent"
                " DEFERRABLE INITIALLY DEFERRED)"
            )
        )
    async with stage.engine.connect() as connection:
        await connection.execute(text("INSERT INTO truth_child VALUES (5)"))
        await stage.attempt("commit", connection.commit())
    async with stage.engine.begin() as connection:
        stage.note(await connection.scalar(text("SELECT count(*) FROM truth_child")))
        await connection.execute(text("DROP TABLE truth_child, truth_parent"))


@scenario("postgres", "sqlite")
async def ddl_is_transactional(stage: Stage) -> None:
    if stage.backend == "sqlite":
        return  # the driver's own transactions leave DDL out, on plain engines
    async with stage.engine.connect() as connection:
        await connection.execute(text("CREATE TABLE truth_new (id int)"))
        await connection.rollback()
        await stage.attempt("select", connection.execute(text("SELECT * FROM truth_new")))


@scenario("postgres")
async def trigger_with_a_body(stage: Stage) -> None:
    async with stage.engine.begin() as connection:
        await connection.execute(
            text(
                "CREATE FUNCTION truth_f() RETURNS trigger LANGUAGE plpgsql AS $$"
                " BEGIN NEW.score := NEW.score + 1; RETURN NEW; END; $$"
            )
        )
        await connection.execute(
            text(
                "CREATE TRIGGER truth_t BEFORE INSERT ON truth_user"
                " FOR EACH ROW EXECUTE FUNCTION truth_f()"
            )
        )
    await stage.add("ada")
    stage.note(await stage.users())
    async with stage.engine.begin() as connection:
        await connection.execute(text("DROP TRIGGER truth_t ON truth_user"))
        await connection.execute(text("DROP FUNCTION truth_f()"))


@scenario("postgres")
async def function_with_begin_atomic(stage: Stage) -> None:
    async with stage.engine.begin() as connection:
        await connection.execute(
            text(
                "CREATE FUNCTION truth_two() RETURNS int LANGUAGE sql"
                " BEGIN ATOMIC SELECT 1; SELECT 2; END"
            )
        )
    async with stage.engine.begin() as connection:
        stage.note(await connection.scalar(text("SELECT truth_two()")))
        await connection.execute(text("DROP FUNCTION truth_two()"))


@scenario("sqlite")
async def sqlite_trigger(stage: Stage) -> None:
    async with stage.engine.begin() as connection:
        await connection.execute(
            text(
                "CREATE TRIGGER truth_t AFTER INSERT ON truth_user BEGIN"
                ' UPDATE truth_user SET score = score + 1 WHERE "key" = NEW."key"; END'
            )
        )
    await stage.add("ada")
    stage.note(await stage.users())
    async with stage.engine.begin() as connection:
        await connection.execute(text("DROP TRIGGER truth_t"))


@scenario()
async def text_that_mentions_commit(stage: Stage) -> None:
    async with stage.sessions() as session:
        session.add(User(key=1, name="a; commit; b"))
        await session.execute(insert(User).values(key=2, name="begin", score=0))
        query = text("SELECT '; commit; ' AS words")
        stage.note(await session.scalar(query))
        await session.rollback()
    stage.note(await stage.users())


@scenario()
async def a_comment_before_a_statement(stage: Stage) -> None:
    async with stage.sessions() as session:
        stage.note(await session.scalar(text("/* commit */ SELECT 1")))
        stage.note(await session.scalar(text("-- rollback\nSELECT 2")))


@scenario()
async def read_only_helper_connection(stage: Stage) -> None:
    await stage.add("ada")

    async def count(connection: AsyncConnection) -> int:
        return (await connection.scalar(select(func.count()).select_from(User))) or 0

    async with stage.engine.connect() as one, stage.engine.connect() as two:
        stage.note(await count(one), await count(two))
        await two.rollback()
        stage.note(await count(one))


@scenario()
async def items_of_a_user_are_deleted_in_order(stage: Stage) -> None:
    async with stage.sessions.begin() as session:
        session.add(User(key=1, name="ada", items=[Item(key=1), Item(key=2)]))
    async with stage.sessions.begin() as session:
        user = await session.get(User, 1)
        await session.delete(user)
    async with stage.sessions() as session:
        stage.note(await session.scalar(select(func.count()).select_from(Item)))


@scenario()
async def insert_returning_or_primary_key(stage: Stage) -> None:
    async with stage.engine.begin() as connection:
        result = await connection.execute(insert(Ticket).values(text="x"))
        stage.note(result.inserted_primary_key[0] is not None, result.rowcount)


@scenario("postgres")
async def set_config_with_parameters_ends_with_the_transaction(stage: Stage) -> None:
    """As applications with row security do it for each request."""
    seen = select(func.current_setting("app.tenant", True))
    for tenant in ("acme", "globex"):
        async with stage.sessions.begin() as session:
            await session.execute(select(func.set_config("app.tenant", tenant, True)))
            session.add(Ticket(text=tenant))
            stage.note(await session.scalar(seen))
    async with stage.sessions.begin() as session:  # NULL on a new connection
        stage.note(await session.scalar(seen) or "")


@scenario("postgres")
async def set_config_of_the_session_stays(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(select(func.set_config("app.tenant", "acme", False)))
        await connection.commit()
        stage.note(await connection.scalar(select(func.current_setting("app.tenant", True))))


@scenario("postgres")
async def set_local_is_not_seen_by_a_session_inside(stage: Stage) -> None:
    async with stage.sessions() as one:
        await one.execute(text("SET LOCAL work_mem = '5MB'"))
        async with stage.sessions.begin() as two:
            stage.note(await two.scalar(text("SHOW work_mem")))
            await two.execute(text("SET LOCAL work_mem = '6MB'"))
            two.add(Ticket(text="two"))
        stage.note(await one.scalar(text("SHOW work_mem")))
        one.add(Ticket(text="one"))
        await one.commit()
        stage.note(await one.scalar(text("SHOW work_mem")))


@scenario("postgres")
async def set_local_time_zone_and_search_path(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(text("SET LOCAL TIME ZONE 'Asia/Tokyo'"))
        await connection.execute(text("SET LOCAL search_path TO pg_catalog"))
        stage.note(await connection.scalar(text("SHOW timezone")))
        await connection.commit()
        stage.note(
            await connection.scalar(text("SELECT current_setting('timezone') <> 'Asia/Tokyo'"))
        )
        await connection.execute(row(1))
        await connection.commit()
    stage.note(await stage.users())


@scenario("postgres")
async def set_local_in_a_savepoint_that_is_rolled_back(stage: Stage) -> None:
    async with stage.sessions() as session:
        with stage.attempting("nested"):
            async with session.begin_nested():
                await session.execute(text("SET LOCAL work_mem = '7MB'"))
                raise ValueError
        session.add(Ticket(text="kept"))
        stage.note(await session.scalar(text("SHOW work_mem")))
        await session.commit()
        stage.note(await session.scalar(text("SHOW work_mem")))


@scenario("postgres")
async def set_local_after_a_savepoint_that_is_rolled_back(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(text("SET LOCAL statement_timeout = '777ms'"))
        for size in ("7MB", "8MB"):
            savepoint = await connection.begin_nested()
            await connection.execute(text(f"SET LOCAL work_mem = '{size}'"))
            await savepoint.rollback()
        await connection.execute(text("SET LOCAL work_mem = '9MB'"))
        await connection.commit()
        stage.note(await connection.scalar(text("SHOW work_mem")))
        stage.note(await connection.scalar(text("SHOW statement_timeout")))


@scenario("postgres", limits=[limits.SETTINGS])
async def a_function_that_sets_for_its_transaction(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(
            text(
                "CREATE FUNCTION pg_temp.truth_tenant() RETURNS text LANGUAGE sql AS"
                " $$ SELECT set_config('app.tenant', 'acme', true) $$"
            )
        )
        await connection.commit()
        await connection.execute(text("SELECT pg_temp.truth_tenant()"))
        await connection.commit()
        stage.note(
            await connection.scalar(
                text("SELECT coalesce(current_setting('app.tenant', true), '') = 'acme'")
            )
        )


@scenario("postgres")
async def read_only_connection(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execution_options(
            isolation_level="READ COMMITTED", postgresql_readonly=True
        )
        stage.note(await connection.scalar(text("SHOW transaction_read_only")))
        await stage.attempt("insert", connection.execute(row(1)))
    async with stage.engine.begin() as connection:
        await connection.execute(row(2))
    stage.note(await stage.users())


@scenario("postgres")
async def set_transaction_read_only(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(text("SET TRANSACTION READ ONLY"))
        stage.note(await connection.scalar(select(func.count(User.key))))
        await connection.commit()
        await stage.attempt("insert", connection.execute(row(1)))
        await connection.commit()
    stage.note(await stage.users())


@scenario("postgres", limits=[limits.READ_ONLY])
async def a_session_within_a_read_only_one(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execution_options(
            isolation_level="READ COMMITTED", postgresql_readonly=True
        )
        await connection.execute(select(1))
        async with stage.sessions() as session:
            session.add(User(key=1, name="ada"))
            await stage.attempt("commit", session.commit())


@scenario("postgres", limits=[limits.DEFERRED])
async def deferred_constraint_of_a_session_inside(stage: Stage) -> None:
    async with stage.engine.begin() as connection:
        await connection.execute(
            text(
                "CREATE TABLE truth_deferred (key int REFERENCES truth_user"
                " DEFERRABLE INITIALLY DEFERRED)"
            )
        )
    async with stage.sessions() as one:
        one.add(Ticket(text="one"))
        await one.flush()
        async with stage.engine.connect() as connection:
            await connection.execute(text("INSERT INTO truth_deferred VALUES (1)"))
            with stage.attempting("commit"):
                await connection.commit()
    async with stage.engine.begin() as connection:
        await connection.execute(text("DROP TABLE truth_deferred"))


@scenario(*SERVERS, limits=[limits.AROUND])
async def a_fixture_session_deletes_and_a_request_commits(stage: Stage) -> None:
    """Nothing follows the conflict, so nothing is wrong."""
    await stage.add("before")
    async with stage.sessions() as session:
        await session.execute(text("DELETE FROM truth_user"))
        async with stage.sessions.begin() as request:
            request.add(Ticket(text="request"))
        stage.note(await session.scalar(select(func.count(Ticket.id))))


@scenario(limits=[limits.TEXT])
async def commit_as_text(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(row(1))
        await stage.attempt("commit", connection.exec_driver_sql("COMMIT"))


@scenario("mariadb")
async def compound_text_with_begin(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        statement = "BEGIN NOT ATOMIC DECLARE n INT DEFAULT 1; SELECT n; END"
        await stage.attempt("block", connection.exec_driver_sql(statement))
