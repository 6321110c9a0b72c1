"""When a server is ready: it answers a query over the real driver.

Shared by the providers; knows nothing of how a server is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_asyncdb._types import Server
    from pytest_asyncdb.abc import Backend, Driver

#: Seconds between two tries.
_PAUSE = 0.03
#: Seconds after which the user is told what is being waited for.
_PATIENCE = 3.0


class NotReady(Exception):  # noqa: N818  # a state rather than a failure
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
) -> str:
    """Ask until the server answers; returns what it says to ``version_query()``.

    Runs an event loop of its own in the calling thread.

    Args:
        seconds: How long to ask.
        check: Called after each failed try; raises where asking on is of no use.
        final: Does this error say that asking on is of no use?

    Raises:
        NotReady: No answer in time, or a final error.
    """
    return asyncio.run(_ask(server, backend, driver, seconds, check, final))


async def _ask(
    server: Server,
    backend: Backend,
    driver: Driver,
    seconds: float,
    check: Callable[[], None],
    final: Callable[[BaseException], bool],
) -> str:
    from sqlalchemy import text
    from sqlalchemy.exc import ArgumentError
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    began = time.monotonic()
    engine = create_async_engine(
        backend.url(server, driver.name, None),
        poolclass=NullPool,
        connect_args=dict(driver.connect_args()),
    )

    async def ask() -> str:
        async with engine.connect() as connection:
            return str(await connection.scalar(text(backend.version_query())))

    try:
        while True:
            left = began + seconds - time.monotonic()
            try:
                return await asyncio.wait_for(ask(), left)
            except Exception as error:
                # A package that a driver needs for some way of logging in is missing.
                hopeless = isinstance(error, (ImportError, ArgumentError)) or (
                    isinstance(error, RuntimeError) and "cryptography" in str(error)
                )
                passed = time.monotonic() - began
                if hopeless or final(error) or passed >= seconds:
                    raise NotReady(passed, error) from error
            check()
            await asyncio.sleep(_PAUSE)
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


@contextlib.contextmanager
def patience(progress: Callable[[str], None], line: str) -> Iterator[None]:
    """Give the user *line* if what is inside takes long."""
    timer = threading.Timer(_PATIENCE, progress, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
