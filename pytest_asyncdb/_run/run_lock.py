"""A run's lock on a server that it did not start, and the databases of dead runs on that server.

The server releases the lock when the process that holds it ends, on whichever machine. So other
runs can see which runs are dead. They drop the databases of a run only if its lock is free and no
session is connected to any of its databases.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
from collections.abc import AsyncIterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from pytest_asyncdb._databases.connection import AutocommitConnection, maintenance
from pytest_asyncdb._databases.connection_limit import free_connections
from pytest_asyncdb._databases.provisioner import drop_leftovers, try_drop
from pytest_asyncdb._databases.templates import expired_templates
from pytest_asyncdb._engines import selector_loop
from pytest_asyncdb._record.text import in_short
from pytest_asyncdb._run import liveness
from pytest_asyncdb._run.messages import one_connection
from pytest_asyncdb._run.runs import prefix_of, run_of
from pytest_asyncdb.abc import Backend, Driver, Server
from pytest_asyncdb.errors import AsyncdbError

#: Seconds within which a pooler must give a second connection.
_SECOND = 5.0
#: At the end of the run: seconds for the server to answer, then to drop the databases.
_ANSWER = 10.0
_END = 60.0
#: Seconds for which a run that is ending continues to drop databases of dead runs.
_FINISH = 2.0


@dataclasses.dataclass
class Lease:
    """A run's lock, held from before its first database is created until its last one is dropped.

    A thread with an event loop holds the connection.

    Args:
        run: The run id.
    """

    run: str
    server: Server
    backend: Backend
    driver: Driver

    def take(self) -> int | None:
        """Take the lock. Blocks. The thread then drops databases of dead runs.

        Returns:
            The number of connections that the account may open in addition; None: unknown.

        Raises:
            Exception: The driver's own.
        """
        self._end = asyncio.Event()
        self._taken: Future[tuple[asyncio.AbstractEventLoop, int | None]] = Future()
        self._holding = selector_loop.in_thread(lambda: selector_loop.run(self._hold()), "lease")
        either: list[Future[Any]] = [self._holding, self._taken]
        wait(either, return_when=FIRST_COMPLETED)
        if not self._taken.done():
            self._holding.result()
        return self._taken.result()[1]

    def close(self) -> None:
        """Drop the run's databases and release the lock. Blocks.

        Raises:
            AsyncdbError: The databases could not be dropped.
        """
        with contextlib.suppress(RuntimeError):  # the thread has ended
            self._taken.result()[0].call_soon_threadsafe(self._end.set)
        if (error := self._holding.exception()) is not None:
            raise AsyncdbError(
                f"databases of this run are still on the {self.backend.label} server",
                [f"their names begin with {prefix_of(self.run)}", in_short(error)],
                ["run the tests again, or: python -m pytest_asyncdb reap URL"],
            ) from error

    async def _hold(self) -> None:
        server, backend, driver = self.server, self.backend, self.driver
        async with (
            maintenance(server, backend, driver) as sql,
            maintenance(server, backend, driver) as transaction,
        ):
            async with asyncio.timeout(liveness.ANSWER):
                if server.behind_pooler:
                    await transaction.script(backend.hold_lock_in_transaction(self.run))
                    second = asyncio.create_task(sql.fetch(backend.version_query()))
                    if not (await asyncio.wait([second], timeout=_SECOND))[0]:
                        await transaction.close()  # so that the other one gets its connection
                        await second
                        raise one_connection(server, _SECOND)
                    await second
                elif query := backend.hold_lock(self.run):
                    await sql.script(backend.keep_session())
                    await sql.fetch(query)
                # Before the thread opens another connection, to drop databases of dead runs.
                free = await free_connections(sql, backend)
            self._taken.set_result((asyncio.get_running_loop(), free))
            dropping = asyncio.create_task(self._drop_dead(sql))
            await self._end.wait()
            async with asyncio.timeout(2 * _ANSWER):
                await dropping
                await sql.fetch(backend.version_query())
            async with asyncio.timeout(_END):
                await drop_leftovers(server, backend, driver, prefix_of(self.run))

    async def _drop_dead(self, sql: AutocommitConnection) -> None:
        # If something fails here, the next run tries again.
        with contextlib.suppress(Exception):
            clock, until = asyncio.get_running_loop().time, math.inf
            async for name in dead_databases(sql, self.backend, bool(self.server.behind_pooler)):
                if self._end.is_set():
                    until = min(until, clock() + _FINISH)
                if clock() > until:
                    return
                await try_drop(sql, self.backend, self.server, name)
            if self.server.kept is not None:
                found = [name for (name,) in await sql.fetch(self.backend.list_databases())]
                for name in expired_templates(self.server.kept, found):
                    await try_drop(sql, self.backend, self.server, name)


async def dead_databases(
    sql: AutocommitConnection, backend: Backend, pooler: bool = False
) -> AsyncIterator[str]:
    """Yield the databases of runs that have died.

    A session beside *sql* takes the locks of these runs, and keeps them until the last database
    was yielded, so that no other run drops the same ones. Through a connection pooler it does not
    keep them.
    """
    by_run: dict[str, list[str]] = {}
    for (name,) in await sql.fetch(backend.list_databases()):
        if run := run_of(name):
            by_run.setdefault(run, []).append(name)
    async with sql.beside(None) as locks:
        for run, names in by_run.items():
            query, sessions = backend.hold_lock(run), backend.sessions(prefix_of(run))
            if pooler:
                query = next(reversed(backend.hold_lock_in_transaction(run)), None)
            held = query and sessions and (await locks.fetch(query))[0][0]
            if held and not await sql.answer(sessions):
                for name in names:
                    yield name
