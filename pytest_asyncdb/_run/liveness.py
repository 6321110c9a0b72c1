"""Reports that a server is gone, in the tests that fail for that reason.

After an error, a new connection asks the server for an answer. While the servers answer, this costs
nothing. A server that does not answer at all, because the network is down for example, raises no
error. Then the limit is the driver's timeout or pytest-timeout's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

from pytest_asyncdb._engines import selector_loop
from pytest_asyncdb._run.messages import server_lost
from pytest_asyncdb.abc import Backend, Driver, Server
from pytest_asyncdb.errors import AsyncdbError, SchemaError

#: Seconds within which a server must answer.
ANSWER = 10.0
#: Seconds for which a server that did not answer is not asked again.
_RETRY = 10.0


def ask(server: Server, backend: Backend, driver: Driver) -> AsyncdbError | None:
    """Return the error that says that *server* is gone, or None if it answers.

    Opens a connection in another thread, because a loop may run in this thread. Blocks.
    """
    query = _query(server, backend, driver)
    try:
        selector_loop.in_thread(lambda: selector_loop.run(query), "ask").result(2 * ANSWER)
        return None
    except TimeoutError:
        seen = f"no answer within {ANSWER:g} s"
    except Exception as error:
        if is_answer(driver.error_code(getattr(error, "orig", None) or error)):
            return None
        seen = str(error)
    return server_lost(backend.label, server, seen)


async def _query(server: Server, backend: Backend, driver: Driver) -> None:
    from pytest_asyncdb._databases.connection import maintenance

    async with maintenance(server, backend, driver) as sql, asyncio.timeout(ANSWER):
        await sql.fetch(backend.version_query())


class Liveness:
    """Finds out, after an error, which servers of this process are gone."""

    def __init__(self) -> None:
        self._servers: dict[object, tuple[Server, Backend, Driver]] = {}
        #: Servers that did not answer, and the time until which they are not asked again.
        self._lost: dict[object, tuple[AsyncdbError, float]] = {}

    def add(self, key: object, server: Server, backend: Backend, driver: Driver) -> None:
        """Make :meth:`lost` ask this server when it is called with *key*."""
        self._servers[key] = server, backend, driver

    def lost(self, key: object) -> AsyncdbError | None:
        """Return the error that says that the server is gone, or None. Costs a connection."""
        if key not in self._servers:
            return None
        if key not in self._lost or time.monotonic() >= self._lost[key][1]:
            self._lost.pop(key, None)
            if error := ask(*self._servers[key]):
                self._lost[key] = error, time.monotonic() + _RETRY
        return self._lost[key][0] if key in self._lost else None

    @contextlib.contextmanager
    def explaining(self, key: object) -> Iterator[None]:
        """Replace an error that happens because the server is gone. Costs nothing while it answers.

        Raises:
            AsyncdbError: The server is gone.
        """
        if key in self._lost and (lost := self.lost(key)):
            raise lost
        try:
            yield
        except Exception as error:
            # If another worker failed to build a template, its error arrives as text in a
            # SchemaError.
            clear = isinstance(error, AsyncdbError) and not isinstance(error, SchemaError)
            if not clear and (lost := self.lost(key)):
                raise lost from error
            raise


def is_answer(code: int | str | None) -> bool:
    """Return whether an error with this code proves that the server runs."""
    if isinstance(code, int):
        return 0 < code < 2000  # errors from 2000 on are the client's
    # 57P01 to 57P04: the server is ending or starting. Class 08: connection errors.
    return code is not None and not code.startswith(("57P", "08"))
