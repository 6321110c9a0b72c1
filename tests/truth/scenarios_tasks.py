"""Tasks, cancellation and pools: what ``asyncio.gather`` does to sessions and connections."""

from __future__ import annotations

import asyncio

import limits
from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.ext.asyncio import async_scoped_session
from stage import SERVERS, Stage, User, scenario


def row(key: int) -> object:
    return insert(User).values(key=key, name=f"u{key}", score=0)


@scenario()
async def gather_two_reads_on_one_session(stage: Stage) -> None:
    async with stage.sessions() as session:
        await session.execute(select(1))
        await stage.gather(*(session.scalar(select(n)) for n in (1, 2)))
        await stage.attempt("rollback", session.rollback())


@scenario()
async def gather_three_writes_on_one_session(stage: Stage) -> None:
    async with stage.sessions() as session:
        await session.execute(select(1))
        await stage.gather(*(session.execute(row(n)) for n in (1, 2, 3)))
        await stage.attempt("rollback", session.rollback())
    stage.note(await stage.users())


@scenario()
async def gather_first_statements_of_one_session(stage: Stage) -> None:
    async with stage.sessions() as session:
        await stage.gather(*(session.scalar(select(n)) for n in (1, 2)))
        await stage.attempt("rollback", session.rollback())


@scenario()
async def gather_flushes_on_one_session(stage: Stage) -> None:
    async with stage.sessions() as session:
        await session.execute(select(1))
        session.add(User(key=1, name="ada"))
        await stage.gather(session.flush(), session.scalar(select(2)))
        await stage.attempt("rollback", session.rollback())


@scenario("postgres")  # where a failed statement fails its whole transaction
async def a_statement_fails_while_another_session_waits(stage: Stage) -> None:
    async with stage.sessions() as one, stage.sessions() as other:
        await one.execute(row(1))
        await other.execute(select(1))
        slow = text("SELECT 1 / (SELECT count(*) - 1 FROM pg_sleep(0.05))")
        await stage.gather(one.execute(slow), other.scalar(select(2)))
        await stage.attempt("other", other.scalar(select(3)))
        await stage.attempt("one", one.scalar(select(4)))
    stage.note(await stage.users())


@scenario("sqlite", "postgres")  # on MySQL answers are mixed up, or the plain engine waits for ever
async def a_flush_fails_while_another_task_waits(stage: Stage) -> None:
    await stage.add("ada")  # key 1

    async with stage.sessions() as session:
        await session.execute(select(1))
        session.add(User(key=1, name="again"))
        await stage.gather(session.flush(), session.scalar(select(2)))
        await stage.attempt("rollback", session.rollback())
        await stage.attempt("read", session.scalar(select(3)))


@scenario("sqlite", "postgres")
async def a_statement_fails_while_another_task_waits(stage: Stage) -> None:
    await stage.add("ada")  # key 1

    async def write(session: object) -> None:
        try:
            await session.execute(row(1))
        except Exception:
            await session.rollback()
            raise

    async with stage.sessions() as session:
        await session.execute(select(1))
        await stage.gather(write(session), session.scalar(select(2)))
        await stage.attempt("rollback", session.rollback())
    async with stage.engine.connect() as connection:
        await connection.execute(select(1))
        await stage.gather(write(connection), connection.scalar(select(2)))
        await stage.attempt("read", connection.scalar(select(3)))


@scenario()
async def gather_commit_and_read_on_one_session(stage: Stage) -> None:
    async with stage.sessions() as session:
        session.add(User(key=1, name="ada"))
        await session.flush()
        await stage.gather(session.commit(), session.scalar(select(2)))
        await stage.attempt("rollback", session.rollback())


@scenario()
async def gather_first_statement_and_commit_on_one_connection(stage: Stage) -> None:
    if stage.driver == "asyncmy":
        return  # a plain engine hangs
    async with stage.engine.connect() as connection:
        await stage.gather(connection.scalar(select(1)), connection.commit())
        await connection.invalidate()  # aiomysql's has an answer too many


@scenario()
async def gather_on_one_connection(stage: Stage) -> None:
    async with stage.engine.connect() as connection:
        await connection.execute(select(1))
        await stage.gather(*(connection.scalar(select(n)) for n in (1, 2)))


@scenario()
async def task_group_on_one_session(stage: Stage) -> None:
    async with stage.sessions() as session:
        await session.execute(select(1))
        failed = []
        try:
            async with asyncio.TaskGroup() as group:
                for n in (1, 2, 3):
                    group.create_task(session.execute(row(n)))
        except* Exception as errors:
            failed = sorted({type(error).__name__ for error in errors.exceptions})
        stage.note(failed)
        await stage.attempt("rollback", session.rollback())


@scenario()
async def gather_sessions_of_their_own_read(stage: Stage) -> None:
    await stage.add("ada")

    async def read(n: int) -> int:
        async with stage.sessions() as session:
            count = await session.scalar(select(func.count()).select_from(User))
            return n + (count or 0)

    await stage.gather(*(read(n) for n in range(5)))


@scenario()
async def gather_sessions_of_their_own_write(stage: Stage) -> None:
    async def write(n: int) -> int:
        async with stage.sessions.begin() as session:
            session.add(User(key=n, name=f"u{n}"))
        return n

    await stage.gather(*(write(n) for n in range(6)))
    stage.note(await stage.users())


@scenario()
async def one_of_several_writers_fails(stage: Stage) -> None:
    await stage.add("u3", start=3)

    async def write(n: int) -> int:
        async with stage.sessions.begin() as session:
            session.add(User(key=n, name=f"v{n}"))
        return n

    await stage.gather(*(write(n) for n in range(1, 6)))
    stage.note(await stage.users())


@scenario()
async def one_of_several_writers_is_rolled_back(stage: Stage) -> None:
    async def write(n: int) -> int:
        async with stage.sessions() as session:
            session.add(User(key=n, name=f"v{n}"))
            await session.flush()
            await (session.rollback() if n == 2 else session.commit())
        return n

    await stage.gather(*(write(n) for n in range(1, 5)))
    stage.note(await stage.users())


@scenario()
async def lost_update_without_a_lock(stage: Stage) -> None:
    """Both have read before the first writes."""
    await stage.add("ada")
    barrier = asyncio.Barrier(2)

    async def add_one() -> None:
        async with stage.sessions() as session:
            score = await session.scalar(select(User.score).where(User.key == 1))
            await session.commit()
            await barrier.wait()
            await session.execute(update(User).where(User.key == 1).values(score=(score or 0) + 1))
            await session.commit()

    await stage.gather(add_one(), add_one())
    stage.note(await stage.users())


@scenario(limits=[limits.OVERLAP])
async def two_open_readers_meet_at_a_barrier(stage: Stage) -> None:
    barrier = asyncio.Barrier(2)

    async def read() -> int:
        async with stage.sessions() as session:
            await session.execute(select(1))
            async with asyncio.timeout(1):
                await barrier.wait()
            return await session.scalar(select(2)) or 0

    await stage.gather(read(), read())


@scenario()
async def check_then_insert_with_a_barrier(stage: Stage) -> None:
    """Two tasks have seen that the name is free; one of them must fail."""
    barrier = asyncio.Barrier(2)
    failed = []

    async def create(key: int) -> None:
        async with stage.sessions() as session:
            free = await session.scalar(select(func.count()).where(User.name == "ada")) == 0
            await session.commit()
            await barrier.wait()
            if free:
                session.add(User(key=key, name="ada"))
                try:
                    await session.commit()
                except Exception as error:
                    failed.append(type(error).__name__)

    await stage.gather(create(1), create(2))
    stage.note(failed, len(await stage.users()))
    async with stage.engine.begin() as connection:  # which of them was first is chance
        await connection.execute(delete(User))


@scenario()
async def cancelled_before_the_first_statement(stage: Stage) -> None:
    async def work() -> None:
        async with stage.sessions() as session:
            await asyncio.Event().wait()
            await session.execute(row(1))

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await stage.gather(task)
    stage.note(await stage.users())


@scenario()
async def cancelled_between_statements(stage: Stage) -> None:
    wrote = asyncio.Event()

    async def work() -> None:
        async with stage.sessions() as session:
            await session.execute(row(1))
            wrote.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await wrote.wait()
    task.cancel()
    await stage.gather(task)
    stage.note(await stage.users())


@scenario()
async def cancelled_after_a_commit(stage: Stage) -> None:
    wrote = asyncio.Event()

    async def work() -> None:
        async with stage.sessions() as session:
            await session.execute(row(1))
            await session.commit()
            await session.execute(row(2))
            wrote.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await wrote.wait()
    task.cancel()
    await stage.gather(task)
    stage.note(await stage.users())


@scenario("postgres")
async def timeout_around_a_slow_statement(stage: Stage) -> None:
    async with stage.sessions() as session:
        with stage.attempting("timeout"):
            async with asyncio.timeout(0.2):
                await session.execute(text("SELECT pg_sleep(5)"))
    async with stage.sessions() as session:
        stage.note(await session.scalar(select(1)))


@scenario("mysql", "mariadb")
async def timeout_around_a_slow_statement_on_mysql(stage: Stage) -> None:
    async with stage.sessions() as session:
        with stage.attempting("timeout"):
            async with asyncio.timeout(0.2):
                await session.execute(text("SELECT SLEEP(5)"))
    async with stage.sessions() as session:
        stage.note(await session.scalar(select(1)))


@scenario("postgres")
async def server_statement_timeout(stage: Stage) -> None:
    async with stage.sessions() as session:
        await session.execute(text("SET LOCAL statement_timeout = '100ms'"))
        await stage.attempt("slow", session.execute(text("SELECT pg_sleep(5)")))
        await session.rollback()
        stage.note(await session.scalar(select(1)))


@scenario("postgres")
async def for_update_nowait_of_a_row_that_nobody_holds(stage: Stage) -> None:
    await stage.add("ada")
    async with stage.sessions() as session:
        user = await session.scalar(select(User).with_for_update(nowait=True))
        stage.note(user.name)


@scenario("postgres", "mysql", "mariadb", limits=[limits.LOCKS])
async def for_update_nowait_of_a_locked_row(stage: Stage) -> None:
    await stage.add("ada")
    async with stage.sessions() as one, stage.sessions() as two:
        await one.scalar(select(User).with_for_update())
        await stage.attempt("second", two.scalar(select(User).with_for_update(nowait=True)))
        await two.rollback()
        await one.rollback()


@scenario("postgres", "mysql", "mariadb", limits=[limits.LOCKS])
async def skip_locked_gives_the_next_row(stage: Stage) -> None:
    await stage.add("a", "b")
    query = select(User.name).order_by(User.key).limit(1).with_for_update(skip_locked=True)
    async with stage.sessions() as one, stage.sessions() as two:
        stage.note(await one.scalar(query), await two.scalar(query))


@scenario()
async def scoped_session_by_task(stage: Stage) -> None:
    scoped = async_scoped_session(stage.sessions, scopefunc=asyncio.current_task)

    async def work(n: int) -> bool:
        scoped().add(User(key=n, name=f"u{n}"))
        await scoped.commit()
        same = scoped() is scoped()
        await scoped.remove()
        return same

    for n in range(3):
        await stage.gather(work(n))
    stage.note(await stage.users())


@scenario()
async def session_handed_to_a_task(stage: Stage) -> None:
    async with stage.sessions() as session:
        session.add(User(key=1, name="ada"))

        async def go_on() -> str:
            await session.commit()
            return (await session.scalars(select(User.name))).one()

        stage.note(await asyncio.create_task(go_on()))


@scenario()
async def producer_and_consumer(stage: Stage) -> None:
    queue: asyncio.Queue[int | None] = asyncio.Queue(maxsize=1)

    async def produce() -> None:
        for n in range(4):
            async with stage.sessions.begin() as session:
                session.add(User(key=n, name=f"u{n}"))
            await queue.put(n)
        await queue.put(None)

    async def consume() -> list[str]:
        seen = []
        while (n := await queue.get()) is not None:
            async with stage.sessions() as session:
                seen.append((await session.get_one(User, n)).name)
        return seen

    await stage.gather(produce(), consume())


@scenario()
async def many_sessions_one_after_the_other(stage: Stage) -> None:
    for n in range(25):
        async with stage.sessions.begin() as session:
            session.add(User(key=n, name=f"u{n}"))
    stage.note(len(await stage.users()))


@scenario()
async def a_statement_lets_other_tasks_run(stage: Stage) -> None:
    ran = []

    async def other() -> None:
        ran.append(True)

    async with stage.engine.connect() as connection:
        await connection.execute(select(1))
        task = asyncio.create_task(other())
        await connection.execute(select(2))
        stage.note(bool(ran))
        await task


@scenario()
async def connecting_lets_other_tasks_run(stage: Stage) -> None:
    ran = []

    async def other() -> None:
        ran.append(True)

    task = asyncio.create_task(other())
    async with stage.engine.connect():
        stage.note(bool(ran))
    await task


@scenario(*SERVERS, limits=[limits.LOCKS])
async def deadlock_is_found(stage: Stage) -> None:
    """Both drivers of MySQL and PostgreSQL's raise in one of the two tasks."""
    await stage.add("a", "b")
    barrier = asyncio.Barrier(2)

    async def work(first: int, second: int) -> None:
        async with stage.sessions.begin() as session:
            await session.execute(update(User).where(User.key == first).values(score=first))
            async with asyncio.timeout(1):
                await barrier.wait()
            await session.execute(update(User).where(User.key == second).values(score=second))

    results = await asyncio.gather(work(1, 2), work(2, 1), return_exceptions=True)
    stage.note(sum(result is None for result in results))
    stage.note(sorted(type(one).__name__ for one in results if one is not None))
