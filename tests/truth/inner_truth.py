"""The inner run: each scenario on a plain engine, then on the plugin's; both answers to a file.

Copied into a project by test_truth.py as ``test_inner.py``.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool
from stage import SCENARIOS, Base, Item, Scenario, Stage, Ticket, User, Versioned

from pytest_asyncdb.isolation.rollback import Rollback

for part in Path(__file__).parent.glob("scenarios_*.py"):
    importlib.import_module(part.stem)

BACKEND = os.environ["TRUTH_BACKEND"]
DRIVER = os.environ["TRUTH_DRIVER"]
URL = os.environ["TRUTH_URL"]
STRATEGIES = os.environ["TRUTH_STRATEGIES"].split(",")
FOUND = Path(os.environ["TRUTH_FOUND"])
#: Seconds for one scenario; a deadlock of either side shows as "TimeoutError".
LIMIT = 20

#: Seconds; what waits for another unit of work ends with the error in any case.
Rollback.turn = 1.0

#: What each scenario saw on the plain engine.
PLAIN: dict[str, list[Any]] = {}
#: Scenarios after which the plain database was emptied.
CLEAN: set[str] = set()


def plain_engine() -> AsyncEngine:
    """What an application has: SQLAlchemy's defaults, and foreign keys on SQLite."""
    engine = create_async_engine(URL, poolclass=AsyncAdaptedQueuePool)
    if BACKEND == "sqlite":

        @event.listens_for(engine.sync_engine, "connect")
        def enforce(connection: Any, record: Any) -> None:
            connection.execute("PRAGMA foreign_keys = ON")

    return engine


async def play(scenario: Scenario, engine: AsyncEngine) -> list[Any]:
    """What the scenario saw, and what a fresh connection sees afterwards."""
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    stage = Stage(engine, sessions, BACKEND, DRIVER)
    log = stage.log
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            async with asyncio.timeout(LIMIT):
                await scenario.run(stage)
        except Exception as error:
            original = getattr(error, "orig", None)
            stage.log.append(["escaped", type(error).__name__, type(original).__name__])
        try:
            async with asyncio.timeout(LIMIT), engine.connect() as connection:
                for table in (User, Item, Versioned):
                    query = select(table.__table__).order_by(table.key)
                    rows = (await connection.execute(query)).all()
                    stage.log.append([table.__tablename__, [list(row) for row in rows]])
                rows = (await connection.execute(select(Ticket.text).order_by(Ticket.id))).all()
                stage.log.append(["truth_ticket", [row[0] for row in rows]])
        except Exception as error:
            stage.log.append(["afterwards", type(error).__name__])
    del stage, sessions
    gc.collect()  # here: what a scenario has left open ends in its own test
    return log


@pytest.fixture(scope="module", autouse=True)
def tables() -> None:
    async def create() -> None:
        engine = plain_engine()
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        await engine.dispose()

    asyncio.run(create())
    gc.freeze()  # else each collection looks at all that is imported


@pytest.fixture
async def plain(name: str) -> AsyncIterator[AsyncEngine]:
    engine = plain_engine()
    yield engine
    if name in CLEAN:
        return
    CLEAN.add(name)
    await engine.dispose()
    engine = plain_engine()
    async with engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            truncated = table.name == "truth_ticket" and BACKEND != "sqlite"
            words = "TRUNCATE TABLE" if truncated else "DELETE FROM"
            identity = " RESTART IDENTITY" if truncated and BACKEND == "postgres" else ""
            await connection.execute(text(f"{words} {table.name}{identity}"))
    await engine.dispose()


async def compare(name: str, strategy: str, plain: AsyncEngine, here: AsyncEngine) -> None:
    scenario = SCENARIOS[name]
    if name not in PLAIN:
        PLAIN[name] = await play(scenario, plain)
    answers = {
        "scenario": name,
        "strategy": strategy,
        "limit": scenario.limit(strategy, f"{BACKEND}+{DRIVER}"),
        "plain": PLAIN[name],
        "here": await play(scenario, here),
    }
    with FOUND.open("a", encoding="utf-8") as file:
        file.write(json.dumps(answers) + "\n")


each_scenario = pytest.mark.parametrize(
    "name", [name for name, one in SCENARIOS.items() if BACKEND in one.backends]
)


def _test(strategy: str) -> Any:
    @pytest.mark.asyncdb(isolation=strategy)
    @each_scenario
    async def test(name: str, plain: AsyncEngine, asyncdb_engine: AsyncEngine) -> None:
        await compare(name, strategy, plain, asyncdb_engine)

    return test


globals().update({f"test_{strategy}": _test(strategy) for strategy in STRATEGIES})
