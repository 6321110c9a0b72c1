"""Connections of ``reset`` and ``copy``: real ones, kept from test to test, or not.

Whatever a test leaves in them, on them or behind them, the next test finds connections like
new ones, and a database like the template. The observer looks on.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fix_project import Outcome, Project
from fix_servers import WORDS, Servers, Target
from fix_suite import EACH_BACKEND, EACH_DRIVER

pytestmark = pytest.mark.everyday(*EACH_DRIVER)
#: Each driver with one of the strategies; SQLite, which is fast, with both.
once = pytest.mark.everyday(
    *("sqlite", ("postgres+asyncpg", "reset"), ("postgres+psycopg", "copy")),
    *(("mysql+asyncmy", "reset"), ("mysql+aiomysql", "copy"), ("mariadb+asyncmy", "reset")),
)

REAL = ("reset", "copy")

#: The next test, which finds nothing of the one before, and can work.
AFTER = """
async def test_next(asyncdb_session):
    assert await names(asyncdb_session) == []
    await add(asyncdb_session, "next")
    await asyncdb_session.commit()
    assert await names(asyncdb_session) == ["next"]
"""

#: A statement that runs until somebody ends it.
SLOW = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
    " WHERE i < 100000000000) SELECT count(*) FROM n",
    "postgres": "SELECT pg_sleep(600)",
    "mysql": "SELECT SLEEP(600)",
    "mariadb": "SELECT SLEEP(600)",
}

SERVERS = WORDS[1:]
POSTGRES = WORDS[1:3]


@pytest.fixture(params=REAL)
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(project: Project, target: Target, strategy: str, *plugins: object) -> Outcome:
    return project.run(target, f"--asyncdb-isolation={strategy}", plugins=plugins)


class Databases:
    """A plugin of an inner run: knows the tests' databases."""

    def __init__(self, target: Target) -> None:
        self.observer = target.observer
        self.names: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[Any]:
        result = yield
        if fixturedef.argname == "_asyncdb_view":
            self.names.add(result.url.database)
        return result


class Killer(Databases):
    """Ends every connection to the tests' databases before each ``test_killed``."""

    killed = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if item.name.startswith("test_killed"):
            for name in self.names:
                for connection in self.observer.connections(name):
                    self.observer.kill(connection)
                    self.killed += 1
                while self.observer.connections(name):
                    pass


class Counter(Databases):
    """Counts the connections to the tests' databases after each test.

    Args:
        most: So many may be open.
    """

    def __init__(self, target: Target, most: int) -> None:
        super().__init__(target)
        self.counts: list[int] = []
        self._most = most

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self) -> None:
        # Copies are dropped by a thread, and a server's session ends after its connection.
        until = time.monotonic() + 5.0
        while (number := self._count()) > self._most and time.monotonic() < until:
            pass
        self.counts.append(number)

    def _count(self) -> int:
        return sum(len(self.observer.connections(name)) for name in self.names)


@once
def test_what_is_left_open_is_undone(project: Project, target: Target, strategy: str) -> None:
    """Forgotten sessions with work, streams in the middle of their rows, failed transactions."""
    project.tests(
        """
        import gc

        KEPT = []

        @pytest.mark.parametrize("kept", [True, False])
        async def test_session(asyncdb_sessionmaker, kept):
            session = asyncdb_sessionmaker()
            await add(session, "ada")
            if kept:
                KEPT.append(session)

        @pytest.mark.parametrize("kept", [True, False])
        async def test_connection(asyncdb_engine, kept):
            connection = await asyncdb_engine.connect()
            await add(connection, "ada")
            await connection.begin_nested()
            await add(connection, "bob")
            if kept:
                KEPT.append(connection)

        async def test_failed(asyncdb_sessionmaker):
            session = asyncdb_sessionmaker()
            await add(session, "ada")
            with pytest.raises(IntegrityError):
                await add(session, "ada")
            KEPT.append(session)

        async def test_failed_at_first(asyncdb_session, asyncdb_sessionmaker):
            # On MySQL that has begun a transaction, and the error does not say so.
            async with asyncdb_sessionmaker.begin() as session:
                await add(session, "ada")
            with pytest.raises(IntegrityError):
                await add(asyncdb_session, "ada")

        @pytest.mark.parametrize("way", ["session", "connection", "iterator"])
        async def test_stream(asyncdb_sessionmaker, asyncdb_engine, way):
            async with asyncdb_sessionmaker() as session:
                await add(session, *(f"user {n}" for n in range(2000)))
                await session.commit()
            session = asyncdb_sessionmaker()
            if way == "connection":
                session = await asyncdb_engine.connect()
            stream = await session.stream(select(User.name).execution_options(yield_per=10))
            rows = stream.__aiter__()
            assert len(await stream.fetchmany(3)) == 3
            if way == "iterator":
                await rows.__anext__()
            KEPT.append((session, stream, rows))

        async def test_raw(asyncdb_engine):
            KEPT.append(await asyncdb_engine.raw_connection())

        async def test_collected(asyncdb_session):
            KEPT.clear()
            gc.collect()
            await add(asyncdb_session, "ada")
            await asyncdb_session.commit()
        """,
        AFTER,
    )
    run(project, target, strategy).passed(12)


@once
def test_a_cancelled_statement_ends_on_the_server(
    project: Project, target: Target, strategy: str
) -> None:
    """What its transaction had done is undone; other connections go on."""
    project.tests(
        f"SLOW = {SLOW[target.backend]!r}",
        """
        async def test_it(asyncdb_sessionmaker):
            async with asyncdb_sessionmaker() as other:
                async with asyncdb_sessionmaker() as session:
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.05):
                            await session.execute(text(SLOW))
                await add(other, "ada")
                await other.commit()
                assert await names(other) == ["ada"]

        async def test_task(asyncdb_sessionmaker):
            connected = asyncio.Event()

            async def work():
                async with asyncdb_sessionmaker() as session:
                    await session.execute(text("SELECT 1"))
                    connected.set()
                    await session.execute(text(SLOW))

            task = asyncio.create_task(work())
            await connected.wait()
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with asyncdb_sessionmaker() as session:
                await add(session, "ada")
                await session.commit()
        """,
        AFTER,
    )
    run(project, target, strategy).passed(3)


@once
def test_a_task_that_is_left_running_is_told(
    project: Project, target: Target, strategy: str
) -> None:
    """Its statement is ended on the server."""
    project.tests(
        f"SLOW = {SLOW[target.backend]!r}",
        """
        TASKS = []

        async def work(sessions):
            async with sessions() as session:
                await session.execute(text(SLOW))

        async def test_it(asyncdb_sessionmaker):
            TASKS.append(asyncio.create_task(work(asyncdb_sessionmaker), name="left"))
            await asyncio.sleep(0.05)
        """,
        AFTER,
    )
    project.ini(asyncio_default_test_loop_scope="session")
    run(project, target, strategy).had(passed=2, errors=1).shows(
        f"""
        the test ended while a task was still using its connection

        test: test_it.py::test_it[{target.id}]
        task: left (work)
        at {project.place("await session.execute(text(SLOW))", "work")}

        To fix this: await or cancel the task before the test ends
        """
    )


@once
def test_the_engine_can_be_in_autocommit(project: Project, target: Target, strategy: str) -> None:
    """The option ``isolation_level`` of the engine, also after a connection had another level."""
    project.tests(
        """
        @pytest.fixture(scope="session")
        def asyncdb_engine_options():
            return {"isolation_level": "AUTOCOMMIT"}

        @pytest.mark.parametrize("n", range(2))
        async def test_it(asyncdb_engine, n):
            for word in ("ada", "bob"):
                async with asyncdb_engine.connect() as connection:
                    await add(connection, word)
                    await connection.rollback()
                async with asyncdb_engine.connect() as connection:
                    await connection.execution_options(isolation_level="SERIALIZABLE")
                    await add(connection, "never")
                    await connection.rollback()
            async with asyncdb_engine.connect() as connection:
                assert await names(connection) == ["ada", "bob"]
        """,
        AFTER,
    )
    run(project, target, strategy).passed(3)


@once
def test_isolation_levels_end_with_their_connection(
    project: Project, target: Target, strategy: str
) -> None:
    """``execution_options(isolation_level=…)``, left open or not."""
    levels = ["AUTOCOMMIT", "SERIALIZABLE"]
    levels += ["READ UNCOMMITTED"] if target.backend == "sqlite" else ["REPEATABLE READ"]
    query = {
        "postgres": "SHOW transaction_isolation",
        "mysql": "SELECT @@transaction_isolation",
        "mariadb": "SELECT @@tx_isolation",
        "sqlite": "PRAGMA read_uncommitted",
    }[target.backend]
    project.tests(
        f"LEVELS, QUERY = {levels!r}, {query!r}",
        """
        NEW = []
        KEPT = []

        @pytest.mark.parametrize("n", range(2))
        @pytest.mark.parametrize("left", [False, True])
        @pytest.mark.parametrize("level", LEVELS)
        async def test_it(asyncdb_engine, level, left, n):
            async with asyncdb_engine.connect() as connection:
                await add(connection, "never")
                await connection.rollback()
                NEW.append((await connection.exec_driver_sql(QUERY)).scalar())
                assert NEW[0] == NEW[-1]
                await connection.rollback()
            connection = await asyncdb_engine.connect()
            await connection.execution_options(isolation_level=level)
            assert await names(connection) == []
            await add(connection, "ada")
            await connection.rollback()
            assert await names(connection) == (["ada"] if level == "AUTOCOMMIT" else [])
            if left:
                KEPT.append(connection)
            else:
                await connection.close()
        """,
        AFTER,
    )
    run(project, target, strategy).passed(len(levels) * 4 + 1)


# Connections that end.


@pytest.mark.parametrize("word", SERVERS)
@pytest.mark.parametrize("strategy", ["rollback", "reset"])
def test_connections_that_the_server_ended_are_replaced(
    project: Project, servers: Servers, strategy: str, word: str
) -> None:
    """Between two tests, all of them: those that look what has changed, too."""
    target = servers.target(word)

    killer = Killer(target)
    project.tests(
        """
        @pytest.mark.parametrize("n", range(2))
        async def test_a(asyncdb_sessionmaker, n):
            async with asyncdb_sessionmaker() as one, asyncdb_sessionmaker() as two:
                assert await names(one) == await names(two) == []
                await add(one, "ada")
                await one.commit()

        @pytest.mark.parametrize("n", range(3))
        async def test_killed(asyncdb_session, n):
            assert await names(asyncdb_session) == []
            await add(asyncdb_session, "ada")
            await asyncdb_session.commit()
            assert await names(asyncdb_session) == ["ada"]
        """,
        AFTER,
    )
    run(project, target, strategy, killer).passed(6)
    assert killer.killed


PID = {
    "postgres": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({0}, 5000)"),
    "mysql": ("SELECT connection_id()", "KILL {0}"),
}
PID["mariadb"] = PID["mysql"]


@once
@pytest.mark.parametrize("word", SERVERS)
def test_a_connection_that_is_lost_in_a_test_costs_its_transaction(
    project: Project, servers: Servers, strategy: str, word: str
) -> None:
    """The driver's own error, and then a new connection, as with a pool."""
    target = servers.target(word)
    project.tests(
        f"PID, KILL = {PID[target.backend]!r}",
        """
        async def test_it(asyncdb_sessionmaker):
            async with asyncdb_sessionmaker() as session, asyncdb_sessionmaker() as other:
                await add(session, "ada")
                number = await session.scalar(text(PID))
                await other.execute(text(KILL.format(number)))
                with pytest.raises(DBAPIError):
                    await names(session)
                await session.rollback()
                assert await names(session) == []
                await add(session, "bob")
                await session.commit()
                await other.rollback()
                assert await names(other) == ["bob"]
        """,
        AFTER,
    )
    run(project, target, strategy).passed(2)


@pytest.mark.everyday(
    ("copy", "postgres+asyncpg"), ("reset", "mysql+aiomysql"), ("reset", "mariadb+asyncmy")
)
@pytest.mark.parametrize("word", SERVERS)
def test_connections_do_not_pile_up(
    project: Project, servers: Servers, strategy: str, word: str
) -> None:
    """After every test, counted by the observer: those that are kept, and ours."""
    target = servers.target(word)
    counter = Counter(target, 6)
    project.tests(
        """
        KEPT = []

        @pytest.mark.parametrize("n", range(20))
        async def test_it(asyncdb_engine, asyncdb_sessionmaker, n):
            barrier = asyncio.Barrier(7)

            async def one():
                async with asyncdb_engine.connect() as connection:
                    await names(connection)
                    await barrier.wait()

            await asyncio.gather(*(one() for _ in range(7)))
            session = asyncdb_sessionmaker()
            await add(session, "ada")
            KEPT.append(session)
        """
    )
    run(project, target, strategy, counter).passed(20)
    # Five are kept, and one looks what has changed; copies are gone with theirs.
    assert max(counter.counts) <= 6, counter.counts


@once
def test_nothing_of_ours_is_left(project: Project, target: Target, strategy: str) -> None:
    """No database, no connection, no thread; those of the drivers included."""
    project.tests(
        """
        @pytest.mark.parametrize("n", range(6))
        async def test_it(asyncdb_session, asyncdb_sessionmaker, n):
            await add(asyncdb_session, "ada")
            await asyncdb_session.commit()
            async with asyncdb_sessionmaker() as other:
                await names(other)
            if n == 3:
                await asyncdb_session.execute(text("CREATE TABLE more (id INTEGER)"))
                await asyncdb_session.commit()
        """
    )
    before = set(threading.enumerate())
    outcome = run(project, target, strategy).passed(6)
    for thread in set(threading.enumerate()) - before:
        thread.join(5)  # that of an older aiosqlite ends after the connection
    assert set(threading.enumerate()) - before == set()
    for url in outcome.watch.urls.values():
        assert target.observer.connections(url.database or "") == []
        assert target.observer.look(url.database or "") is None


# Transactions that outlive their connection.


@pytest.mark.parametrize("word", POSTGRES)
def test_a_connection_of_another_process_that_is_left_in_a_transaction_is_told(
    project: Project, servers: Servers, word: str
) -> None:
    """Its row locks would make the next test wait; it is ended."""
    target = servers.target(word)
    project.tests(
        """
        import psycopg

        KEPT = []

        async def test_it(asyncdb_url):
            url = asyncdb_url.set(drivername="postgresql").render_as_string(hide_password=False)
            connection = psycopg.connect(url)
            connection.execute("INSERT INTO users (name) VALUES ('ada')")
            KEPT.append(connection)

        async def test_end():
            KEPT.pop().close()
        """,
        AFTER,
    )
    outcome = run(project, target, "reset").had(passed=3, errors=1)
    (number,) = set(re.findall(r"^connection (\d+):", outcome.text, re.MULTILINE))
    outcome.shows(
        f"""
        the test left a connection in a transaction; it was ended

        test: test_it.py::test_it[{target.id}]
        connection {number}: idle in transaction: INSERT INTO users (name) VALUES ('ada')

        To fix this: commit, roll back or close every connection of a test, and end its processes
        """
    )


@pytest.mark.everyday(*EACH_BACKEND)
@pytest.mark.parametrize("word", SERVERS)
def test_a_secret_in_the_statement_of_such_a_connection_is_masked(
    project: Project, servers: Servers, word: str
) -> None:
    """It is in the text of who sends no parameters; what is shown is cut after masking."""
    target = servers.target(word)
    shown = {"postgres": "SELECT pg_sleep(600)"}.get(target.backend, "SELECT sleep(600)")
    project.tests(
        f"""
        import contextlib
        from fix_observer import observer_of

        KEPT = []
        SQL = "{shown}, 'hunter2', {"1, " * 40} 'x' AS password"

        def work(connection):
            with contextlib.suppress(Exception):  # it is ended
                connection.cursor().execute(SQL)

        async def test_it(asyncdb_url):
            observer = observer_of(asyncdb_url)
            connection = observer.connect(asyncdb_url.database)
            connection.cursor().execute("BEGIN")
            connection.cursor().execute("INSERT INTO users (name) VALUES ('ada')")
            thread = threading.Thread(target=work, args=[connection])
            thread.start()
            KEPT.extend([thread, connection])
            activity = "SELECT query FROM pg_stat_activity WHERE datname = '{{}}'"
            if "{target.backend}" != "postgres":
                activity = "SELECT info FROM information_schema.processlist WHERE db = '{{}}'"
            while (SQL,) not in observer.query(activity.format(asyncdb_url.database)):
                pass
        """,
        AFTER,
        """
        def test_end():
            KEPT[0].join()
            with contextlib.suppress(Exception):
                KEPT[1].close()
        """,
    )
    text = run(project, target, "reset").had(passed=3, errors=1).text
    told = re.findall(r"^connection \d+: (?:active: )?(.*)$", text, re.MULTILINE)
    assert told == [(f"{shown}, '***', " + "1, " * 40)[: len(told[0]) - 1] + "…"]
    assert "hunter2" not in text


def test_a_transaction_that_a_test_left_open_is_over_for_the_next_one(
    project: Project, target: Target
) -> None:
    """On the same connection, whose adapter must not believe that it goes on: then the next
    statement would begin none, and commit by itself."""
    project.tests(
        """
        pytestmark = pytest.mark.asyncdb(isolation="reset")

        async def test_left_open(asyncdb_session):
            await add(asyncdb_session, "ada")

        async def test_next(asyncdb_sessionmaker):
            async with asyncdb_sessionmaker() as session:
                await add(session, "grace")
                await session.rollback()
                assert await names(session) == []
        """
    )
    project.run(target).passed(2)


@pytest.mark.parametrize("word", POSTGRES)
def test_a_prepared_transaction_that_is_left_is_told(
    project: Project, servers: Servers, word: str
) -> None:
    """It has no connection any more, and its locks stay; it is rolled back."""
    target = servers.two_phase_target(word)
    project.tests(
        """
        from uuid import uuid4

        async def prepare(engine, end):
            name = f"it's {uuid4().hex[:8]}"
            async with engine.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                for statement in (
                    "BEGIN",
                    "INSERT INTO users (name) VALUES ('ada')",
                    "PREPARE TRANSACTION '" + name.replace("'", "''") + "'",
                    *end,
                ):
                    await connection.exec_driver_sql(
                        statement.format("'" + name.replace("'", "''") + "'"),
                        execution_options={"no_parameters": True},
                    )

        async def test_ended(asyncdb_engine):
            await prepare(asyncdb_engine, ["COMMIT PREPARED {}"])

        async def test_it(asyncdb_engine):
            await prepare(asyncdb_engine, [])
        """,
        AFTER,
    )
    outcome = run(project, target, "reset").had(passed=3, errors=1)
    (name,) = set(re.findall(r"PREPARE TRANSACTION ('it''s [^']+')", outcome.text))
    outcome.shows(
        f"""
        the test left a connection in a transaction; it was ended

        test: test_it.py::test_it[{target.id}]
        connection that is gone: PREPARE TRANSACTION {name}

        To fix this: commit, roll back or close every connection of a test, and end its processes
        """
    )


@pytest.mark.parametrize("target", ["postgres+psycopg"], indirect=True, ids=["postgres-psycopg"])
def test_notifies_of_psycopg_ends_in_any_way(
    project: Project, target: Target, strategy: str
) -> None:
    """By ``break``, by a time-out or at its end; the connection goes on."""
    project.tests(
        """
        from contextlib import aclosing, asynccontextmanager
        from sqlalchemy.ext.asyncio import create_async_engine

        @asynccontextmanager
        async def listening(engine):
            options = {"isolation_level": "AUTOCOMMIT"}
            async with engine.execution_options(**options).connect() as connection:
                await connection.exec_driver_sql("LISTEN jobs")
                yield (await connection.get_raw_connection()).driver_connection
                assert (await connection.exec_driver_sql("SELECT 7")).scalar() == 7

        async def notify(engine, *words):
            for word in words:
                async with engine.begin() as connection:
                    await connection.exec_driver_sql(f"SELECT pg_notify('jobs', '{word}')")

        async def check(engine):
            async with listening(engine) as raw:
                await notify(engine, "one", "two")
                async for found in raw.notifies():
                    assert found.payload == "one"
                    await notify(engine, "three")
                    break
            async with listening(engine) as raw:
                found = []
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        async for _ in raw.notifies():
                            found.append(_)
                assert found == []
                await notify(engine, "four")
                async with aclosing(raw.notifies(timeout=5, stop_after=1)) as heard:
                    assert [one.payload async for one in heard] == ["four"]
                assert [one async for one in raw.notifies(timeout=0)] == []

        async def test_plain(asyncdb_url):
            engine = create_async_engine(asyncdb_url)
            async with asyncio.timeout(10):
                await check(engine)
            await engine.dispose()

        async def test_ours(asyncdb_engine):
            async with asyncio.timeout(10):
                await check(asyncdb_engine)

        @pytest.mark.asyncdb(isolation="rollback")
        async def test_rollback(asyncdb_connection):
            raw = (await asyncdb_connection.get_raw_connection()).driver_connection
            raw.notifies()
        """,
        AFTER,
    )
    outcome = run(project, target, strategy)
    outcome.had(passed=3, failed=1)
    place = project.place("raw.notifies()", "test_rollback")
    outcome.shows(
        f"""
        refused: driver_connection.notifies()

        test: test_it.py::test_rollback[postgres-psycopg]
        at {place}
        In the strategy 'rollback' no NOTIFY is delivered, because none is committed.

        To fix this: mark the test @pytest.mark.asyncdb(isolation="reset")
        """
    )


@pytest.mark.parametrize("target", ["postgres+psycopg"], indirect=True, ids=["postgres-psycopg"])
def test_psycopg_opens_a_named_cursor(project: Project, target: Target, strategy: str) -> None:
    """The argument ``name`` of ``cursor()`` is the driver's, in every strategy."""
    project.tests(
        """
        from sqlalchemy.ext.asyncio import create_async_engine

        async def check(engine):
            async with engine.connect() as connection:
                driver = (await connection.get_raw_connection()).driver_connection
                async with driver.cursor(name="numbers") as cursor:
                    await cursor.execute("SELECT generate_series(1, 3)")
                    assert cursor.name == "numbers"
                    assert await cursor.fetchmany(2) == [(1,), (2,)]
                    assert await cursor.fetchall() == [(3,)]

        async def test_plain(asyncdb_url):
            engine = create_async_engine(asyncdb_url)
            await check(engine)
            await engine.dispose()

        async def test_ours(asyncdb_engine):
            await check(asyncdb_engine)

        @pytest.mark.asyncdb(isolation="rollback")
        async def test_rollback(asyncdb_engine):
            await check(asyncdb_engine)
        """
    )
    run(project, target, strategy).had(passed=3)


@pytest.mark.parametrize("target", ["postgres+asyncpg"], indirect=True, ids=["postgres-asyncpg"])
def test_a_cancelled_call_of_the_driver_ends_on_the_server(
    project: Project, target: Target, strategy: str
) -> None:
    """The connection can be used at once, as that of a plain engine can."""
    project.tests(
        """
        async def test_it(asyncdb_engine):
            async with asyncdb_engine.connect() as connection:
                raw = (await connection.get_raw_connection()).driver_connection
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await raw.execute("SELECT pg_sleep(600)")
                assert await raw.fetchval("SELECT 7") == 7
                assert (await connection.exec_driver_sql("SELECT 8")).scalar() == 8
        """,
        AFTER,
    )
    run(project, target, strategy).passed(2)
