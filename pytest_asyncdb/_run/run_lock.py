"""A run's hold on a server that it has not started: its lock, its databases, those of dead runs.

The server itself gives the lock back when the process that holds it has ended, on whichever
machine, so another run can tell whose databases are left. It drops them only if nobody holds
the lock, nobody is connected to any database of that run, and no process of this user on
this machine is known to be that run.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from pytest_asyncdb._databases.connection import AutocommitConnection
from pytest_asyncdb._databases.provisioner import drop, drop_leftovers
from pytest_asyncdb._databases.templates import expired_templates
from pytest_asyncdb._run import liveness
from pytest_asyncdb._run.runs import is_recorded, prefix_of, recorded, run_of
from pytest_asyncdb.errors import AsyncdbError

if TYPE_CHECKING:
    from pytest_asyncdb.abc import Backend, Driver, Server

#: Seconds in which the server must still answer at the end, then to have the databases dropped.
_ANSWER = 10.0
_END = 60.0


class Lease:
    """Taken before the run's first database is made; given back when the last one is dropped.

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
        """Take the lock; blocks. Then databases of dead runs are dropped, in a thread.

        Raises:
            Exception: The driver's own.
        """
        self._thread.start()
        self._taken.wait()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Drop the run's databases and give the lock back; blocks.

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
                [
                    f"their names begin with {prefix_of(self._run)}",
                    f"{type(self._error).__name__}: {self._error}".rstrip(": "),
                ],
                ["run the tests again, or: python -m pytest_asyncdb reap URL"],
            ) from self._error

    def _work(self) -> None:
        try:
            with recorded(self._run):
                asyncio.run(self._hold())
        except BaseException as error:
            self._error = error
        finally:
            self._taken.set()

    async def _hold(self) -> None:
        self._loop = asyncio.get_running_loop()
        url = self._backend.url(self._server, self._driver.name, None)
        async with AutocommitConnection(url, self._driver) as sql:
            async with asyncio.timeout(liveness.ANSWER):
                if query := self._backend.hold_lock(self._run):
                    await sql.each(self._backend.keep_session())
                    await sql.fetch(query)
            self._taken.set()
            dropping = asyncio.create_task(self._drop_dead(sql))
            await self._end.wait()
            async with asyncio.timeout(2 * _ANSWER):
                await dropping
                await sql.fetch(self._backend.version_query())
            async with asyncio.timeout(_END):
                await drop_leftovers(
                    self._server, self._backend, self._driver, prefix_of(self._run)
                )

    async def _drop_dead(self, sql: AutocommitConnection) -> None:
        # What goes wrong here is for the next run to try again.
        with contextlib.suppress(Exception):
            async for name in dead_databases(sql, self._backend):
                if self._end.is_set():
                    return
                await drop(sql, self._backend, self._server, name)
            if self._server.kept is not None:
                found = [name for (name,) in await sql.fetch(self._backend.list_databases())]
                for name in expired_templates(self._server.kept, found):
                    await drop(sql, self._backend, self._server, name)


async def dead_databases(sql: AutocommitConnection, backend: Backend) -> AsyncIterator[str]:
    """The databases that runs have left which are dead; each run's lock is held meanwhile."""
    by_run: dict[str, list[str]] = {}
    for (name,) in await sql.fetch(backend.list_databases()):
        if run := run_of(name):
            by_run.setdefault(run, []).append(name)
    for run, names in by_run.items():
        query, sessions = backend.hold_lock(run), backend.sessions(prefix_of(run))
        if query is None or not sessions or is_recorded(run):
            continue
        try:
            ((held,),) = await sql.fetch(query)
            if held and not await sql.answer(sessions):
                for name in names:
                    yield name
        finally:
            await sql.fetch(backend.release_lock(run))
