"""The databases of a worker for one plan, as the isolation strategies see them.

One is kept for many tests (``rollback``, ``reset``); of the others each serves one test
(``copy``), and a thread makes them in advance and drops them afterwards.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import functools
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_asyncdb._databases.connection import AutocommitConnection
from pytest_asyncdb._databases.provisioner import PATIENCE, Provisioner, Template
from pytest_asyncdb.abc import Database, DatabaseRef, Restorer

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from pytest_asyncdb._databases.plan import SchemaPlan

T = TypeVar("T")


class WorkerDatabase(Database):
    """A worker's databases: made at first use, dropped when discarded."""

    def __init__(
        self, provisioner: Provisioner, plan: SchemaPlan, engine_options: Mapping[str, Any]
    ) -> None:
        self.server = provisioner.server
        self.backend = provisioner.backend
        self.driver = provisioner.driver
        self.idle_limit = provisioner.idle_limit
        self.engine_options = engine_options
        self._provisioner = provisioner
        self._plan = plan
        self._shared: DatabaseRef | None = None
        self._reference: DatabaseRef | None = None
        self._copies: _Copies | None = None

    @property
    def url(self) -> URL:
        return self._share().url

    @contextlib.contextmanager
    def restorer(self, copy: DatabaseRef | None = None) -> Iterator[Restorer]:
        host = self._provisioner.host
        database = copy or self._share()
        sql = AutocommitConnection(database.url, self.driver)
        try:
            restorer = self.backend.restorer(sql, database, self._template.database)
            host.run(restorer.remember(), PATIENCE)
            yield restorer
        finally:
            host.run(sql.close(), PATIENCE)

    def reference(self) -> URL:
        if self._reference is None:
            self._reference = self._provisioner.copy(self._template)
        return self._reference.url

    def prepare(self) -> None:
        """Make sure that the template exists; blocks."""
        self._template  # noqa: B018

    def discard(self) -> None:
        shared, self._shared = self._shared, None
        if shared is not None:
            self._provisioner.drop(shared)

    def copy(self, prefetch: int, prefetched: Callable[[DatabaseRef], None]) -> DatabaseRef:
        if self._provisioner.in_process:
            return self._provisioner.copy(self._template)
        if self._copies is None:
            self._copies = _Copies(self._provisioner, self._template)
        return self._copies.take(prefetch, prefetched)

    def drop(self, copy: DatabaseRef) -> None:
        if self._copies is None:
            self._provisioner.drop(copy)
        else:
            self._copies.drop(copy)

    def keep(self, copy: DatabaseRef | None = None) -> DatabaseRef | Exception:
        try:
            return self._provisioner.keep(copy or self._share())
        except Exception as error:
            return error

    def close(self) -> None:
        """Release the databases; the end of the run drops them. May be called twice."""
        copies, self._copies = self._copies, None
        if copies is not None:
            copies.close()
        for database in (self._shared, self._reference):
            if database is not None and database.keeper is not None:
                database.keeper.close()
        self._shared = self._reference = None

    def _share(self) -> DatabaseRef:
        if self._shared is None:
            self._shared = self._provisioner.copy(self._template)
        return self._shared

    @functools.cached_property
    def _template(self) -> Template:
        return self._provisioner.template(self._plan, self.engine_options)


class _Copies:
    """Copies of a template, made and dropped by a thread with a connection and a loop of its own.

    A server needs some ten milliseconds for either; the tests continue meanwhile.
    """

    def __init__(self, provisioner: Provisioner, template: Template) -> None:
        self._provisioner = provisioner
        self._template = template
        self._ready: collections.deque[concurrent.futures.Future[DatabaseRef]] = collections.deque()
        self._sql = provisioner.new_connection()
        self._loop = asyncio.new_event_loop()
        #: The connection runs one job after the other.
        self._turn = asyncio.Lock()
        self._closing = False
        # A daemon: a server that does not answer must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="asyncdb-copies", daemon=True)
        self._thread.start()

    def take(self, prefetch: int, prefetched: Callable[[DatabaseRef], None]) -> DatabaseRef:
        """A new copy; the thread makes *prefetch* more.

        Args:
            prefetched: Called in the thread with each copy that it has made.
        """

        async def make() -> DatabaseRef:
            copy = await self._provisioner.copying(self._template, self._sql)
            prefetched(copy)
            return copy

        while len(self._ready) <= prefetch:
            self._ready.append(self._submit(make))
        return self._ready.popleft().result(PATIENCE)

    def drop(self, copy: DatabaseRef) -> None:
        """Drop *copy* when the thread has time."""
        self._submit(functools.partial(self._provisioner.dropping, copy, self._sql))

    def close(self) -> None:
        """Stop the thread after its present job. The end of the run drops what remains."""
        self._closing = True
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop)
        self._thread.join(PATIENCE)

    def _submit(self, work: Callable[[], Coroutine[Any, Any, T]]) -> concurrent.futures.Future[T]:
        async def job() -> T:
            async with self._turn:
                if self._closing:
                    raise RuntimeError("the run is ending")
                return await work()

        return asyncio.run_coroutine_threadsafe(job(), self._loop)

    async def _stop(self) -> None:
        async with self._turn:  # after the other jobs, which do nothing any more
            await self._sql.close()
        self._loop.stop()

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_forever()
            # The transport of the closed connection needs another turn of the loop.
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
