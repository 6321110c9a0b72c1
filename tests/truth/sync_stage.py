"""What a scenario for sync code gets: the sync side of the judge. Tables and limits are shared."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session, sessionmaker
from stage import User, code_of, driver_error, plain, scenario_table


def describe_sync(error: BaseException) -> str:
    """Class of an exception and code of the driver's one behind it, whose class differs between a
    sync and an async driver."""
    cause = driver_error(error)
    name = type(error).__name__
    if cause is None:
        return name
    code = code_of(cause)
    if code == "25P02":  # SQLAlchemy's class is InternalError on psycopg, but not on asyncpg
        name = "DBAPIError"
    return f"{name}({code})"


@dataclasses.dataclass
class SyncStage:
    """One run of a scenario.

    Args:
        engine: A plain engine on a sync driver, or ``asyncdb_sync_engine``.
        sessions: What the application would have: ``expire_on_commit=False``.
        backend: ``sqlite``, ``postgres``, ``mysql`` or ``mariadb``.
    """

    engine: Engine
    sessions: sessionmaker[Session]
    backend: str
    log: list[Any] = dataclasses.field(default_factory=list)

    def note(self, *values: Any) -> None:
        """Add what the scenario has seen; lists are compared in order."""
        self.log.append([plain(value) for value in values])

    def attempt(self, label: str, work: Callable[..., Any], *args: Any) -> Any:
        """Call *work* and note what comes of it: a value, or an exception's class and code."""
        try:
            value = work(*args)
        except Exception as error:
            self.log.append([label, "raised", describe_sync(error)])
            return None
        self.log.append([label, plain(value)])
        return value

    @contextlib.contextmanager
    def attempting(self, label: str) -> Iterator[None]:
        """The same for a block."""
        try:
            yield
        except Exception as error:
            self.log.append([label, "raised", describe_sync(error)])
        else:
            self.log.append([label, "passed"])

    def in_thread(self, work: Callable[[], Any]) -> None:
        """Run *work* in a thread, and wait for its end."""
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    def users(self) -> list[Any]:
        """The rows of the table, seen by a connection of its own."""
        with self.engine.connect() as connection:
            rows = connection.execute(select(User.name, User.score).order_by(User.key))
            return [tuple(row) for row in rows]

    def add(self, *names: str, start: int = 1) -> None:
        """Commit users with the keys start, start + 1, ..."""
        with self.sessions.begin() as session:
            session.add_all(User(key=start + n, name=name) for n, name in enumerate(names))


SYNC_SCENARIOS, sync_scenario = scenario_table()
