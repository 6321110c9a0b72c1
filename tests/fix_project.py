"""Small downstream projects and pytest runs in them.

``project`` writes a package with tables, an ini file as real projects have it, and the
tests that it is given; then it runs pytest in the same process, or in another one where
workers, signals or the start itself are the matter. The outside observer looks at the
database after every test of such a run.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import os
import pkgutil
import re
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Loaded here once: pytester forgets what an inner run was the first to import, which costs
# time, and C extensions do not like to be imported again.
import aiomysql  # noqa: F401
import aiosqlite  # noqa: F401
import alembic.command
import alembic.context  # noqa: F401
import anyio.pytest_plugin  # noqa: F401
import asyncmy  # noqa: F401
import asyncpg  # noqa: F401
import docker  # noqa: F401
import hypothesis  # noqa: F401
import mako.template  # noqa: F401
import psycopg  # noqa: F401
import pytest
import sqlalchemy.dialects.mysql.aiomysql
import sqlalchemy.dialects.mysql.asyncmy
import sqlalchemy.dialects.postgresql.asyncpg
import sqlalchemy.dialects.postgresql.psycopg
import sqlalchemy.dialects.sqlite.aiosqlite
import sqlalchemy.ext.asyncio  # noqa: F401
import testcontainers.core.container  # noqa: F401
import uvloop  # noqa: F401
from fix_observer import Watch, left_behind
from fix_servers import Target

import pytest_asyncdb

for _module in pkgutil.walk_packages(pytest_asyncdb.__path__, "pytest_asyncdb."):
    importlib.import_module(_module.name)

#: Two tables, one below the other; no defaults, so that a row is what a test wrote.
MODELS = """
from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)


class Post(Base):
    __tablename__ = "posts"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    text: Mapped[str] = mapped_column(String(200))
"""

#: What every file of tests begins with.
HEAD = """
import asyncio
import threading

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.models import Base, Post, User


async def names(session):
    return list((await session.scalars(select(User.name).order_by(User.name))).all())


async def add(session, *words):
    await session.execute(insert(User), [{"name": word} for word in words])
"""

INI = {
    "asyncdb_metadata": "app.models:Base",
    "asyncio_mode": "auto",
    "asyncio_default_fixture_loop_scope": "function",
    "pythonpath": ".",
    "filterwarnings": "error",
}


_ERROR = re.compile(r"^(E(?=\s|$)\s*)?(pytest_asyncdb\.errors\.\w+: )?")


#: Seconds that gc.collect() after an inner run may take.
_SLOW = 0.02


class Garbage:
    """gc.collect() after each inner run, which need not look at what stays."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def collect(self) -> None:
        began = time.perf_counter()
        gc.collect()
        self._seconds = time.perf_counter() - began

    def keep(self) -> None:
        """What is there now stays there: call it while no inner run is."""
        if self._seconds > _SLOW:
            gc.collect()
            gc.freeze()
            self._seconds = 0.0


GARBAGE = Garbage()


def pytest_collection_finish() -> None:
    GARBAGE.collect()
    GARBAGE.keep()


@dataclasses.dataclass
class Outcome:
    """How an inner run went.

    Args:
        result: What pytester says.
        watch: What the observer saw; nothing in another process.
    """

    result: pytest.RunResult
    watch: Watch

    def passed(self, number: int) -> Outcome:
        """Check that *number* tests passed, none did anything else, and nothing leaked."""
        return self.had(passed=number)

    def had(self, **outcomes: int) -> Outcome:
        """Check the outcomes, and that the observer saw nothing that leaked."""
        self.result.assert_outcomes(**outcomes)
        self.untouched()
        return self

    def untouched(self) -> Outcome:
        """Check that the observer saw the template's tables after every test."""
        assert self.watch.leaks == {}
        return self

    @property
    def text(self) -> str:
        return str(self.result.stdout)

    def shows(self, text: str) -> Outcome:
        """Check that the output holds *text* as one block, in whatever way it is indented."""
        lines = [line.strip() for line in textwrap.dedent(text).strip().splitlines()]
        # Before an error that a test raised stands its class, before each line maybe "E   ".
        found = [_ERROR.sub("", line).strip() for line in self.result.outlines]
        window = range(len(found) - len(lines) + 1)
        assert any(found[n : n + len(lines)] == lines for n in window), "\n".join(found)
        return self


class Project:
    """A downstream project in a folder of its own."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path: Path = pytester.path
        self._ini: dict[str, str | None] = dict(INI)
        self.write("app/__init__.py", "")
        self.write("app/models.py", MODELS)
        self.ini()

    def write(self, name: str, text: str) -> None:
        """Write a file; the text may be indented."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")

    def ini(self, **values: str | None) -> None:
        """Change lines of ``pytest.ini``; None leaves one out."""
        self._ini.update(values)
        lines = [f"{key} = {value}" for key, value in self._ini.items() if value]
        self.write("pytest.ini", "[pytest]\n" + "\n".join(lines) + "\n")

    def tests(self, *parts: str, name: str = "test_it.py") -> None:
        """Write a file of tests below the usual imports; *parts* may each be indented."""
        self.write(name, "\n\n".join([HEAD, *map(textwrap.dedent, parts)]))

    def place(self, code: str, function: str, name: str = "test_it.py", after: str = "") -> str:
        """Where the line *code* first stands in a file of tests, as our errors say it; *after*: a
        line that begins so."""
        lines = (self.path / name).read_text(encoding="utf-8").splitlines()
        first = next(n for n, line in enumerate(lines) if line.startswith(after))
        number = next(n for n in range(first, len(lines)) if lines[n].strip() == code) + 1
        return f"{name}:{number} in {function}"

    def run(
        self,
        target: Target,
        *arguments: str,
        expected: Mapping[str, Sequence[Any]] | None = None,
        plugins: Sequence[object] = (),
    ) -> Outcome:
        """Run pytest in this process, the observer looking on.

        Args:
            arguments: More of the command line.
            expected: Every table of the template with its rows; the default: ours, empty.
        """
        tables = {"posts": [], "users": []} if expected is None else expected
        watch = Watch(target.observer, tables)
        result = self.pytester.runpytest_inprocess(
            *(*QUIET, *target.arguments, *arguments), plugins=[watch, *plugins]
        )
        GARBAGE.collect()  # what an inner run left behind warns here, not in a later test
        made = {url.database for url in watch.urls.values()}
        assert target.observer.databases() & made == set()
        return Outcome(result, watch)

    def run_apart(self, target: Target, *arguments: str, timeout: float = 120) -> Outcome:
        """Run pytest in another process: for workers, signals, exit codes."""
        result = self.pytester.run(
            *(sys.executable, "-m", "pytest", *QUIET, "-p", "run_id"),
            *(*target.arguments, *arguments),
            timeout=timeout,
        )
        assert left_behind(target.observer, str(result.stdout)) == set()
        return Outcome(result, Watch(target.observer, {}))


#: The folder of plugins for inner runs in another process.
INNER = Path(__file__).with_name("inner")

#: Other plugins that may be installed here are not the matter; tests run as written. Those
#: of Hypothesis and Faker import what takes every process of an inner run a second or two.
WITHOUT = (
    *("-p", "no:timeout", "-p", "no:socket"),
    *("-p", "no:randomly", "-p", "no:cacheprovider"),
    *("-p", "no:hypothesispytest", "-p", "no:faker", "-p", "no:pytest_alembic"),
)
#: For its own tracebacks pytest parses the whole source of each frame, which takes longer than
#: most inner runs; "--tb=auto" has them back.
QUIET = (*WITHOUT, "--color=no", "-ra", "--tb=native")
#: Variables that pytest reads; on what it takes for a CI its summary repeats whole errors.
PYTESTS = ("PYTEST_ADDOPTS", "CI", "BUILD_NUMBER")


@contextmanager
def naive_database(project: Project, target: Target) -> Iterator[str]:
    """The URL of a database for a control, which keeps its tests apart by itself, or not."""
    if target.server is None:
        yield f"sqlite+aiosqlite:///{project.path / 'control.db'}"
        return
    name = f"naive_control_{os.getpid()}"
    with target.observer.throw_away(name):
        yield target.server.set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A downstream project that names its metadata and nothing else of ours."""
    GARBAGE.keep()
    for name in list(os.environ):
        if name.startswith("ASYNCDB_") or name in PYTESTS:
            monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(INNER))
    # That of anyio imports trio; "-p anyio" has it back.
    monkeypatch.setenv("PYTEST_ADDOPTS", " ".join((*WITHOUT, "-p", "no:anyio")))
    return Project(pytester)
