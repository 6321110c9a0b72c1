"""The databases of a worker for one plan, as the isolation strategies see them.

One that is kept for many tests (``rollback``, ``reset``), and copies for one test each
(``copy``), which a thread makes ahead of time and drops behind.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import functools
import queue
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pytest_asyncdb._databases.provisioner import PATIENCE, Provisioner, Template
from pytest_asyncdb._databases.sql import Connection
from pytest_asyncdb.abc import Database, DatabaseRef, Restorer

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from pytest_asyncdb._databases.plan import SchemaPlan


class WorkerDatabase(Database):
    """A worker's databases: made at first use, dropped when discarded."""

    def __init__(
        self, provisioner: Provisioner, plan: SchemaPlan, engine_options: Mapping[str, Any]
    ) -> None:
        self.server = provisioner.server
        self.backend = provisioner.backend
        self.driver = provisioner.driver
        self.budget = provisioner.budget
        self.engine_options = engine_options
        self._provisioner = provisioner
        self._plan = plan
        self._kept: DatabaseRef | None = None
        self._copies: _Copies | None = None
        self._reference: DatabaseRef | None = None

    @property
    def url(self) -> URL:
        return self._keep().url

    @contextlib.contextmanager
    def restorer(self, copied: DatabaseRef | None = None) -> Iterator[Restorer]:
        host = self._provisioner.host
        if copied is None:
            copied = self._keep()
        sql = Connection(copied.url, self.driver)
        with self.budget.using():
            try:
                restorer = self.backend.restorer(sql, copied, self._template.copied)
                host.run(restorer.remember(), PATIENCE)
                yield restorer
            finally:
                host.run(sql.close(), PATIENCE)

    def reference(self) -> URL:
        if self._reference is None:
            self._reference = self._provisioner.copy(self._template)
        return self._reference.url

    def prepare(self) -> None:
        """See to it that there is a template; blocks."""
        self._template  # noqa: B018

    def discard(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            self._provisioner.drop(kept)

    def copy(self, coming: int, made: Callable[[DatabaseRef], None]) -> DatabaseRef:
        if self.server.maintenance is None:
            return self._provisioner.copy(self._template)
        if self._copies is None:
            self._copies = _Copies(self._provisioner, self._template)
        return self._copies.take(coming, made)

    def drop(self, copied: DatabaseRef, first: Callable[[], None]) -> None:
        if self._copies is None:
            first()
            self._provisioner.drop(copied)
        else:
            self._copies.drop(copied, first)

    def keep(self, copied: DatabaseRef | None = None) -> DatabaseRef | Exception:
        try:
            return self._provisioner.keep(copied or self._keep())
        except Exception as error:
            return error

    def close(self) -> None:
        """Let go of the databases; the end of the run drops them. May be called twice."""
        self.relax()
        for copied in (self._kept, self._reference):
            if copied is not None and copied.keeper is not None:
                copied.keeper.close()
        self._kept = self._reference = None

    def relax(self) -> None:
        """Make no more copies ahead, for which a connection is kept, until one is asked for."""
        copies, self._copies = self._copies, None
        if copies is not None:
            copies.close()

    def _keep(self) -> DatabaseRef:
        if self._kept is None:
            self._kept = self._provisioner.copy(self._template)
        return self._kept

    @functools.cached_property
    def _template(self) -> Template:
        return self._provisioner.template(self._plan, self.engine_options)


class _Copies:
    """Copies of a template, made and dropped by a thread with a connection of its own.

    A server needs some ten milliseconds for either, in which the tests go on.
    """

    def __init__(self, provisioner: Provisioner, template: Template) -> None:
        self._provisioner = provisioner
        self._template = template
        provisioner.budget.take()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._ready: collections.deque[concurrent.futures.Future[DatabaseRef]] = collections.deque()
        self._thread = threading.Thread(target=self._work, name="asyncdb-copies", daemon=True)
        self._thread.start()

    def take(self, coming: int, made: Callable[[DatabaseRef], None]) -> DatabaseRef:
        """A copy that nobody has had; *coming* more are made meanwhile.

        Args:
            made: Called with each of these when it is there, in the thread.
        """
        while len(self._ready) <= coming:
            self._ready.append(self._do(functools.partial(self._make, made)))
        return self._ready.popleft().result(PATIENCE)

    def drop(self, copied: DatabaseRef, first: Callable[[], None]) -> None:
        """Drop *copied* when there is time.

        Args:
            first: Called before it, in the thread.
        """
        self._do(functools.partial(self._drop, copied, first))

    async def _make(
        self, made: Callable[[DatabaseRef], None], sql: Callable[[], Connection]
    ) -> DatabaseRef:
        copied = await self._provisioner.copying(self._template, sql)
        made(copied)
        return copied

    async def _drop(
        self, copied: DatabaseRef, first: Callable[[], None], sql: Callable[[], Connection]
    ) -> None:
        try:
            first()
        finally:
            await self._provisioner.dropping(copied, sql)

    def close(self) -> None:
        """Stop the thread after the job that it is at; what is left falls with the run."""
        while not self._jobs.empty():
            self._jobs.get()
        self._jobs.put(None)
        self._thread.join(PATIENCE)
        self._provisioner.budget.give()

    def _do(
        self, work: Callable[[Callable[[], Connection]], Coroutine[Any, Any, Any]]
    ) -> concurrent.futures.Future[Any]:
        job = _Job(work)
        self._jobs.put(job)
        return job.future

    def _work(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        # The thread has nothing else to do on its loop while it waits for a job.
        async with self._provisioner.new_connection() as connection:
            while (job := self._jobs.get()) is not None:
                try:
                    result = await job.work(lambda: connection)
                except BaseException as error:
                    job.future.set_exception(error)
                else:
                    job.future.set_result(result)


class _Job:
    def __init__(
        self, work: Callable[[Callable[[], Connection]], Coroutine[Any, Any, Any]]
    ) -> None:
        self.work = work
        self.future: concurrent.futures.Future[Any] = concurrent.futures.Future()
