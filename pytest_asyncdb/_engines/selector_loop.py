"""Event loops and threads for the plugin's work outside of tests, such as dropping databases.

The loop is always a selector loop: psycopg refuses the default loop of Windows, which cannot watch
sockets. The loop policy is not used, because it belongs to the application.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from pytest_asyncdb._engines.asyncio_internals import SteadyLoop

T = TypeVar("T")


def runner() -> asyncio.Runner:
    """Return an ``asyncio.Runner()`` with a selector loop."""
    return asyncio.Runner(loop_factory=SteadyLoop)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run *work* like ``asyncio.run()``, with a selector loop."""
    with runner() as one:
        return one.run(work)


def in_thread(work: Callable[[], T], name: str) -> Future[T]:
    """Call *work* in a thread, which does not keep the process from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=f"asyncdb-{name}", daemon=True).start()
    return future
