"""Notices that a server no longer answers, and says so in the tests that fail because of it.

A server that has ended is noticed by the next statement. A server that is unreachable is not:
no packet arrives, and a statement waits without end. When a test makes no progress for a
while, a new connection asks its server for an answer. If there is none, the test's own
connections are shut down, so that its statement fails. Sockets of the application are never
touched. A run whose servers answer pays nothing per test.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pytest_asyncdb._run.messages import server_lost
from pytest_asyncdb.errors import AsyncdbError, SchemaError

if TYPE_CHECKING:
    from pytest_asyncdb.abc import Backend, Driver, Server

#: Seconds without progress after which the servers are asked.
STUCK = 20.0
#: Seconds in which a server must answer.
ANSWER = 10.0
#: Seconds for which a server that did not answer is not asked again.
_RETRY = 10.0


class ServerProbe:
    """Asks one server whether it answers."""

    def __init__(self, server: Server, backend: Backend, driver: Driver) -> None:
        self._server = server
        self._backend = backend
        self._driver = driver
        self._lock = threading.Lock()
        self._retry_at = 0.0
        #: Why the server was gone the last time it was asked; None: it answered.
        self.error: AsyncdbError | None = None

    def ask(self) -> AsyncdbError | None:
        """Return the error that says that the server is gone, or None if it answers.

        Opens a connection in another thread and waits for the answer. A server that is gone is
        asked again only after some seconds.
        """
        with self._lock:
            if self.error is None or time.monotonic() >= self._retry_at:
                problems: list[BaseException] = [TimeoutError()]
                thread = threading.Thread(target=self._ask, args=(problems,), daemon=True)
                thread.start()
                thread.join(2 * ANSWER)
                self.error = self._lost(problems[0]) if problems else None
                self._retry_at = time.monotonic() + _RETRY
            return self.error

    def _lost(self, problem: BaseException) -> AsyncdbError:
        server = self._server
        silent = isinstance(problem, TimeoutError)
        seen = f"no answer within {ANSWER:g} s" if silent else str(problem)
        where = f"{server.host}:{server.port}"
        return server_lost(self._backend.label, server.provider, where, seen)

    def _ask(self, problems: list[BaseException]) -> None:
        """Ask in this thread; *problems* is empty if the server answers."""
        try:
            asyncio.run(self._query())
            problems.clear()
        except BaseException as error:
            code = self._driver.error_code(getattr(error, "orig", None) or error)
            problems[:] = [] if is_answer(code) else [error]

    async def _query(self) -> None:
        from pytest_asyncdb._databases.connection import AutocommitConnection

        url = self._backend.url(self._server, self._driver.name, None)
        sql = AutocommitConnection(url, self._driver)
        try:
            async with asyncio.timeout(ANSWER):
                await sql.fetch(self._backend.version_query())
        finally:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(ANSWER):
                    await sql.close()


class Watchdog:
    """Asks the servers of this process for an answer when a test makes no progress."""

    def __init__(self) -> None:
        self._probes: dict[object, ServerProbe] = {}
        self._progress = time.monotonic()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        #: The server that the process may be waiting for now, and what ends such a wait.
        self.current: tuple[object, Callable[[], None]] | None = None

    def add(self, key: object, probe: ServerProbe) -> None:
        """Watch another server."""
        self._probes[key] = probe
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._watch, name="asyncdb-liveness", daemon=True
            )
            self._thread.start()

    def progress(self) -> None:
        """Note that a test or the end of the run begins."""
        self._progress = time.monotonic()

    def lost(self, key: object) -> AsyncdbError | None:
        """Return the error that says that the server is gone, or None. Costs a connection."""
        probe = self._probes.get(key)
        return probe.ask() if probe is not None else None

    @contextlib.contextmanager
    def explaining(self, key: object) -> Iterator[None]:
        """Replace an error of work on a server that is gone. Costs nothing while it answers.

        Raises:
            AsyncdbError: The server is gone.
        """
        probe = self._probes.get(key)
        if probe is not None and probe.error and (lost := probe.ask()):
            raise lost
        try:
            yield
        except Exception as error:
            # A template that another worker failed to build arrives as a SchemaError's text.
            clear = isinstance(error, AsyncdbError) and not isinstance(error, SchemaError)
            if not clear and (lost := self.lost(key)):
                raise lost from error
            raise

    def close(self) -> None:
        """End the thread. May be called twice."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(max(1.0, self._progress + STUCK - time.monotonic())):
            if time.monotonic() - self._progress < STUCK:
                continue
            if self.current is not None:
                key, abort = self.current
                if self.lost(key):
                    abort()
            self._end.wait(_RETRY)


def is_answer(code: int | str | None) -> bool:
    """Does an error with this code prove that the server runs?"""
    if isinstance(code, int):
        return 0 < code < 2000  # errors from 2000 on are the client's
    # 57P01 to 57P04: the server is ending or starting. Class 08: connection errors.
    return code is not None and not code.startswith(("57P", "08"))
