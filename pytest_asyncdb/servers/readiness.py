"""When a server is ready: it answers a query over the real driver.

Shared by the providers; knows nothing of how a server is started.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pytest_asyncdb._engines.build_engine import DIALECTS, OURS
from pytest_asyncdb._system.deadline import alarm

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from pytest_asyncdb.abc import Backend, Driver, Server

#: Seconds after which the user is told what is being waited for.
_PATIENCE = 3.0
#: Seconds between two looks at a server that lets a try hang.
_LOOK = 0.5


class NotReady(Exception):
    """The server did not answer.

    Args:
        seconds: How long it was asked.
        error: What the last try said.
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
    """Ask until the server answers; returns what it says to ``version_query()``.

    Runs an event loop of its own in the calling thread.

    Args:
        seconds: How long to ask.
        check: Called during and after each try; raises where asking on is of no use.
        final: Does this error say that asking on is of no use?
        pause: Seconds between two tries.

    Raises:
        NotReady: No answer in time, or a final error.
    """
    from sqlalchemy.exc import ArgumentError

    def hopeless(error: BaseException) -> bool:
        # The last one: a package that a driver needs for some way of logging in.
        return isinstance(error, (ImportError, ArgumentError)) or (
            isinstance(error, RuntimeError) and "cryptography" in str(error)
        )

    began = time.monotonic()
    try:
        engine = _engine(server, backend, driver)
    except (ImportError, ArgumentError) as error:
        raise NotReady(0.0, error) from error
    return asyncio.run(
        _ask(
            engine,
            backend.version_query(),
            began + seconds,
            check,
            lambda error: hopeless(error) or final(error),
            pause,
        )
    )


def run(server: Server, backend: Backend, driver: Driver, statement: str) -> None:
    """Run one statement on a server that is ready, on an event loop of its own."""

    async def once() -> None:
        engine = _engine(server, backend, driver)
        try:
            async with engine.begin() as connection:
                await connection.exec_driver_sql(statement)
        finally:
            await engine.dispose()

    asyncio.run(once())


def _engine(server: Server, backend: Backend, driver: Driver) -> AsyncEngine:
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    url = backend.url(server, driver.name, None)
    with DIALECTS:
        url.get_dialect()
    return create_async_engine(
        url,
        poolclass=NullPool,
        execution_options={OURS: True},  # tests of another backend may run meanwhile
    )


async def _ask(
    engine: AsyncEngine,
    query: str,
    until: float,
    check: Callable[[], None],
    final: Callable[[BaseException], bool],
    pause: float,
) -> str:
    from sqlalchemy import text

    began = time.monotonic()
    last: BaseException = TimeoutError("the connection hangs")

    async def ask() -> str:
        async with engine.connect() as connection:
            return str(await connection.scalar(text(query)))

    async def wait(task: asyncio.Task[str]) -> None:
        # Whatever else listens on the port may take the connection and say nothing.
        try:
            while not task.done():
                left = until - time.monotonic()
                if left <= 0:
                    raise NotReady(time.monotonic() - began, last)
                await asyncio.wait([task], timeout=min(left, _LOOK))
                check()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=_LOOK)
            if task.done() and not task.cancelled():
                task.exception()  # seen, or asyncio reports it when it is collected

    try:
        while True:
            task = asyncio.create_task(ask())
            await wait(task)
            error = task.exception()
            if error is None:
                return task.result()
            last = error
            if final(error) or time.monotonic() >= until:
                raise NotReady(time.monotonic() - began, error) from error
            await asyncio.sleep(pause)
    finally:
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


def patience(progress: Callable[[str], None], line: str) -> AbstractContextManager[None]:
    """Give the user *line* if what is inside takes long."""
    return alarm(_PATIENCE, progress, line)
