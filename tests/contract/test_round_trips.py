"""What a test costs on the wire and in statements, which no other program disturbs.

A change that adds a round trip fails here. Of the tests of a run the first one is not counted: it
pays for connections.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fix_project import Project, naive_database
from fix_servers import Servers, Target
from fix_wire import Count, wire

SERVERS = (
    *("postgres+asyncpg", "postgres+psycopg"),
    *("mysql+asyncmy", "mysql+aiomysql", "mariadb+asyncmy"),
)

#: What applications do; INSERT, SELECT, and by hand or by us what surrounds them.
WORK = """
async def test_work_{number}({session}):
    {session}.add(User(name="ada"))
    await {session}.commit()
    assert await names({session}) == ["ada"]
"""

NOTHING = """
async def test_nothing_{number}({session}):
    pass
"""

#: The best fixture that can be written by hand.
HAND_WRITTEN = """
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from app.models import Base


@pytest_asyncio.fixture(scope="session")
async def engine():
    engine = create_async_engine({url!r})
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture
async def session(engine):
    async with engine.connect() as connection:
        transaction = await connection.begin()
        async with AsyncSession(connection, join_transaction_mode="create_savepoint") as session:
            yield session
        await transaction.rollback()
"""

#: By strategy: of a test that works, and of one that leaves its session alone.
#:
#: rollback: "BEGIN; SAVEPOINT", INSERT, "RELEASE; SAVEPOINT" with the next unit of work,
#: SELECT, ROLLBACK. reset: BEGIN, INSERT, COMMIT, BEGIN, SELECT, ROLLBACK, one that looks and one
#: that puts back; MySQL's drivers need no BEGIN.
TRIPS = {"rollback": (5, 0), "reset": (7, 1), "reset on postgres": (8, 1)}
#: Tests that do without ids that begin anew look and put back in as many.
IDS_GO_ON = "pytestmark = pytest.mark.asyncdb(reset_sequences=False)"


@pytest.fixture(params=SERVERS, ids=lambda word: word.replace("+", "-"))
def served(request: pytest.FixtureRequest, servers: Servers) -> Target:
    """Each driver that speaks to a server."""
    return servers.target(request.param)


def write(project: Project, session: str, mark: str = "") -> None:
    parts = [
        text.format(number=n, session=session) for text in (WORK, NOTHING) for n in range(NUMBER)
    ]
    project.tests(mark, *parts)
    project.ini(
        asyncio_default_fixture_loop_scope="session", asyncio_default_test_loop_scope="session"
    )


def middle(trips: Count, take: Callable[[list[int]], int] = min) -> tuple[int, int]:
    """Of a test that works, and of one that does not; the least of several."""
    work, nothing = (
        take([trips.by_test[f"test_{what}_{n}"] for n in range(1, NUMBER)]) for what in KINDS
    )
    return work, nothing


KINDS = ("work", "nothing")
#: Tests of each kind; more than psycopg wants to see before it prepares what they all run.
NUMBER = 8


@pytest.mark.parametrize(
    ("strategy", "mark"),
    [("rollback", ""), ("reset", ""), ("reset", IDS_GO_ON)],
    ids=["rollback", "reset", "reset-ids-go-on"],
)
def test_round_trips(project: Project, served: Target, strategy: str, mark: str) -> None:
    write(project, "asyncdb_session", mark)
    found = set()
    wanted = TRIPS.get(f"{strategy} on {served.backend}", TRIPS[strategy])
    # Other tests of the suite change schemas on the same MySQL server, which makes the restorer
    # look twice; they leave a gap before long. A round trip too many is in every run.
    deadline = time.monotonic() + 60
    while wanted not in found and time.monotonic() < deadline:
        with wire(served) as (trips, behind):
            outcome = project.run(behind, f"--asyncdb-isolation={strategy}", plugins=[trips])
        outcome.passed(2 * NUMBER)
        # With real commits psycopg prepares a statement when it comes the sixth time, for good.
        take = max if served.driver == "psycopg" and strategy == "rollback" else min
        found.add(middle(trips, take))
    assert min(found) == wanted


def test_fewer_round_trips_than_by_hand(project: Project, served: Target) -> None:
    """The control: the same tests, the same proxy, another fixture."""
    write(project, "session")
    with wire(served) as (trips, behind), naive_database(project, behind) as url:
        project.write("conftest.py", HAND_WRITTEN.format(url=url))
        project.run(behind, plugins=[trips]).result.assert_outcomes(passed=2 * NUMBER)
    work, nothing = middle(trips)
    assert work == 8
    assert nothing == (0 if served.backend == "postgres" else 2)  # its BEGIN is sent late
    assert TRIPS["rollback"][0] < work


@contextmanager
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Count]:
    """Counts what SQLite runs in threads of drivers; the observer is in the main thread."""
    connect, statements = sqlite3.connect, Count()

    def count(statement: str) -> None:
        if threading.current_thread() is not threading.main_thread():
            statements.add()

    def connect_and_trace(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(count)
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", connect_and_trace)
        yield statements


def test_statements_on_sqlite(
    project: Project, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory there is no wire, but each statement passes through the driver's thread."""
    write(project, "asyncdb_session")
    with traced(monkeypatch) as statements:
        project.run(servers.target("sqlite"), plugins=[statements]).passed(2 * NUMBER)
    # BEGIN and two savepoints, INSERT, RELEASE and another savepoint, SELECT, and ROLLBACK TO
    # the guard, which tells whether somebody has ended the transaction, and ROLLBACK.
    assert middle(statements) == (9, 0)
