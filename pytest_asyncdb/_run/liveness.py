"""Whether the servers of this process still answer.

A server that ends shows at once. One that is only out of reach does not: no packet comes, and a
statement waits for ever. So where a test makes no progress for a while, its servers are asked
over a new connection, and where none answers, the connections to it are cut, which ends
the wait. Where one does, it is asked for what the test waits (``lock_waits.py``). Costs nothing per
test.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_asyncdb._run.messages import server_lost
from pytest_asyncdb.errors import AsyncdbError, SchemaError

if TYPE_CHECKING:
    from pytest_asyncdb._run.lock_waits import LockMonitor
    from pytest_asyncdb.abc import Backend, Driver, Server

#: Seconds without progress after which the servers are asked.
_STUCK = 20.0
#: Seconds in which a server answers.
_ANSWER = 10.0
#: Seconds for which a server that did not answer is not asked again.
_LOST = 10.0


class ServerProbe:
    """Whether one server answers."""

    def __init__(self, server: Server, backend: Backend, driver: Driver) -> None:
        self._server = server
        self._backend = backend
        self._driver = driver
        self._lock = threading.Lock()
        self._lost: tuple[float, AsyncdbError] | None = None

    @property
    def doubtful(self) -> bool:
        """Was it gone when it was asked the last time?"""
        return self._lost is not None

    def ask(self) -> AsyncdbError | None:
        """Is it gone? Asks it a question in a thread of its own, and waits for the answer.

        Once it is gone it is asked now and then only.
        """
        with self._lock:
            if self._lost is not None and time.monotonic() - self._lost[0] < _LOST:
                return self._lost[1]
            problem: list[BaseException] = []
            thread = threading.Thread(target=self._try, args=(problem,), daemon=True)
            thread.start()
            thread.join(2 * _ANSWER)
            if thread.is_alive():
                problem.append(TimeoutError())
            if problem:
                return self._found(problem[0])
            self._lost = None
            return None

    def cut(self) -> None:
        """End this process's connections to the server, whoever has opened them."""
        cut(self._server)

    def _found(self, error: BaseException) -> AsyncdbError:
        where = f"{self._server.host}:{self._server.port}"
        said = f"no answer within {_ANSWER:g} s" if isinstance(error, TimeoutError) else str(error)
        lost = server_lost(self._backend.label, self._server.provider, where, said)
        self._lost = time.monotonic(), lost
        return lost

    def _try(self, problem: list[BaseException]) -> None:
        try:
            asyncio.run(self._question())
        except BaseException as error:
            if not _is_answer(self._driver.error_code(getattr(error, "orig", None) or error)):
                problem.append(error)

    async def _question(self) -> None:
        from pytest_asyncdb._databases.connection import AutocommitConnection

        url = self._backend.url(self._server, self._driver.name, None)
        sql = AutocommitConnection(url, self._driver)
        try:
            async with asyncio.timeout(_ANSWER):
                await sql.fetch(self._backend.version_query())
        except TimeoutError:
            self.cut()  # or the end of the connection would wait, too
            raise
        finally:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_ANSWER):
                    await sql.close()


class Watchdog:
    """Looks after the servers that this process uses, while it makes no progress."""

    def __init__(self) -> None:
        self._pulses: dict[object, ServerProbe] = {}
        self._progress = time.monotonic()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        #: Knows the waits of the test that runs; None: none of ours does.
        self.lookout: LockMonitor | None = None

    def add(self, key: object, pulse: ServerProbe) -> None:
        """From now on look after this server too."""
        self._pulses[key] = pulse
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="asyncdb-pulse", daemon=True)
            self._thread.start()

    def progress(self) -> None:
        """A test begins, or the end of the run."""
        self._progress = time.monotonic()

    def lost(self, key: object) -> AsyncdbError | None:
        """The server is gone, or None; costs a connection."""
        pulse = self._pulses.get(key)
        return pulse.ask() if pulse is not None else None

    @contextlib.contextmanager
    def explaining(self, key: object) -> Iterator[None]:
        """Around work on a server: costs nothing while it is there.

        Raises:
            AsyncdbError: It is gone, as it was before, or as it shows now that the work failed.
        """
        pulse = self._pulses.get(key)
        if pulse is not None and pulse.doubtful and (lost := pulse.ask()):
            raise lost
        try:
            yield
        except AsyncdbError as error:
            # A template may have failed in another worker, which tells its error's text only.
            if isinstance(error, SchemaError) and (lost := self.lost(key)):
                raise lost from error
            raise
        except Exception as error:
            if lost := self.lost(key):
                raise lost from error
            raise

    def close(self) -> None:
        """May be called twice."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        # An answer given to somebody else does not mean progress: asked again and again.
        while not self._end.wait(max(1.0, self._progress + _STUCK - time.monotonic())):
            if time.monotonic() - self._progress < _STUCK:
                continue
            for pulse in list(self._pulses.values()):
                if pulse.ask() is not None:
                    pulse.cut()
            lookout = self.lookout
            soon = None if lookout is None else lookout.look(_STUCK)
            self._end.wait(_LOST if soon is None else min(_LOST, soon))


def _is_answer(code: int | str | None) -> bool:
    """Does the error come from a server that is there, such as one with no room for more?"""
    if isinstance(code, int):
        return 0 < code < 2000  # from 2000 on they are the client's own
    # 57P01 to 57P04: it is ending or starting. 08: no connection.
    return code is not None and not code.startswith(("57P", "08"))


def in_time(
    server: Server, seconds: float | None = None
) -> contextlib.AbstractContextManager[None]:
    """Around work that waits for answers of *server*: its connections are cut if it takes longer.

    Args:
        seconds: None: as long as one answer may take.
    """
    from pytest_asyncdb._system.deadline import alarm

    return alarm(_ANSWER if seconds is None else seconds, cut, server)


def cut(server: Server) -> None:
    """End the connections of this process to a server, on whatever thread they are used.

    A socket that is shut down ends every wait for it; its owner closes it.
    """
    with contextlib.suppress(OSError):
        found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
        places = {address[:2] for *_, address in found}
        folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"  # noqa: PTH112
        for name in os.listdir(folder):  # noqa: PTH208
            with contextlib.suppress(OSError, ValueError):
                number = os.dup(int(name))
                try:
                    peer = socket.socket(fileno=number)
                except OSError:
                    os.close(number)
                    continue
                with peer:
                    if peer.getpeername()[:2] in places:
                        peer.shutdown(socket.SHUT_RDWR)
