"""Sessions: https://docs.sqlalchemy.org/en/21/orm/session_basics.html and extensions/asyncio.html."""

from __future__ import annotations

import limits
from sqlalchemy import delete, func, insert, inspect, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, async_object_session, async_session
from sqlalchemy.orm import selectinload
from stage import Item, Stage, Ticket, User, Versioned, scenario


@scenario()
async def a_committed_object_is_seen_by_the_next_session(stage: Stage) -> None:
    async with stage.sessions() as session:
        session.add(User(key=1, name="ada"))
        await session.commit()
    async with stage.sessions() as session:
        stage.note((await session.get(User, 1)).name)


@scenario()
async def what_is_not_committed_is_not_seen_later(stage: Stage) -> None:
    async with stage.sessions() as session:
        session.add(User(key=1, name="ada"))
        await session.flush()
    stage.note(await stage.users())


@scenario()
async def begin_block_commits(stage: Stage) -> None:
    async with stage.sessions.begin() as session:
        session.add(User(key=1, name="ada"))
    stage.note(await stage.users())


@scenario()
async def begin_block_rolls_back_on_error(stage: Stage) -> None:
    with stage.attempting("block"):
        async with stage.sessions.begin() as session:
            session.add(User(key=1, name="ada"))
            await session.flush()
            raise ValueError
    stage.note(await stage.users())


@scenario()
async def session_begin_twice(stage: Stage) -> None:
    async with stage.sessions() as session:
        await session.begin()
        with stage.attempting("again"):
            await session.begin()


@scenario()
async def several_commits_in_one_session(stage: Stage) -> None:
    async with stage.sessions() as session:
        for n in range(4):
            session.add(User(key=n, name=f"u{n}"))
            await session.commit()
        session.add(User(key=9, name="lost"))
        await session.rollback()
    stage.note(await stage.users())


@scenario()
async def rollback_then_work_again(stage: Stage) -> None:
    async with stage.sessions() as session:
        session.add(User(key=1, name="lost"))
        await session.flush()
        await session.rollback()
        session.add(User(key=1, name="kept"))
        await session.commit()
    stage.note(await stage.users())


@scenario()
async def duplicate_key_then_rollback(stage: Stage) -> None:
    await stage.add("ada")
    async with stage.sessions() as session:
        session.add(User(key=1, name="other"))
        await stage.attempt("flush", session.flush())
        await session.rollback()
        session.add(User(key=2, name="other"))
        await stage.attempt("commit", session.commit())
    stage.note(await stage.users())


@scenario()
async def duplicate_key_without_rollback(stage: Stage) -> None:
    await stage.add("ada")
    async with stage.sessions() as session:
        session.add(User(key=1, name="other"))
        await stage.attempt("flush", session.flush())
        await stage.attempt("next", session.execute(select(User.name)))
        await stage.attempt("commit", session.commit())
    stage.note(await stage.users())


@scenario()
async def unique_name_violated_at_commit(stage: Stage) -> None:
    await stage.add("ada")
    async with stage.sessions() as session:
        session.add(User(key=2, name="ada"))
        await stage.attempt("commit", session.commit())
        stage.note(session.is_active)
    stage.note(await stage.users())


@scenario()
async def foreign_key_violated(stage: Stage) -> None:
    async with stage.sessions() as session:
        session.add(Item(key=1, user_key=99, label="x"))
        await stage.attempt("flush", session.flush())
        await session.rollback()
    stage.note(await stage.users())


@scenario()
async def not_null_violated(stage: Stage) -> None:
    async with stage.sessions() as session:
        await stage.attempt(
            "core",
            session.execute(
                text(
                    'INSERT INTO truth_user ("key", name, score) VALUES (1, NULL, 0)'
                    if stage.backend in ("sqlite", "postgres")
                    else "INSERT INTO truth_user (`key`, name, score) VALUES (1, NULL, 0)"
                )
            ),
        )


@scenario()
async def integrity_error_within_core_then_commit(stage: Stage) -> None:
    await stage.add("ada")
    async with stage.sessions() as session:
        await session.execute(insert(User).values(key=2, name="bob", score=0))
        await stage.attempt("bad", session.execute(insert(User).values(key=1, name="x", score=0)))
        await stage.attempt(
            "good", session.execute(insert(User).values(key=3, name="eve", score=0))
        )
        await stage.attempt("commit", session.commit())
    stage.note(await stage.users())


@scenario()
async def syntax_error_then_go_on(stage: Stage) -> None:
    async with stage.sessions() as session:
        await session.execute(insert(User).values(key=2, name="bob", score=0))
        await stage.attempt("bad", session.execute(text("SELEC 1")))
        await stage.attempt(
            "good", session.execute(insert(User).values(key=3, name="eve", score=0))
        )
        await stage.attempt("commit", session.commit())
    stage.note(await stage.users())


@scenario()
async def missing_table(stage: Stage) -> None:
    async with stage.sessions() as session:
        await stage.attempt("select", session.execute(text("SELECT * FROM truth_missing")))


@scenario()
async def lazy_load_raises_missing_greenlet(stage: Stage) -> None:
    async with stage.sessions.begin() as session:
        session.add(User(key=1, name="ada", items=[Item(key=1, label="a")]))
    async with stage.sessions() as session:
        user = await session.get(User, 1)
        with stage.attempting("lazy"):
            _ = user.items


@scenario()
async def awaitable_attrs_load(stage: Stage) -> None:
    async with stage.sessions.begin() as session:
        session.add(User(key=1, name="ada", items=[Item(key=1, label="a"), Item(key=2, label="b")]))
    async with stage.sessions() as session:
        user = await session.get(User, 1)
        stage.note([item.label for item in await user.awaitable_attrs.items])


@scenario()
async def lazy_load_in_run_sync(stage: Stage) -> None:
    async with stage.sessions.begin() as session:
        session.add(User(key=1, name="ada", items=[Item(key=1, label="a")]))
    async with stage.sessions() as session:
        stage.note(await session.run_sync(lambda s: [i.label for i in s.get(User, 1).items]))


@scenario()
async def detached_lazy_load(stage: Stage) -> None:
    await stage.add("ada")
    async with stage.sessions() as session:
        user = await session.get(User, 1)
    with stage.attempting("lazy"):
        _ = user.items


@scenario()
async def expired_attribute_after_commit(stage: Stage) -> None:
    async with AsyncSession(stage.engine) as session:
        user = User(key=1, name="ada")
        session.add(user)
        await session.commit()
        with stage.attempting("expired"):
            stage.note(user.name)
        await session.refresh(user)
        stage.note(user.name)


@scenario()
async def attributes_after_rollback(stage: Stage) -> None:
    await stage.add("ada")
    async with stage.sessions() as session:
        user = await session.get(User, 1)
        user.name = "changed"
        await session.flush()
        await session.rollback()
        with stage.attempting("expired"):
            stage.note(user.name)
        await session.refresh(user)
        stage.note(user.name)


@scenario()
async def new_object_after_rollback_is_transient(stage: Stage) -> None:
    async with stage.sessions() as session:
        user = User(key=1, name="ada")
        session.add(user)
        await session.flush()
        stage.note(inspect(user).persistent)
        await session.rollback()
        stage.note(inspect(user).transient, user in session)


@scenario()
async def deleted_object_after_commit(stage: Stage) -> None:
    await stage.add("ada", "bob")
    async with stage.sessions() as session:
        user = await session.get(User, 1)
        await session.delete(user)
        await session.flush()
        stage.note(inspect(user).deleted)
        await session.commit()
        stage.note(inspect(user).detached)
    stage.note(await stage.users())


@scenario()
async def deleted_object_after_rollback(stage: Stage) -> None:
    await stage.add("ada")
    async with stage.sessions() as session:
        user = await session.get(User, 1)
        await session.delete(user)
        await session.flush()
        await session.rollback()
        stage.note(user in session)
    stage.note(await stage.users())


@scenario()
async def merge_inserts_and_updates(stage: Stage) -> None:
    await stage.add("ada")
    async with stage.sessions() as session:
        await session.merge(User(key=1, name="changed", score=1))
        await session.merge(User(key=2, name="new", score=2))
        await session.commit()
    stage.note(await stage.users())


@scenario()
async def stale_version(stage: Stage) -> None:
    async with stage.sessions.begin() as session:
        session.add(Versioned(key=1, value=1))
    async with stage.sessions() as one:
        row = await one.get(Versioned, 1)
        await one.commit()
        async with stage.sessions.begin() as two:
            (await two.get(Versioned, 1)).value = 2
        row.value = 3
        await stage.attempt("commit", one.commit())


@scenario()
async def delete_orphan_cascade(stage: Stage) -> None:
    async with stage.sessions.begin() as session:
        session.add(User(key=1, name="ada", items=[Item(key=1), Item(key=2)]))
    async with stage.sessions.begin() as session:
        query = select(User).options(selectinload(User.items))
        user = (await session.execute(query)).scalar_one()
        user.items.pop(0)
    async with stage.sessions() as session:
        stage.note((await session.scalars(select(Item.key))).all())


@scenario()
async def generated_keys_are_returned(stage: Stage) -> None:
    async with stage.sessions() as session:
        tickets = [Ticket(text=f"t{n}") for n in range(3)]
        session.add_all(tickets)
        await session.flush()
        stage.note(len({ticket.id for ticket in tickets}), [t.id is not None for t in tickets])
        await session.commit()


@scenario(limits=[limits.IDS])
async def generated_keys_begin_at_one(stage: Stage) -> None:
    async with stage.sessions() as session:
        ticket = Ticket(text="first")
        session.add(ticket)
        await session.commit()
        stage.note(ticket.id)


@scenario("postgres", "mysql", "mariadb")
async def keys_of_rolled_back_rows_are_not_reused(stage: Stage) -> None:
    async with stage.sessions() as session:
        first = Ticket(text="first")
        session.add(first)
        await session.flush()
        before = first.id
        await session.rollback()
        second = Ticket(text="second")
        session.add(second)
        await session.commit()
        stage.note(second.id > before)


@scenario()
async def bulk_insert_of_orm(stage: Stage) -> None:
    async with stage.sessions() as session:
        rows = [{"key": n, "name": f"u{n}", "score": n} for n in range(200)]
        await session.execute(insert(User), rows)
        await session.commit()
        stage.note(await session.scalar(select(func.count()).select_from(User)))


@scenario()
async def bulk_insert_with_one_duplicate(stage: Stage) -> None:
    await stage.add("u3", start=3)
    async with stage.sessions() as session:
        rows = [{"key": n, "name": f"v{n}", "score": n} for n in range(5)]
        await stage.attempt("insert", session.execute(insert(User), rows))
        await session.rollback()
    stage.note(await stage.users())


@scenario()
async def orm_update_and_delete_rowcounts(stage: Stage) -> None:
    await stage.add("a", "b", "c")
    async with stage.sessions() as session:
        result = await session.execute(update(User).where(User.key > 1).values(score=5))
        stage.note(result.rowcount)
        result = await session.execute(delete(User).where(User.key == 3))
        stage.note(result.rowcount)
        result = await session.execute(update(User).where(User.key == 77).values(score=5))
        stage.note(result.rowcount)
        await session.commit()
    stage.note(await stage.users())


@scenario()
async def synchronize_session_evaluate(stage: Stage) -> None:
    await stage.add("a", "b")
    async with stage.sessions() as session:
        users = (await session.scalars(select(User).order_by(User.key))).all()
        await session.execute(update(User).values(score=User.score + 4))
        stage.note([user.score for user in users])


@scenario()
async def scalar_one_errors(stage: Stage) -> None:
    await stage.add("a", "b")
    async with stage.sessions() as session:
        with stage.attempting("many"):
            (await session.execute(select(User))).scalar_one()
        with stage.attempting("none"):
            (await session.execute(select(User).where(User.key == 9))).scalar_one()
        stage.note((await session.execute(select(User).where(User.key == 9))).scalar_one_or_none())


@scenario()
async def get_one_raises(stage: Stage) -> None:
    async with stage.sessions() as session:
        await stage.attempt("get_one", session.get_one(User, 5))


@scenario()
async def refresh_of_a_deleted_row(stage: Stage) -> None:
    await stage.add("ada")
    async with stage.sessions() as session:
        user = await session.get(User, 1)
        await session.commit()
        async with stage.sessions.begin() as other:
            await other.execute(delete(User))
        await stage.attempt("refresh", session.refresh(user))


@scenario()
async def autoflush_before_query(stage: Stage) -> None:
    async with stage.sessions() as session:
        session.add(User(key=1, name="ada"))
        stage.note((await session.scalars(select(User.name))).all())
        with session.no_autoflush:
            session.add(User(key=2, name="bob"))
            stage.note((await session.scalars(select(User.name))).all())


@scenario()
async def session_used_after_close(stage: Stage) -> None:
    session = stage.sessions()
    await session.execute(select(1))
    await session.close()
    await stage.attempt("again", session.scalar(select(1)))
    await session.close()


@scenario()
async def close_resets_only_false(stage: Stage) -> None:
    session = AsyncSession(stage.engine, close_resets_only=False)
    await session.execute(select(1))
    await session.close()
    await stage.attempt("again", session.scalar(select(1)))


@scenario()
async def session_reset_and_go_on(stage: Stage) -> None:
    async with stage.sessions() as session:
        session.add(User(key=1, name="ada"))
        await session.flush()
        await session.reset()
        stage.note((await session.scalars(select(User.name))).all())


@scenario()
async def in_transaction_flags(stage: Stage) -> None:
    async with stage.sessions() as session:
        stage.note(session.in_transaction(), session.in_nested_transaction())
        await session.execute(select(1))
        stage.note(session.in_transaction())
        async with session.begin_nested():
            stage.note(session.in_nested_transaction())
        await session.commit()
        stage.note(session.in_transaction())


@scenario()
async def object_session_finds_the_session(stage: Stage) -> None:
    async with stage.sessions() as session:
        user = User(key=1, name="ada")
        session.add(user)
        stage.note(
            async_object_session(user) is session, async_session(session.sync_session) is session
        )


@scenario()
async def object_in_two_sessions(stage: Stage) -> None:
    await stage.add("ada")
    async with stage.sessions() as one, stage.sessions() as two:
        user = await one.get(User, 1)
        with stage.attempting("add"):
            two.add(user)


@scenario()
async def two_sessions_one_after_the_other_update_one_row(stage: Stage) -> None:
    await stage.add("ada")
    for n in range(3):
        async with stage.sessions.begin() as session:
            (await session.get(User, 1)).score += n + 1
    stage.note(await stage.users())


@scenario(limits=[limits.SAVEPOINTS])
async def session_bound_to_a_connection(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        transaction = await connection.begin()
        session = AsyncSession(connection, join_transaction_mode="create_savepoint")
        session.add(User(key=1, name="ada"))
        await session.commit()
        await session.close()
        await transaction.rollback()
    stage.note(await stage.users())


@scenario()
async def session_joined_conditionally(stage: Stage) -> None:
    async with stage.engine.connect() as connection, connection.begin() as transaction:
        async with AsyncSession(connection) as session:
            session.add(User(key=1, name="ada"))
            await session.commit()
        stage.note(transaction.is_active)
    stage.note(await stage.users())


@scenario()
async def session_joined_rollback_only(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        transaction = await connection.begin()
        async with AsyncSession(connection, join_transaction_mode="rollback_only") as session:
            session.add(User(key=1, name="ada"))
            await session.commit()
        stage.note(transaction.is_active)
        await transaction.commit()
    stage.note(await stage.users())


@scenario()
async def session_joined_control_fully(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        transaction = await connection.begin()
        async with AsyncSession(connection, join_transaction_mode="control_fully") as session:
            session.add(User(key=1, name="ada"))
            await session.commit()
        stage.note(transaction.is_active)
        await transaction.close()
    stage.note(await stage.users())


@scenario()
async def session_prepare_is_refused_without_twophase(stage: Stage) -> None:
    async with stage.sessions() as session:
        await session.execute(select(1))
        with stage.attempting("prepare"):
            session.sync_session.prepare()


@scenario()
async def session_get_transaction_and_connection(stage: Stage) -> None:
    async with stage.sessions() as session:
        stage.note(session.get_transaction() is None)
        connection = await session.connection()
        stage.note(connection.in_transaction(), session.get_transaction() is not None)
        await connection.execute(insert(User).values(key=1, name="ada", score=0))
        await session.commit()
        stage.note(connection.in_transaction())
    stage.note(await stage.users())


@scenario()
async def session_connection_isolation_too_late(stage: Stage) -> None:
    async with stage.sessions() as session:
        await session.execute(select(1))
        connection = await session.connection()
        await stage.attempt("late", connection.execution_options(isolation_level="SERIALIZABLE"))


@scenario()
async def stream_scalars(stage: Stage) -> None:
    await stage.add(*(f"u{n}" for n in range(30)))
    async with stage.sessions() as session:
        result = await session.stream_scalars(select(User.key).order_by(User.key))
        stage.note([key async for key in result])


@scenario()
async def stream_partitions(stage: Stage) -> None:
    await stage.add(*(f"u{n}" for n in range(30)))
    async with stage.sessions() as session:
        query = select(User).order_by(User.key).execution_options(yield_per=7)
        result = await session.stream(query)
        stage.note([len(part) async for part in result.partitions()])


@scenario()
async def stream_left_early(stage: Stage) -> None:
    await stage.add(*(f"u{n}" for n in range(30)))
    async with stage.sessions() as session:
        result = await session.stream_scalars(select(User.key).order_by(User.key))
        async for key in result:
            if key == 3:
                break
        await result.close()
        stage.note(await session.scalar(select(func.count()).select_from(User)))


@scenario()
async def stream_while_another_session_works(stage: Stage) -> None:
    await stage.add(*(f"u{n}" for n in range(60)))
    seen = []
    async with stage.sessions() as one:
        query = select(User.key).order_by(User.key).execution_options(yield_per=10)
        result = await one.stream_scalars(query)
        async for key in result:
            seen.append(key)
            if key == 5:
                async with stage.sessions() as two:
                    stage.note(await two.scalar(select(func.count()).select_from(User)))
    stage.note(len(seen))


@scenario()
async def stream_while_the_same_session_works(stage: Stage) -> None:
    await stage.add(*(f"u{n}" for n in range(60)))
    seen = []
    async with stage.sessions() as session:
        query = select(User.key).order_by(User.key).execution_options(yield_per=10)
        result = await session.stream_scalars(query)
        with stage.attempting("loop"):
            async for key in result:
                seen.append(key)
                if key == 5:
                    await stage.attempt(
                        "inner", session.scalar(select(func.count()).select_from(User))
                    )
    stage.note(len(seen))


@scenario("sqlite", "mysql", "mariadb")
async def stream_in_autocommit(stage: Stage) -> None:
    await stage.add(*(f"u{n}" for n in range(30)))
    async with stage.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        query = select(User.key).order_by(User.key).execution_options(yield_per=7)
        result = await connection.stream_scalars(query)
        stage.note([key async for key in result])
        stage.note(await connection.scalar(select(func.count()).select_from(User)))


@scenario("sqlite")
async def stream_whose_rows_are_changed_and_committed(stage: Stage) -> None:
    await stage.add(*(f"u{n}" for n in range(30)))
    async with stage.sessions() as session:
        query = select(User).order_by(User.key).execution_options(yield_per=2)
        async for user in await session.stream_scalars(query):
            user.score = 1
            await session.commit()
        stage.note(await session.scalar(select(func.sum(User.score))))


@scenario()
async def stream_across_commit(stage: Stage) -> None:
    await stage.add(*(f"u{n}" for n in range(30)))
    seen = []
    async with stage.sessions() as session:
        query = select(User.key).order_by(User.key).execution_options(yield_per=5)
        result = await session.stream_scalars(query)
        with stage.attempting("loop"):
            async for key in result:
                seen.append(key)
                if key == 3:
                    await session.commit()
    stage.note(len(seen))
