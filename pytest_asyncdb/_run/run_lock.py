"""A run's lock on a server that it did not start, and the databases of dead runs on that server.

The server releases the lock when the process that holds it ends, on whichever machine, so other
runs can see whose databases are left. They drop them only if the lock is free and no session is
connected to any database of that run.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import AsyncIterator

from pytest_asyncdb._databases.connection import AutocommitConnection, maintenance
from pytest_asyncdb._databases.provisioner import drop_leftovers, try_drop
from pytest_asyncdb._databases.templates import expired_templates
from pytest_asyncdb._engines import selector_loop
from pytest_asyncdb._record.text import in_short
from pytest_asyncdb._run import liveness
from pytest_asyncdb._run.messages import one_connection
from pytest_asyncdb._run.runs import prefix_of, run_of
from pytest_asyncdb.abc import Backend, Driver, Server
from pytest_asyncdb.errors import AsyncdbError

#: Seconds in which a pooler must give a second connection.
_SECOND = 5.0
#: At the end of the run: seconds for the server to answer, then to drop the databases.
_ANSWER = 10.0
_END = 60.0
#: Seconds for which a run that ends goes on to drop databases of dead runs.
_FINISH = 2.0


class Lease:
    """Held from before the run's first database is made until the last one is dropped.

    A thread with an event loop holds the connection.

    Args:
        run: The run id.
    """

    def __init__(self, run: str, server: Server, backend: Backend, driver: Driver) -> None:
        self._run = run
        self._server = server
        self._backend = backend
        self._driver = driver
        self._taken = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end = asyncio.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="asyncdb-lease", daemon=True)

    def take(self) -> None:
        """Take the lock; blocks. The thread then drops databases of dead runs.

        Raises:
            Exception: The driver's own.
        """
        self._thread.start()
        self._taken.wait()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Drop the run's databases and release the lock; blocks.

        Raises:
            AsyncdbError: The databases could not be dropped.
        """
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the thread has ended
                self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        if self._error is not None:
            raise AsyncdbError(
                f"databases of this run are still on the {self._backend.label} server",
                [f"their names begin with {prefix_of(self._run)}", in_short(self._error)],
                ["run the tests again, or: python -m pytest_asyncdb reap URL"],
            ) from self._error

    def _work(self) -> None:
        try:
            selector_loop.run(self._hold())
        except BaseException as error:
            self._error = error
        finally:
            self._taken.set()

    async def _hold(self) -> None:
        self._loop = asyncio.get_running_loop()
        server, backend, driver = self._server, self._backend, self._driver
        async with (
            maintenance(server, backend, driver) as sql,
            maintenance(server, backend, driver) as transaction,
        ):
            async with asyncio.timeout(liveness.ANSWER):
                if server.behind_pooler:
                    await transaction.script(backend.hold_lock_in_transaction(self._run))
                    second = asyncio.create_task(sql.fetch(backend.version_query()))
                    if not (await asyncio.wait([second], timeout=_SECOND))[0]:
                        await transaction.close()  # the other one gets its connection then
                        await second
                        raise one_connection(server, _SECOND)
                    await second
                elif query := backend.hold_lock(self._run):
                    await sql.script(backend.keep_session())
                    await sql.fetch(query)
            self._taken.set()
            dropping = asyncio.create_task(self._drop_dead(sql))
            await self._end.wait()
            async with asyncio.timeout(2 * _ANSWER):
                await dropping
                await sql.fetch(backend.version_query())
            async with asyncio.timeout(_END):
                await drop_leftovers(server, backend, driver, prefix_of(self._run))

    async def _drop_dead(self, sql: AutocommitConnection) -> None:
        # The next run tries again what fails here.
        with contextlib.suppress(Exception):
            clock, until = asyncio.get_running_loop().time, math.inf
            async for name in dead_databases(sql, self._backend, bool(self._server.behind_pooler)):
                if self._end.is_set():
                    until = min(until, clock() + _FINISH)
                if clock() > until:
                    return
                await try_drop(sql, self._backend, self._server, name)
            if self._server.kept is not None:
                found = [name for (name,) in await sql.fetch(self._backend.list_databases())]
                for name in expired_templates(self._server.kept, found):
                    await try_drop(sql, self._backend, self._server, name)


async def dead_databases(
    sql: AutocommitConnection, backend: Backend, pooler: bool = False
) -> AsyncIterator[str]:
    """The databases of dead runs; the lock of a run is held while its databases are yielded, but
    not through a connection pooler."""
    by_run: dict[str, list[str]] = {}
    for (name,) in await sql.fetch(backend.list_databases()):
        if run := run_of(name):
            by_run.setdefault(run, []).append(name)
    for run, names in by_run.items():
        query, sessions = backend.hold_lock(run), backend.sessions(prefix_of(run))
        if pooler:
            query = next(reversed(backend.hold_lock_in_transaction(run)), None)
        if query is None or not sessions:
            continue
        release = None if pooler else backend.release_lock(run)
        try:
            ((held,),) = await sql.fetch(query)
            if held and not await sql.answer(sessions):
                for name in names:
                    yield name
        except BaseException:
            with contextlib.suppress(Exception):  # a cancellation by the end of the run stays one
                await _release(sql, release)
            raise
        await _release(sql, release)


async def _release(sql: AutocommitConnection, query: str | None) -> None:
    """Release the lock of a dead run; the server may be silent."""
    if query is not None:
        async with asyncio.timeout(_ANSWER):
            await sql.fetch(query)
