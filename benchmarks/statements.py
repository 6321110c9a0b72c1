"""The case ``statement``: what a statement costs, compared with a plain engine on the same server.

A test runs batches of equal statements in turns: in its own session, and in one of a plain engine
with the same driver. Counted is the processor's time, of all threads.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Result, measured
from benchmarks.projects import ASYNCDB
from benchmarks.runs import Project, RunFailed, Variant
from benchmarks.servers import Servers
from pytest_asyncdb.errors import AsyncdbError

KEY = "statement"
STRATEGIES = ("rollback", "reset", "copy")
#: A commit is measured with the select that begins its transaction.
KINDS = ("select", "insert", "commit", "stream")
TARGET = 1.1
#: Statements in a batch.
BATCH = 100

TEST = """
import json
import pathlib
import time
import uuid

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.pool import StaticPool

from app import Base, Thing0
from pytest_asyncdb import build_engine


async def one_select(session):
    await session.scalar(select(Thing0.id).where(Thing0.id == 1))


async def one_insert(session):
    await session.execute(insert(Thing0).values(name=uuid.uuid4().hex))


async def one_commit(session):
    await one_select(session)
    await session.commit()


async def one_stream(session):
    async for _ in await session.stream(select(Thing0.id).limit(1)):
        pass


async def batch(work, session):
    began = time.process_time()
    for _ in range({batch}):
        await work(session)
    return time.process_time() - began


async def plain_engine(asyncdb_url, backend, folder):
    if backend != "sqlite":
        return build_engine(asyncdb_url)
    # Of the same kind: a database in memory, or a file.
    place = folder / "plain.db" if "memdb" not in str(asyncdb_url) else ""
    options = {{}} if place else {{"poolclass": StaticPool}}
    plain = build_engine(f"sqlite+aiosqlite:///{{place}}", **options)
    async with plain.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    return plain


async def test_it(asyncdb_sessionmaker, asyncdb_url, asyncdb_backend, tmp_path):
    plain = await plain_engine(asyncdb_url, asyncdb_backend.name, tmp_path)
    found = {{}}
    async with asyncdb_sessionmaker() as here, async_sessionmaker(plain)() as there:
        # Inserts come last: they stay in an open transaction.
        for work in (one_select, one_commit, one_stream, one_insert):
            await batch(work, here), await batch(work, there)
            found[work.__name__.removeprefix("one_")] = [
                [await batch(work, session) for session in (here, there)] for _ in range({rounds})
            ]
    await plain.dispose()
    pathlib.Path("batches.json").write_text(json.dumps(found), "utf-8")
"""


def measure(word: str, rounds: int, servers: Servers) -> Iterator[Result]:
    """Measure each kind of statement in each strategy: a line for each, *rounds* batches."""
    for strategy in STRATEGIES:
        results = [
            Result(KEY, f"{kind}, {strategy} : plain engine", word, "×", TARGET) for kind in KINDS
        ]
        try:
            found = _batches(word, strategy, rounds, servers)
        except (AsyncdbError, RunFailed) as error:
            for result in results:
                result.problem, result.failed = str(error), isinstance(error, RunFailed)
        else:
            for kind, result in zip(KINDS, results, strict=True):
                ratios = measured([here / there for here, there in found[kind]])
                result.reached = result.fastest = ratios
                here, there = zip(*found[kind], strict=True)
                result.variants = {
                    "plugin": measured([seconds / BATCH for seconds in here]),
                    "plain": measured([seconds / BATCH for seconds in there]),
                }
        yield from results


def _batches(
    word: str, strategy: str, rounds: int, servers: Servers
) -> dict[str, list[tuple[float, float]]]:
    text = TEST.format(batch=BATCH, rounds=rounds)
    arguments = (f"--asyncdb-isolation={strategy}",)
    variant = Variant(strategy, ASYNCDB, arguments=arguments, text=text)
    with tempfile.TemporaryDirectory(prefix="benchmark_") as parent:
        folder = Path(parent, "project")
        Project(folder, variant, word, 1, servers).run()
        found = json.loads((folder / "batches.json").read_text("utf-8"))
    return {kind: [tuple(pair) for pair in pairs] for kind, pairs in found.items()}
