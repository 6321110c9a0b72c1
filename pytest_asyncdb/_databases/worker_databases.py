"""The databases of a worker for one plan, as the isolation strategies see them.

``rollback`` and ``reset`` keep one database for many tests. In ``copy`` each database serves one
test; a thread makes the databases in advance and drops them afterwards.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import queue
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future, wait
from typing import Any

from sqlalchemy.engine import URL

from pytest_asyncdb._databases.connection import AutocommitConnection
from pytest_asyncdb._databases.plan import SchemaPlan
from pytest_asyncdb._databases.provisioner import PATIENCE, Provisioner, Template
from pytest_asyncdb._engines import selector_loop
from pytest_asyncdb.abc import Database, DatabaseRef, Restorer

#: A job for the thread.
_Work = Callable[[], Coroutine[Any, Any, Any]]


@dataclasses.dataclass(eq=False)
class WorkerDatabase(Database):
    """A worker's databases. They are created at first use, and dropped when they are discarded.

    Args:
        one_connection: See :attr:`pytest_asyncdb.abc.Isolation.one_connection`.
    """

    provisioner: Provisioner
    plan: SchemaPlan
    engine_options: Mapping[str, Any]
    one_connection: bool

    def __post_init__(self) -> None:
        self.server = self.provisioner.server
        self.backend = self.provisioner.backend
        self.driver = self.provisioner.driver
        self.idle_limit = self.provisioner.idle_limit
        self._shared: DatabaseRef | None = None
        self._reference: DatabaseRef | None = None
        self._copies: _Copies | None = None

    @property
    def url(self) -> URL:
        return self._share().url

    @contextlib.contextmanager
    def restorer(self, copy: DatabaseRef | None = None) -> Iterator[Restorer]:
        run = self.provisioner.run
        database = copy or self._share()
        sql = AutocommitConnection(database.url, self.driver, self.driver.connect_args(self.server))
        try:
            restorer = self.backend.restorer(sql, database, self.template.database)
            run(restorer.remember())
            yield restorer
        finally:
            run(sql.close())

    def reference(self) -> URL:
        if self._reference is None:
            self._reference = self._copy(one_connection=True)
        return self._reference.url

    def discard(self) -> None:
        shared, self._shared = self._shared, None
        if shared is not None:
            self.provisioner.run(self.provisioner.drop(shared))

    def copy(self, prefetch: int, prefetched: Callable[[DatabaseRef], None]) -> DatabaseRef:
        if self.provisioner.in_process:
            return self._copy(self.one_connection)
        if self._copies is None:
            self._copies = _Copies(self.provisioner, self.template)
        return self._copies.take(prefetch, prefetched)

    def drop(self, copy: DatabaseRef) -> None:
        if self._copies is None:
            self.provisioner.run(self.provisioner.drop(copy))
        else:
            self._copies.drop(copy)

    def keep(self, copy: DatabaseRef | None = None) -> DatabaseRef | Exception:
        try:
            return self.provisioner.keep(copy or self._share())
        except Exception as error:
            return error

    def close(self) -> None:
        """Release the databases. The end of the run drops them. May be called twice."""
        copies, self._copies = self._copies, None
        if copies is not None:
            copies.close()
        for database in (self._shared, self._reference):
            if database is not None and database.keeper is not None:
                database.keeper.close()
        self._shared = self._reference = None

    def _share(self) -> DatabaseRef:
        if self._shared is None:
            self._shared = self._copy(self.one_connection)
        return self._shared

    def _copy(self, one_connection: bool) -> DatabaseRef:
        copying = self.provisioner.copy(self.template, one_connection=one_connection)
        return self.provisioner.run(copying)

    @functools.cached_property
    def template(self) -> Template:
        """The template of these databases. The first access builds it, and blocks."""
        return self.provisioner.template(self.plan, self.engine_options)


class _Copies:
    """Copies of a template. A thread with its own connection and loop makes and drops them.

    A server needs some ten milliseconds for each of the two; the tests continue meanwhile.
    """

    def __init__(self, provisioner: Provisioner, template: Template) -> None:
        self._provisioner = provisioner
        self._template = template
        self._ready: collections.deque[Future[DatabaseRef]] = collections.deque()
        self._sql = provisioner.new_connection()
        self._jobs: queue.SimpleQueue[tuple[_Work, Future[Any]] | None] = queue.SimpleQueue()
        self._closing = False
        self._thread = selector_loop.in_thread(self._run, "copies")

    def take(self, prefetch: int, prefetched: Callable[[DatabaseRef], None]) -> DatabaseRef:
        """Return a new copy, and let the thread make *prefetch* more.

        Args:
            prefetched: Called in the thread with each copy that it has made.
        """

        async def make() -> DatabaseRef:
            copy = await self._provisioner.copy(self._template, self._sql)
            prefetched(copy)
            return copy

        while len(self._ready) <= prefetch:
            self._ready.append(self._submit(make))
        return self._ready.popleft().result(PATIENCE)

    def drop(self, copy: DatabaseRef) -> None:
        """Drop *copy* when the thread has time."""
        self._submit(functools.partial(self._provisioner.drop, copy, self._sql))

    def close(self) -> None:
        """Stop the thread after its current job. The end of the run drops what remains."""
        self._closing = True
        self._jobs.put(None)
        wait([self._thread], PATIENCE)

    def _submit(self, work: _Work) -> Future[Any]:
        future: Future[Any] = Future()
        self._jobs.put((work, future))
        return future

    def _run(self) -> None:
        with selector_loop.runner() as runner:
            while (job := self._jobs.get()) and not self._closing:
                work, future = job
                try:
                    future.set_result(runner.run(work()))
                except BaseException as error:
                    future.set_exception(error)
            runner.run(self._sql.close())
