"""What a statement costs in Python: the calls of functions, which other programs do not disturb.

Processor time is the benchmark's; a change that adds work to every statement fails here.
"""

from __future__ import annotations

import json
import sys

import pytest
import sqlalchemy
from fix_project import Project
from fix_servers import Target

from pytest_asyncdb._engines import host_loop

pytestmark = pytest.mark.everyday("sqlite", "postgres+asyncpg")

#: Writes the least number of calls of each kind of statement, here and on a plain engine.
COUNT = """
import json
import pathlib
import sys
import uuid

from sqlalchemy.pool import StaticPool

from pytest_asyncdb import build_engine


async def read(session):
    await session.scalar(select(User.id).where(User.id == 1))


async def write(session):
    await session.execute(insert(User).values(name=uuid.uuid4().hex))


async def commit(session):
    await read(session)
    await session.commit()


async def stream(session):
    async for _ in await session.stream(select(User.id).limit(1)):
        pass


async def calls(work, session):
    counts = []
    for _ in range(20):
        number = 0

        def count(frame, event, argument):
            nonlocal number
            number += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            await work(session)
        finally:
            sys.setprofile(None)
        counts.append(number)
    return min(counts[1:])  # the first one is in the transaction of the work before it


async def test_calls(asyncdb_sessionmaker, asyncdb_url, asyncdb_backend):
    if asyncdb_backend.name == "sqlite":
        plain = build_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        async with plain.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
    else:
        plain = build_engine(asyncdb_url)
    async with asyncdb_sessionmaker() as here, async_sessionmaker(plain)() as there:
        found = {
            work.__name__: (await calls(work, here), await calls(work, there))
            for work in (read, commit, stream, write)  # a commit would keep what was written
        }
    await plain.dispose()
    pathlib.Path("calls.json").write_text(json.dumps(found))
"""

#: How many calls more each kind may cost than on a plain engine, by driver: a select, the same with
#: a commit, where a savepoint stands for BEGIN and COMMIT, a stream, and an insert. The private loop
#: is run for it, the test's loop gets a turn, and the plugin notes it. SQLite's depend on its thread.
MORE = {
    "aiosqlite": (60, 80, 235, 65),
    "asyncpg": (125, 30, 225, 120),
    "psycopg": (140, 20, 225, 145),
    "asyncmy": (135, 255, 255, 140),
    "aiomysql": (135, 245, 255, 140),
}
if sqlalchemy.__version__ < "2.1":
    # An adapter of 2.0 awaits once more to close a cursor, and psycopg's calls to make rows.
    MORE["aiosqlite"] = (165, 200, 225, 150)
    MORE["psycopg"] = (160, 45, 190, 165)
if sys.version_info >= (3, 14):  # its profiler counts entering a lock, which plain engines do less
    MORE = {driver: tuple(number + 8 for number in most) for driver, most in MORE.items()}


def test_a_statement_calls_few_functions_more_than_on_a_plain_engine(
    project: Project, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A statement that a busy server answers late waits on the test's loop, which costs 200 calls
    # more: here each is waited for in place, however late.
    monkeypatch.setattr(host_loop, "PATIENCE", 60.0)
    monkeypatch.setitem(host_loop.HostLoop.call.__kwdefaults__, "patience", 60.0)
    project.tests(COUNT)
    project.run(target).passed(1)
    found = json.loads((project.path / "calls.json").read_text())
    more = tuple(here - there for here, there in found.values())
    print(target.driver, more)
    most = MORE[target.driver]
    assert [number for number, limit in zip(more, most, strict=True) if number > limit] == [], (
        more,
        found,
    )
