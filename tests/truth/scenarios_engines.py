"""Engines, pools, events and results: docs.sqlalchemy.org/en/21/core/{engines,pooling,events}.html."""

from __future__ import annotations

import datetime
import decimal
import json

import limits
from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    bindparam,
    case,
    cast,
    event,
    exists,
    func,
    insert,
    inspect,
    literal,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.orm import aliased, joinedload
from stage import SERVERS, Item, Stage, Ticket, User, scenario


@scenario()
async def engine_dialect_and_url(stage: Stage) -> None:
    stage.note(stage.engine.dialect.name, stage.engine.dialect.driver, stage.engine.name)
    stage.note(stage.engine.url.get_backend_name(), stage.engine.url.drivername)


@scenario()
async def engine_dispose_and_go_on(stage: Stage) -> None:
    await stage.add("ada")
    await stage.engine.dispose()
    stage.note(await stage.users())


@scenario()
async def engine_raw_connection(stage: Stage) -> None:
    raw = await stage.engine.raw_connection()
    stage.note(raw.is_valid)

    raw.close()


@scenario()
async def events_of_statements(stage: Stage) -> None:
    seen = []

    def before(conn, cursor, statement, parameters, context, executemany):
        seen.append((statement.split()[0], executemany))

    sync = stage.engine.sync_engine
    event.listen(sync, "before_cursor_execute", before)
    try:
        await stage.add("ada", "bob")
    finally:
        event.remove(sync, "before_cursor_execute", before)
    stage.note([word for word, _ in seen if word == "INSERT"])


@scenario()
async def events_of_transactions(stage: Stage) -> None:
    seen = []
    sync = stage.engine.sync_engine
    listeners = [
        ("begin", lambda conn: seen.append("begin")),
        ("commit", lambda conn: seen.append("commit")),
        ("rollback", lambda conn: seen.append("rollback")),
        ("savepoint", lambda conn, name: seen.append("savepoint")),
        ("release_savepoint", lambda conn, name, ctx: seen.append("release")),
        ("rollback_savepoint", lambda conn, name, ctx: seen.append("undo")),
    ]
    for name, listener in listeners:
        event.listen(sync, name, listener)
    try:
        async with stage.sessions() as session:
            session.add(User(key=1, name="ada"))
            async with session.begin_nested():
                session.add(User(key=2, name="bob"))
            nested = await session.begin_nested()
            await nested.rollback()
            await session.commit()
            await session.execute(select(1))
            await session.rollback()
    finally:
        for name, listener in listeners:
            event.remove(sync, name, listener)
    stage.note(seen)


@scenario()
async def events_of_the_pool(stage: Stage) -> None:
    seen = []
    sync = stage.engine.sync_engine
    listeners = [
        ("checkout", lambda dbapi, record, proxy: seen.append("checkout")),
        ("checkin", lambda dbapi, record: seen.append("checkin")),
    ]
    for name, listener in listeners:
        event.listen(sync, name, listener)
    try:
        async with stage.engine.connect() as connection:
            await connection.execute(select(1))
    finally:
        for name, listener in listeners:
            event.remove(sync, name, listener)
    stage.note(seen)


@scenario()
async def events_of_sessions(stage: Stage) -> None:
    seen = []
    async with stage.sessions() as session:
        sync = session.sync_session
        event.listen(sync, "before_flush", lambda s, c, i: seen.append("before_flush"))
        event.listen(sync, "after_flush", lambda s, c: seen.append("after_flush"))
        event.listen(sync, "before_commit", lambda s: seen.append("before_commit"))
        event.listen(sync, "after_commit", lambda s: seen.append("after_commit"))
        event.listen(sync, "after_rollback", lambda s: seen.append("after_rollback"))
        event.listen(sync, "after_soft_rollback", lambda s, t: seen.append("soft"))
        event.listen(sync, "after_begin", lambda s, t, c: seen.append("after_begin"))
        session.add(User(key=1, name="ada"))
        await session.commit()
        session.add(User(key=1, name="again"))
        await stage.attempt("flush", session.flush())
        await session.rollback()
    stage.note(seen)


@scenario()
async def event_handle_error(stage: Stage) -> None:
    seen = []

    def handle(context):
        seen.append(type(context.sqlalchemy_exception).__name__)

    sync = stage.engine.sync_engine
    event.listen(sync, "handle_error", handle)
    try:
        async with stage.engine.connect() as connection:
            await stage.attempt("bad", connection.execute(text("SELEC")))
    finally:
        event.remove(sync, "handle_error", handle)
    stage.note(seen)


@scenario()
async def event_that_rewrites_a_statement(stage: Stage) -> None:
    def rewrite(conn, cursor, statement, parameters, context, executemany):
        return statement.replace("'before'", "'after'"), parameters

    sync = stage.engine.sync_engine
    event.listen(sync, "before_cursor_execute", rewrite, retval=True)
    try:
        async with stage.engine.connect() as connection:
            stage.note(await connection.scalar(text("SELECT 'before'")))
    finally:
        event.remove(sync, "before_cursor_execute", rewrite)


@scenario()
async def event_that_raises(stage: Stage) -> None:
    def refuse(conn, cursor, statement, parameters, context, executemany):
        raise PermissionError

    sync = stage.engine.sync_engine
    async with stage.engine.connect() as connection:
        await connection.execute(insert(User).values(key=1, name="ada", score=0))
        event.listen(sync, "before_cursor_execute", refuse)
        try:
            await stage.attempt("refused", connection.execute(select(1)))
        finally:
            event.remove(sync, "before_cursor_execute", refuse)
        await stage.attempt("next", connection.scalar(select(1)))
        await stage.attempt("commit", connection.commit())
    stage.note(await stage.users())


@scenario()
async def reflection(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        names = await connection.run_sync(lambda c: sorted(inspect(c).get_table_names()))
        columns = await connection.run_sync(
            lambda c: [column["name"] for column in inspect(c).get_columns("truth_user")]
        )
        stage.note([name for name in names if name.startswith("truth_")], columns)


@scenario()
async def reflection_of_constraints(stage: Stage) -> None:
    def look(connection):
        inspector = inspect(connection)
        return [
            inspector.get_pk_constraint("truth_item")["constrained_columns"],
            [key["referred_table"] for key in inspector.get_foreign_keys("truth_item")],
            sorted(u["column_names"] for u in inspector.get_unique_constraints("truth_user")),
        ]

    async with stage.engine.connect() as connection:
        stage.note(*await connection.run_sync(look))


@scenario()
async def metadata_reflect(stage: Stage) -> None:
    metadata = MetaData()
    async with stage.engine.connect() as connection:
        await connection.run_sync(lambda c: metadata.reflect(c, only=["truth_user", "truth_item"]))
    stage.note(sorted(metadata.tables))


@scenario("postgres", "sqlite")
async def create_and_drop_a_table(stage: Stage) -> None:
    metadata = MetaData()
    table = Table("truth_extra", metadata, Column("id", Integer, primary_key=True))
    async with stage.engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.execute(insert(table).values(id=7))
    async with stage.engine.connect() as connection:
        stage.note(await connection.scalar(select(table.c.id)))
    async with stage.engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)


@scenario("mysql", "mariadb", limits=[limits.DDL])
async def create_and_drop_a_table_on_mysql(stage: Stage) -> None:
    metadata = MetaData()
    table = Table("truth_extra", metadata, Column("id", Integer, primary_key=True))
    with stage.attempting("create"):
        async with stage.engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
            await connection.execute(insert(table).values(id=7))
    with stage.attempting("drop"):
        async with stage.engine.begin() as connection:
            await connection.run_sync(metadata.drop_all)


@scenario("mysql", "mariadb", limits=[limits.DDL])
async def ddl_commits_on_mysql(stage: Stage) -> None:
    with stage.attempting("ddl"):
        async with stage.engine.connect() as connection:
            await connection.execute(insert(User).values(key=1, name="ada", score=0))
            await connection.execute(text("CREATE TABLE truth_ddl (id int)"))
            await connection.rollback()
    stage.note(await stage.users())
    with stage.attempting("drop"):
        async with stage.engine.begin() as connection:
            await connection.execute(text("DROP TABLE IF EXISTS truth_ddl"))


@scenario(*SERVERS, limits=[limits.DDL])
async def temporary_table_lives_with_its_session(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(text("CREATE TEMPORARY TABLE truth_temp (id int)"))
        await connection.execute(text("INSERT INTO truth_temp VALUES (3)"))
        await connection.commit()
        stage.note(await connection.scalar(text("SELECT id FROM truth_temp")))
        await connection.execute(text("DROP TABLE truth_temp"))
        await connection.commit()


@scenario("mariadb")
async def temporary_table_that_is_replaced(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(insert(User).values(key=1, name="a", score=0))
        for _ in range(2):
            replace = "CREATE OR REPLACE TEMPORARY TABLE truth_temp (id int)"
            await connection.execute(text(replace))
            await connection.execute(text("INSERT INTO truth_temp VALUES (3)"))
        stage.note((await connection.execute(text("SELECT id FROM truth_temp"))).all())
        await connection.execute(text("DROP TEMPORARY TABLE truth_temp"))
        await connection.rollback()
    stage.note(await stage.users())


@scenario()
async def result_kinds(stage: Stage) -> None:
    await stage.add("a", "b", "c")
    async with stage.engine.connect() as connection:
        query = select(User.key, User.name).order_by(User.key)
        stage.note((await connection.execute(query)).all())
        stage.note((await connection.execute(query)).first())
        stage.note((await connection.execute(query)).mappings().all()[0]["name"])
        stage.note((await connection.execute(query)).scalars().all())
        stage.note((await connection.execute(query)).fetchmany(2))
        stage.note((await connection.execute(query)).columns(1).all())
        stage.note(list((await connection.execute(query)).keys()))


@scenario()
async def result_used_after_close(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        result = await connection.execute(select(1))
        result.close()
        with stage.attempting("fetch"):
            result.all()


@scenario()
async def result_of_an_insert_has_no_rows(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        result = await connection.execute(insert(User).values(key=1, name="ada", score=0))
        stage.note(result.returns_rows, result.rowcount)
        with stage.attempting("fetch"):
            result.all()


@scenario()
async def result_outlives_its_transaction(stage: Stage) -> None:
    await stage.add("a", "b")
    async with stage.engine.connect() as connection:
        result = await connection.execute(select(User.key).order_by(User.key))
        await connection.rollback()
        with stage.attempting("fetch"):
            stage.note(result.scalars().all())


@scenario()
async def duplicate_bind_names_and_expanding(stage: Stage) -> None:
    await stage.add("a", "b", "c")
    async with stage.engine.connect() as connection:
        query = select(User.name).where(User.key.in_(bindparam("keys", expanding=True)))
        rows = await connection.execute(query.order_by(User.key), {"keys": [1, 3]})
        stage.note(rows.scalars().all())
        stage.note((await connection.execute(query, {"keys": []})).all())


@scenario()
async def a_bind_is_missing(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        query = text("SELECT :a")
        await stage.attempt("missing", connection.execute(query))
        await stage.attempt("next", connection.scalar(select(1)))


@scenario()
async def text_with_a_percent_sign(stage: Stage) -> None:
    await stage.add("50% off")
    async with stage.engine.connect() as connection:
        query = text("SELECT name FROM truth_user WHERE name LIKE '%off%'")
        stage.note((await connection.execute(query)).scalars().all())


@scenario()
async def executemany_update(stage: Stage) -> None:
    await stage.add("a", "b", "c")
    async with stage.engine.begin() as connection:
        query = update(User).where(User.key == bindparam("k")).values(score=bindparam("s"))
        await connection.execute(query, [{"k": n, "s": n * 10} for n in (1, 2, 3)])
    stage.note(await stage.users())


@scenario()
async def core_expressions(stage: Stage) -> None:
    await stage.add("a", "b", "c")
    async with stage.engine.connect() as connection:
        score = case((User.key > 1, "high"), else_="low")
        rows = await connection.execute(select(User.name, score).order_by(User.key))
        stage.note(rows.all())
        both = union_all(select(literal(1)), select(literal(2)))
        stage.note(sorted((await connection.execute(both)).scalars()))
        there = select(exists().where(User.name == "b"))
        stage.note(bool(await connection.scalar(there)))
        stage.note(await connection.scalar(select(cast("12", Integer))))


@scenario()
async def joins_and_aliases(stage: Stage) -> None:
    async with stage.sessions.begin() as session:
        session.add(User(key=1, name="ada", items=[Item(key=1, label="x"), Item(key=2, label="y")]))
        session.add(User(key=2, name="bob"))
    async with stage.sessions() as session:
        other = aliased(User)
        query = select(User.name, other.name).join(other, other.key > User.key)
        stage.note((await session.execute(query)).all())
        users = await session.scalars(
            select(User).options(joinedload(User.items)).order_by(User.key)
        )
        stage.note([(u.name, len(u.items)) for u in users.unique()])


@scenario()
async def types_make_the_round_trip(stage: Stage) -> None:
    at = datetime.datetime(2026, 1, 2, 3, 4, 5)
    async with stage.engine.connect() as connection:
        values = [
            literal("grüße ✓"),
            literal(decimal.Decimal("1.50"), Numeric(10, 2)),
            literal(at, DateTime()),
            literal(b"\x00\xff", LargeBinary()),
            literal(True),
        ]
        if stage.driver == "asyncpg":
            values = [cast(value, value.type) for value in values]
        row = (await connection.execute(select(*values))).one()
        stage.note(row[0], str(row[1]) in ("1.50", "1.5"), str(row[2])[:19], bytes(row[3]).hex())


@scenario("postgres", "sqlite")
async def json_of_the_backend(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        value = literal({"a": [1, None]}, JSON())
        found = await connection.scalar(
            select(cast(value, JSON()) if stage.backend == "postgres" else value)
        )
        stage.note(found if isinstance(found, str) else json.dumps(found))


@scenario()
async def division_by_zero(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await stage.attempt("division", connection.scalar(text("SELECT 1 / 0")))
        await stage.attempt("next", connection.scalar(select(1)))


@scenario(*SERVERS)
async def value_too_long(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        long = insert(User).values(key=1, name="x" * 200, score=0)
        await stage.attempt("long", connection.execute(long))


@scenario("postgres")
async def wrong_type_of_a_bind(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        query = text('SELECT * FROM truth_user WHERE "key" = :k')
        await stage.attempt("bind", connection.execute(query, {"k": "one"}))


@scenario("postgres", "sqlite", "mariadb")
async def insert_returning(stage: Stage) -> None:
    async with stage.engine.begin() as connection:
        result = await connection.execute(insert(Ticket).values(text="x").returning(Ticket.text))
        stage.note(result.scalar_one())


@scenario("postgres")
async def copy_of_generated_series(stage: Stage) -> None:
    async with stage.engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO truth_user SELECT n, 'u' || n, 0 FROM generate_series(1, 1000) AS n")
        )
        stage.note(await connection.scalar(select(func.count()).select_from(User)))


@scenario("postgres", limits=[limits.LOCKS])
async def advisory_transaction_lock(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(4711)"))
        await connection.commit()
        query = text(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711"
            " AND pid = pg_backend_pid()"
        )
        stage.note(await connection.scalar(query))


@scenario("postgres")
async def two_statements_in_one_text(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await stage.attempt("two", connection.execute(text("SELECT 1; SELECT 2")))


@scenario()
async def very_many_parameters(stage: Stage) -> None:
    await stage.add("a")
    async with stage.engine.connect() as connection:
        query = select(User.name).where(User.key.in_(range(900)))
        stage.note((await connection.execute(query)).scalars().all())


@scenario()
async def compiled_cache_is_used(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        for n in range(3):
            stage.note(await connection.scalar(select(literal(n) + 1)))


@scenario()
async def connect_listener_on_the_engine(stage: Stage) -> None:
    """A listener that was added before the first connection sees a usable one."""
    seen = []

    def connected(dbapi, record):
        cursor = dbapi.cursor()
        cursor.execute("SELECT 1")
        seen.append(cursor.fetchone()[0])
        cursor.close()

    sync = stage.engine.sync_engine
    event.listen(sync, "connect", connected)
    try:
        await stage.engine.dispose()
        async with stage.engine.connect() as connection:
            await connection.execute(select(1))
    finally:
        event.remove(sync, "connect", connected)
    stage.note(seen[:1])
