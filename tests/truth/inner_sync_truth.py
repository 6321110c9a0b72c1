"""The inner run of the sync side: each scenario on a plain engine with a sync driver, then on
``asyncdb_sync_engine``; both answers to a file.

Copied into a project by test_truth.py as ``test_inner.py``.
"""

from __future__ import annotations

import gc
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sync_scenarios  # noqa: F401
from sqlalchemy import Engine, create_engine, event, select, text
from sqlalchemy.orm import sessionmaker
from stage import Base, Item, Scenario, Ticket, User, Versioned
from sync_stage import SYNC_SCENARIOS, SyncStage, describe_sync

from pytest_asyncdb.isolation.rollback import Rollback

BACKEND = os.environ["TRUTH_BACKEND"]
DRIVER = os.environ["TRUTH_DRIVER"]
URL = os.environ["TRUTH_URL"]
STRATEGIES = os.environ["TRUTH_STRATEGIES"].split(",")
FOUND = Path(os.environ["TRUTH_FOUND"])

#: Seconds; what waits for another unit of work ends with the error in any case.
Rollback.turn = 1.0

#: What each scenario saw on the plain engine.
PLAIN: dict[str, list[Any]] = {}


def plain_engine() -> Engine:
    """What an application has: SQLAlchemy's defaults, and foreign keys on SQLite."""
    engine = create_engine(URL)
    if BACKEND == "sqlite":

        @event.listens_for(engine, "connect")
        def enforce(connection: Any, record: Any) -> None:
            connection.execute("PRAGMA foreign_keys = ON")

    return engine


def play(scenario: Scenario, engine: Engine) -> list[Any]:
    """What the scenario saw, and what a fresh connection sees afterwards."""
    sessions = sessionmaker(engine, expire_on_commit=False)
    stage = SyncStage(engine, sessions, BACKEND)
    log = stage.log
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            scenario.run(stage)
        except Exception as error:
            log.append(["escaped", describe_sync(error)])
        try:
            with engine.connect() as connection:
                for table in (User, Item, Versioned):
                    query = select(table.__table__).order_by(table.key)
                    rows = connection.execute(query).all()
                    log.append([table.__tablename__, [list(row) for row in rows]])
                rows = connection.execute(select(Ticket.text).order_by(Ticket.id)).all()
                log.append(["truth_ticket", [row[0] for row in rows]])
        except Exception as error:
            log.append(["afterwards", describe_sync(error)])
    del stage, sessions
    gc.collect()  # here: what a scenario has left open ends in its own test
    return log


@pytest.fixture(scope="module", autouse=True)
def tables() -> None:
    engine = plain_engine()
    Base.metadata.create_all(engine)
    engine.dispose()
    gc.freeze()  # else each collection looks at all that is imported


@pytest.fixture
def plain(name: str) -> Iterator[Engine | None]:
    """An engine on the naive database, which is empty; None: its answer is known already."""
    if name in PLAIN:
        yield None
        return
    engine = plain_engine()
    yield engine
    engine.dispose()
    engine = plain_engine()
    with engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(text(f"DELETE FROM {table.name}"))
    engine.dispose()


def _test(strategy: str) -> Any:
    @pytest.mark.asyncdb(isolation=strategy)
    @pytest.mark.parametrize(
        "name", [name for name, one in SYNC_SCENARIOS.items() if BACKEND in one.backends]
    )
    def test(name: str, plain: Engine | None, asyncdb_sync_engine: Engine) -> None:
        scenario = SYNC_SCENARIOS[name]
        if plain is not None:
            PLAIN[name] = play(scenario, plain)
        answers = {
            "scenario": name,
            "strategy": strategy,
            "limit": scenario.limit(strategy, f"{BACKEND}+{DRIVER}"),
            "plain": PLAIN[name],
            "here": play(scenario, asyncdb_sync_engine),
        }
        with FOUND.open("a", encoding="utf-8") as file:
            file.write(json.dumps(answers) + "\n")

    return test


globals().update({f"test_{strategy}": _test(strategy) for strategy in STRATEGIES})
