"""Event loops and threads for the plugin's work outside of tests, such as dropping databases.

The loop is always a selector loop: psycopg refuses the default loop of Windows, which cannot watch
sockets. The loop policy is not used, because it belongs to the application.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class _Loop(asyncio.SelectorEventLoop):
    """Tests run meanwhile. If one freezes the time with freezegun, a sleep that begins then would
    not end, so the clock is where freezegun does not replace it: in a class.
    """

    time = staticmethod(time.monotonic)


def runner() -> asyncio.Runner:
    """Return an ``asyncio.Runner()`` with a selector loop."""
    return asyncio.Runner(loop_factory=_Loop)


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
