"""Wait until a server is ready, which means that it answers a query over the real driver.

Also: is its version what was asked for? Shared by the providers; how a server is started is not
known here.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pytest_asyncdb._engines.build_engine import OURS, build_engine
from pytest_asyncdb._system.deadline import alarm

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from pytest_asyncdb.abc import Backend, Driver, Server

#: Seconds after which the user reads what the run waits for.
_PATIENCE = 3.0
#: Seconds between two checks of a server that lets an attempt hang.
_CHECK = 0.5


class NotReady(Exception):
    """The server did not answer.

    Args:
        seconds: How long it was asked.
        error: The error of the last attempt.
    """

    def __init__(self, seconds: float, error: BaseException) -> None:
        super().__init__(f"no answer to a query within {seconds:.1f} s; {describe(error)}")
        self.seconds = seconds
        self.error = error


def wait_until_ready(
    server: Server,
    backend: Backend,
    driver: Driver,
    seconds: float,
    check: Callable[[], None] = lambda: None,
    final: Callable[[BaseException], bool] = lambda error: False,
    pause: float = 0.03,
) -> str:
    """Ask until the server answers; returns its answer to ``version_query()``.

    Runs an event loop of its own in the calling thread.

    Args:
        seconds: How long to ask.
        check: Called after each attempt and during long ones; raises if more attempts are useless.
        final: Does this error mean that more attempts are useless?
        pause: Seconds between two attempts.

    Raises:
        NotReady: No answer in time, or a final error.
    """
    from sqlalchemy.exc import ArgumentError
    from sqlalchemy.pool import NullPool

    def useless(error: BaseException) -> bool:
        # The last one: a package that a driver needs for some ways to log in.
        missing = isinstance(error, RuntimeError) and "cryptography" in str(error)
        return missing or isinstance(error, (ImportError, ArgumentError)) or final(error)

    try:
        engine = build_engine(
            backend.url(server, driver.name, None),
            poolclass=NullPool,
            execution_options={OURS: True},  # tests of another backend may run meanwhile
        )
    except (ImportError, ArgumentError) as error:
        raise NotReady(0.0, error) from error
    return asyncio.run(_ask(engine, backend.version_query(), seconds, check, useless, pause))


async def _ask(
    engine: AsyncEngine,
    query: str,
    seconds: float,
    check: Callable[[], None],
    useless: Callable[[BaseException], bool],
    pause: float,
) -> str:
    from sqlalchemy import text

    began = time.monotonic()
    last: BaseException = TimeoutError("the connection hangs")

    async def attempts() -> str:
        nonlocal last
        while True:
            try:
                async with engine.connect() as connection:
                    return str(await connection.scalar(text(query)))
            except Exception as error:
                last = error
            check()
            if useless(last):
                raise NotReady(time.monotonic() - began, last)
            await asyncio.sleep(pause)

    async def checks() -> str:
        # Another program on the port may accept the connection and never answer.
        while True:
            await asyncio.sleep(_CHECK)
            check()

    tasks = {asyncio.create_task(attempts()), asyncio.create_task(checks())}
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise NotReady(time.monotonic() - began, last)
        return done.pop().result()
    finally:
        for task in tasks:
            task.cancel()
        done, _ = await asyncio.wait(tasks, timeout=_CHECK)
        for task in done:
            if not task.cancelled():
                task.exception()  # else asyncio reports it as never retrieved
        await engine.dispose()


def describe(error: BaseException) -> str:
    """The driver's own error on one line, without SQLAlchemy's frame."""
    original = getattr(error, "orig", None) or error
    # SQLAlchemy's adapters put the class of the driver's error into the text.
    text = re.sub(r"^<class '[\w.]+'>: ", "", " ".join(str(original).split()))
    return f"{type(original).__name__}: {text}" if text else type(original).__name__


def fits(version: str, wanted: str | None) -> bool:
    """Is *version* of the version that was asked for? ``17.11`` is ``17``, but not ``1``."""
    return wanted is None or f"{version}.".startswith(f"{wanted}.")


def too_old(version: str, oldest: str) -> bool:
    """Is *version* older than the oldest one that works, such as ``9.6.24`` than ``14``?"""
    numbers, needed = ([int(n) for n in re.findall(r"\d+", words)] for words in (version, oldest))
    return bool(numbers) and numbers[: len(needed)] < needed


def patience(progress: Callable[[str], None], line: str) -> AbstractContextManager[None]:
    """Show the user *line* if the block takes long."""
    return alarm(_PATIENCE, progress, line)
