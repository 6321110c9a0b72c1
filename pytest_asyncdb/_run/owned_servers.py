"""The servers of a run, in the process that owns them: xdist's controller or the main process.

Servers start in threads, several at the same time. ``worker_channel.py`` gives them to xdist's
workers.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import TYPE_CHECKING

from pytest_asyncdb import errors
from pytest_asyncdb._databases.templates import TemplateBook
from pytest_asyncdb._engines import selector_loop
from pytest_asyncdb._record.text import error_text
from pytest_asyncdb._run import liveness, messages
from pytest_asyncdb._run.runs import prefix_of
from pytest_asyncdb._run.server_choice import ServerChoice
from pytest_asyncdb.abc import Server, Show
from pytest_asyncdb.values import BackendSpec

if TYPE_CHECKING:
    from pytest_asyncdb._run.run_lock import Lease

#: Connections of a managed server that are reserved for its administrator.
_ADMINISTRATORS = 10
#: The other connections, of 200.
MANAGED_LIMIT = 190
#: Connections that the owner of the servers may open in addition to the one that holds the lock.
_OWNERS = 1
#: Seconds that the end of a run waits for a server that is still starting.
_STARTING = 20.0
#: Seconds that the end of a run waits for the clean-up after dead runs.
_REAPING = 5.0


class OwnedServers:
    """The servers that this process owns.

    Args:
        progress: Called with a line for the user when something takes long.
        run: The run id.
    """

    def __init__(self, choice: ServerChoice, progress: Show, run: str) -> None:
        self.choice = choice
        self.templates = TemplateBook(prefix_of(run))
        self._progress = progress
        self._run = run
        self._lock = threading.Lock()
        self._futures: dict[tuple[str, str | None], Future[Server]] = {}
        self._stack = ExitStack()
        self._reaping: Future[None] | None = None
        self._closed = False

    def start(self, specs: Iterable[BackendSpec]) -> None:
        """Start the servers of *specs* at the same time, without waiting."""
        for spec in specs:
            self._future(spec)

    def get(self, spec: BackendSpec) -> Server:
        """Return the server for *spec*. Waits until it is ready.

        Raises:
            AsyncdbError: There is no server.
        """
        return self._future(spec).result()

    def started(self, spec: BackendSpec) -> Server | None:
        """Return the server for *spec* if it has started, or None. Does not wait."""
        future = self._futures.get((spec.backend, spec.version))
        if future is None or not future.done() or future.exception():
            return None
        return future.result()

    def close(self) -> None:
        """Drop the run's databases on external servers, and stop managed servers. May be called
        twice."""
        with self._lock:
            self._closed, futures, self._futures = True, self._futures, {}
        with self._stack:
            for future in futures.values():
                # After Ctrl-C in the middle of an import, the import lock can stay taken, and a
                # thread waits for it without end. The supervisor ends what that thread has started.
                wait([future], _STARTING)
        if self._reaping is not None:
            wait([self._reaping], _REAPING)

    def _future(self, spec: BackendSpec) -> Future[Server]:
        key = (spec.backend, spec.version)
        with self._lock:
            if self._closed:
                raise errors.ServerUnavailable("the run is ending: no server is started any more")
            if key not in self._futures:
                try:
                    self._futures[key] = self._begin(spec)
                except BaseException as error:
                    self._futures[key] = Future()
                    self._futures[key].set_exception(error)
            return self._futures[key]

    def _begin(self, spec: BackendSpec) -> Future[Server]:
        """Start the server in a thread, through its provider."""
        provider, found = self.choice.find(spec)
        backend, driver = self.choice.registry.backend(spec.backend), self.choice.driver(spec)
        provider.run, provider.reuse = self._run, self.choice.settings.reuse
        provider.load(found, backend)
        if self.choice.settings.keep:
            from pytest_asyncdb._databases.kept_databases import keeps

            provider.needed = partial(keeps, self._run)
        if provider.name != "memory" and self._reaping is None:
            # These imports are here, in the caller's thread, although only the new threads need
            # them. pytest rewrites the asserts of plugins on import, with ast. In CPython 3.11 the
            # parser of ast counts its depth once for all threads: if another thread imports a
            # module or shows a traceback at the same time, it fails now and then.
            # https://github.com/python/cpython/issues/106905
            from pytest_asyncdb._databases import connection_limit  # noqa: F401
            from pytest_asyncdb._run.leftovers import remove_unused  # imports run_lock, too

            self._reaping = selector_loop.in_thread(remove_unused, "reap")
        context = provider.obtain(found, spec, backend, driver, self._progress)
        return selector_loop.in_thread(lambda: self._obtain(spec, context), str(spec))

    def _obtain(self, spec: BackendSpec, context: AbstractContextManager[Server]) -> Server:
        began = time.monotonic()
        server = self._stack.enter_context(context)
        server = dataclasses.replace(server, connection_limit=self._limit(spec, server))
        if not server.managed and spec.backend in self.choice.settings.server_settings:
            selector_loop.run(self._compare_settings(spec, server))
        return dataclasses.replace(server, seconds=time.monotonic() - began)

    async def _compare_settings(self, spec: BackendSpec, server: Server) -> None:
        """Report settings of a server by URL that differ from those that the run asks for."""
        from pytest_asyncdb._databases.connection import maintenance

        backend, driver = self.choice.registry.backend(spec.backend), self.choice.driver(spec)
        wanted, source = self.choice.settings.server_settings[spec.backend]
        async with maintenance(server, backend, driver) as sql:
            for name, value in wanted.items():
                try:
                    ((found,),) = await sql.fetch(backend.setting_query(name))
                except Exception as error:
                    found = error_text(error)
                if str(found).lower() != value.lower():
                    self._progress(
                        f"{backend.label} ({server.reason}): {name} is {found}, not {value} "
                        f"({source}); settings of a server that is running are not changed"
                    )

    def _limit(self, spec: BackendSpec, server: Server) -> int | None:
        """Take the run's lock on a server that outlives the run.

        Returns:
            The number of connections that the workers may have together; None: no limit is known.

        Raises:
            AsyncdbError: The server is gone: it has answered before, and does not any more.
        """
        if server.managed and server.kept is None:
            return self._managed_limit(spec) if server.maintenance is not None else None
        backend, driver = self.choice.registry.backend(spec.backend), self.choice.driver(spec)
        from pytest_asyncdb._run.run_lock import Lease

        lease = Lease(self._run, server, backend, driver)
        try:
            limit = lease.take()
            self._stack.callback(self._end_lease, lease)
        except Exception as error:
            if server.kept is not None:
                seen = error_text(error)
                raise messages.server_lost(backend.label, server, seen, kept=True) from error
            if lost := liveness.ask(server, backend, driver):
                raise lost from error
            raise
        return None if limit is None else max(0, limit - _OWNERS)

    def _managed_limit(self, spec: BackendSpec) -> int:
        given = self.choice.settings.server_settings.get(spec.backend)
        values = given.value if given is not None else {}
        limit = values.get("max_connections", values.get("max-connections", ""))
        return int(limit) - _ADMINISTRATORS if limit.isdecimal() else MANAGED_LIMIT

    def _end_lease(self, lease: Lease) -> None:
        try:
            lease.close()
        except errors.AsyncdbError as error:
            self._progress(str(error))
