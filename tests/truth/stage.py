"""What a scenario gets: an engine, a sessionmaker, tables, and a log of what it saw."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, ClassVar

from sqlalchemy import ForeignKey, MetaData, String, select
from sqlalchemy.ext.asyncio import AsyncAttrs, AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

SERVERS = ("postgres", "mysql", "mariadb")
STRATEGIES = ("rollback", "reset", "copy")


class Base(AsyncAttrs, DeclarativeBase):
    metadata = MetaData()


class User(Base):
    __tablename__ = "truth_user"
    key: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    score: Mapped[int] = mapped_column(default=0)
    items: Mapped[list[Item]] = relationship(
        back_populates="user", cascade="all, delete-orphan", order_by="Item.key"
    )


class Item(Base):
    __tablename__ = "truth_item"
    key: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    user_key: Mapped[int] = mapped_column(ForeignKey("truth_user.key"))
    label: Mapped[str | None] = mapped_column(String(20))
    user: Mapped[User] = relationship(back_populates="items")


class Ticket(Base):
    """A key that the database gives."""

    __tablename__ = "truth_ticket"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(String(50))


class Versioned(Base):
    __tablename__ = "truth_versioned"
    key: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[int]
    version: Mapped[int] = mapped_column()
    __mapper_args__: ClassVar[Any] = {"version_id_col": version}


def describe(error: BaseException) -> str:
    """Class of an exception, class and code of the driver's one behind it."""
    cause = driver_error(error)
    if cause is None:
        return type(error).__name__
    return f"{type(error).__name__}({type(cause).__name__} {code_of(cause)})"


def driver_error(error: BaseException) -> BaseException | None:
    """The driver's exception behind one of SQLAlchemy's."""
    original: BaseException | None = getattr(error, "orig", None)
    if original is not None and type(original).__module__.startswith("sqlalchemy"):
        return original.__cause__ or original
    return original


def code_of(cause: BaseException) -> str | int | None:
    """The server's code of a driver's exception."""
    code = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None)
    if code is None and cause.args and isinstance(cause.args[0], int):
        return cause.args[0]
    return code


@dataclasses.dataclass
class Stage:
    """One run of a scenario.

    Args:
        engine: A plain engine, or the plugin's.
        sessions: What the application would have: ``expire_on_commit=False``.
        backend: ``sqlite``, ``postgres``, ``mysql`` or ``mariadb``.
        driver: For example ``asyncpg``.
    """

    engine: AsyncEngine
    sessions: async_sessionmaker[AsyncSession]
    backend: str
    driver: str
    log: list[Any] = dataclasses.field(default_factory=list)

    def note(self, *values: Any) -> None:
        """Add what the scenario has seen; lists are compared in order."""
        self.log.append([plain(value) for value in values])

    async def attempt(self, label: str, work: Awaitable[Any]) -> Any:
        """Await *work* and note what comes of it: a value, or an exception's class and code."""
        try:
            value = await work
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self.log.append([label, "raised", describe(error)])
            return None
        self.log.append([label, plain(value)])
        return value

    @contextlib.contextmanager
    def attempting(self, label: str) -> Iterator[None]:
        """The same for a block."""
        try:
            yield
        except Exception as error:
            self.log.append([label, "raised", describe(error)])
        else:
            self.log.append([label, "passed"])

    async def gather(self, *work: Awaitable[Any]) -> None:
        """Run side by side; note what comes of each, in the order of the arguments."""
        results = await asyncio.gather(*work, return_exceptions=True)
        for number, result in enumerate(results):
            shown = describe(result) if isinstance(result, BaseException) else plain(result)
            self.log.append([f"task {number}", shown])

    async def users(self) -> list[Any]:
        """The names in the table, seen by a connection of its own."""
        async with self.engine.connect() as connection:
            rows = await connection.execute(select(User.name, User.score).order_by(User.key))
            return [tuple(row) for row in rows]

    async def add(self, *names: str, start: int = 1) -> None:
        """Commit users with the keys start, start + 1, ..."""
        async with self.sessions.begin() as session:
            session.add_all(User(key=start + n, name=name) for n, name in enumerate(names))


def plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(one) for one in value]
    if hasattr(value, "_mapping"):
        return [plain(one) for one in value]
    return (
        str(value)
        if type(value).__module__ in ("decimal", "datetime", "uuid")
        else type(value).__name__
    )


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A coroutine over a stage, and where the plugin's answer differs by design."""

    name: str
    run: Callable[[Stage], Awaitable[None]]
    backends: tuple[str, ...]
    limits: tuple[Limit, ...] = ()

    def limit(self, strategy: str, word: str) -> str | None:
        """The limit that holds in a strategy on a backend and driver, such as ``sqlite``."""
        for limit in self.limits:
            backend, _, driver = word.partition("+")
            if strategy in limit.strategies and {backend, driver} & set(limit.words):
                return limit.heading
        return None


@dataclasses.dataclass(frozen=True)
class Limit:
    """A difference by design.

    Args:
        heading: The first words of the limit in docs/isolation.md.
        strategies: Where it holds.
        words: Backends or drivers in which it shows in this scenario.
    """

    heading: str
    strategies: Sequence[str] = ("rollback",)
    words: Sequence[str] = ("sqlite", *SERVERS)


def scenario_table() -> tuple[dict[str, Scenario], Callable[..., Callable[[Any], Any]]]:
    """A table of scenarios, and the decorator that registers one in it."""
    scenarios: dict[str, Scenario] = {}

    def scenario(*backends: str, limits: Sequence[Limit] = ()) -> Callable[[Any], Any]:
        """Register a scenario.

        Args:
            backends: Where it runs; none: everywhere.
        """

        def register(run: Any) -> Any:
            words = backends or ("sqlite", *SERVERS)
            scenarios[run.__name__] = Scenario(run.__name__, run, words, tuple(limits))
            return run

        return register

    return scenarios, scenario


SCENARIOS, scenario = scenario_table()
