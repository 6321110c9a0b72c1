"""Random programs of writes on four connections, three of them of the engine and one of a plain
driver outside: whatever they do, ``reset`` puts the database back to what the observer saw before.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from fix_databases import worker_database
from fix_servers import Servers, Target
from fix_suite import EXAMPLES, WORDS
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from sqlalchemy import ForeignKey, String, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pytest_asyncdb import errors
from pytest_asyncdb._databases.plan import SchemaPlan
from pytest_asyncdb._databases.worker_databases import WorkerDatabase
from pytest_asyncdb.abc import ViewRequest
from pytest_asyncdb.isolation.reset import Reset

Step = tuple[Any, ...]


class Base(DeclarativeBase):
    pass


class Team(Base):
    __tablename__ = "team"
    id: Mapped[int] = mapped_column(primary_key=True)
    lead_id: Mapped[int | None]
    name: Mapped[str] = mapped_column(String(40), unique=True)


class Person(Base):
    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int | None] = mapped_column(ForeignKey("team.id", ondelete="CASCADE"))
    boss_id: Mapped[int | None] = mapped_column(ForeignKey("person.id"))
    name: Mapped[str] = mapped_column(String(40))


class Note(Base):
    """Empty in the template."""

    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id", ondelete="CASCADE"))
    words: Mapped[str | None] = mapped_column(String(40))


async def seed(session: AsyncSession) -> None:
    session.add_all([Team(name=f"team {n}") for n in range(3)])
    await session.flush()
    session.add_all([Person(name=f"person {n}", team_id=1 + n % 3) for n in range(20)])
    await session.flush()
    await session.execute(text("UPDATE person SET boss_id = 1"))


@pytest.fixture
def stage(target: Target, servers: Servers) -> Iterator[tuple[Reset, WorkerDatabase]]:
    plan = SchemaPlan((Base.metadata,), None, (seed,))
    with (
        worker_database(target, servers, "reset", plan) as (database, host),
        closing(Reset(database, host)) as strategy,
    ):
        yield strategy, database


IDS = st.integers(1, 6)
WHO = st.integers(0, 3)
STATEMENTS = {
    "team": "INSERT INTO team (name) VALUES ('new {0}')",
    "person": "INSERT INTO person (name, team_id) VALUES ('new', {0})",
    "person at": "INSERT INTO person (id, name) VALUES ({0}0, 'at')",
    "note": "INSERT INTO note (person_id, words) VALUES ({0}, 'x')",
    "rename": "UPDATE person SET name = 'other' WHERE id = {0}",
    "move": "UPDATE person SET team_id = NULL, boss_id = {0} WHERE id > 3",
    "same": "UPDATE team SET name = name",
    "number": "UPDATE person SET id = 100 + {0} WHERE id = {0}",
    "leave": "DELETE FROM person WHERE id = {0}",
    "leave all": "DELETE FROM note WHERE person_id > {0}",
    "dissolve": "DELETE FROM team WHERE id = {0}",
    "savepoint": "SAVEPOINT mine",
    "undo": "ROLLBACK TO SAVEPOINT mine",
    "release": "RELEASE SAVEPOINT mine",
    "commit": "COMMIT",
    "rollback": "ROLLBACK",
}
DDL = {
    "table": "CREATE TABLE more{0} (id INTEGER)",
    "column": "ALTER TABLE note ADD COLUMN more{0} INTEGER",
    "index": "CREATE INDEX more{0} ON note (words)",
    "drop": "DROP TABLE note",
}
WORK = st.tuples(WHO, st.sampled_from([*STATEMENTS, "commit", "commit"]), IDS)
PROGRAMS = st.builds(
    lambda steps, ddl: [*steps, *ddl],
    st.lists(WORK, min_size=3, max_size=25),
    st.one_of(
        st.just([]),
        st.just([]),
        st.just([]),
        st.lists(st.tuples(WHO, st.sampled_from(list(DDL)), IDS), min_size=1, max_size=2),
    ),
)


class Play:
    """One program on the connections of a test, and on one from outside."""

    def __init__(self, target: Target, view: Any) -> None:
        self.target = target
        self.engine = view.engine
        self.database = view.url.database
        self.done = 0

    async def run(self, program: list[Step], ends: bool) -> None:
        with closing(self.target.observer.connect(self.database)) as outside:
            inside = [await self.engine.connect() for _ in range(3)]
            for connection in inside:
                for statement in LOCK_TIMEOUT[self.target.backend]:
                    await connection.exec_driver_sql(statement)
                await connection.commit()
            for statement in [*LOCK_TIMEOUT[self.target.backend], "BEGIN"]:
                outside.cursor().execute(statement)
            for who, word, number in program:
                statement = {**STATEMENTS, **DDL}[word].format(number)
                try:
                    if who < 3:
                        await self.inside(inside[who], word, statement)
                    else:
                        self.outside(outside, word, statement)
                    self.done += 1
                except (DBAPIError, *OUTSIDE_ERRORS):
                    if who < 3:
                        await inside[who].rollback()
                    else:
                        self.outside(outside, "rollback", "ROLLBACK")
            for connection in inside[:2]:
                await connection.close()  # the third is left open
        if ends:
            await inside[2].close()

    async def inside(self, connection: AsyncConnection, word: str, statement: str) -> None:
        if word == "commit":
            await connection.commit()
        elif word == "rollback":
            await connection.rollback()
        else:
            await connection.exec_driver_sql(statement)

    def outside(self, connection: Any, word: str, statement: str) -> None:
        with suppress(*(OUTSIDE_ERRORS if word in ("commit", "rollback") else ())):
            connection.cursor().execute(statement)
        if word in ("commit", "rollback"):
            connection.cursor().execute("BEGIN")


def _outside_errors() -> tuple[type[Exception], ...]:
    import sqlite3

    import psycopg
    import pymysql

    return sqlite3.Error, psycopg.Error, pymysql.Error


OUTSIDE_ERRORS = _outside_errors()
LOCK_TIMEOUT = {
    "sqlite": ["PRAGMA busy_timeout = 0"],
    "postgres": ["SET lock_timeout = 20"],
    "mysql": ["SET SESSION innodb_lock_wait_timeout = 1, lock_wait_timeout = 1"],
    "mariadb": ["SET SESSION innodb_lock_wait_timeout = 0, lock_wait_timeout = 0"],
}


@pytest.mark.everyday("sqlite", "postgres+asyncpg", "mariadb+asyncmy")
def test_random_programs_are_put_back(stage: tuple[Reset, WorkerDatabase], target: Target) -> None:
    """Rows and counters of every table, as the observer sees them."""
    strategy, database = stage
    expected = look(target, database)
    kept: list[bool] = []

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(PROGRAMS, st.booleans())
    def check(program: list[Step], ends: bool) -> None:
        view = strategy.view(ViewRequest("model"))
        before = database.url
        play = Play(target, view)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is left open, and collected later
            asyncio.run(play.run(program, ends))
            assert [b for b in view.close() if not isinstance(b, errors.IsolationBreach)] == []
        assert look(target, database) == expected
        kept.append(database.url == before)
        event("restored" if kept[-1] else "replaced")

    check()
    assert sum(kept) > len(kept) / 3


@pytest.mark.parametrize(
    "target",
    WORDS[1:],
    indirect=True,
    ids=[word.replace("+", "-") for word in WORDS[1:]],
)
def test_the_restorer_may_lose_its_connection(
    stage: tuple[Reset, WorkerDatabase], target: Target
) -> None:
    """The next one has the same settings; PostgreSQL's loses what it remembers in temporary tables,
    so that the database is replaced."""
    strategy, database = stage
    expected = look(target, database)
    before = database.url
    strategy.restoration  # noqa: B018
    for connection in target.observer.connections(str(before.database)):
        target.observer.kill(connection)
    while target.observer.connections(str(before.database)):
        pass
    view = strategy.view(ViewRequest("lost"))
    play = Play(target, view)
    asyncio.run(play.run([(0, "person", 1), (0, "commit", 1)], ends=True))
    assert view.close() == []
    assert look(target, database) == expected
    assert target.backend == "postgres" or database.url == before


def look(target: Target, database: WorkerDatabase) -> Any:
    """What is in the worker's database, where its ids stand, and its tables."""
    name = database.url.database
    rows = target.observer.dump(name)
    counters = {
        "sqlite": "SELECT sql FROM sqlite_master ORDER BY 1",
        "postgres": "SELECT sequencename, last_value FROM pg_sequences ORDER BY 1",
        "mysql": "SHOW CREATE TABLE person",
        "mariadb": "SHOW CREATE TABLE person",
    }[target.backend]
    return rows, target.observer.query(counters, name)
