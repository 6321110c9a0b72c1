"""The strategy ``copy``: each test has a database of its own, a copy of the template.

Copies are made in advance and dropped afterwards, while tests run (``Database.copy``). A test
cannot reach the database of another test, so nothing has to be watched.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_asyncdb._engines.host_loop import HostLoop
from pytest_asyncdb.abc import Database, DatabaseRef, Isolation, View, ViewRequest
from pytest_asyncdb.isolation.direct import DirectView
from pytest_asyncdb.isolation.direct_pool import DirectPool
from pytest_asyncdb.isolation.reset import Reset
from pytest_asyncdb.isolation.restoring import Restoration


class _ReusedCopy(Reset):
    """Restores its database by copying the template again, or replaces it if another connection may
    write to it."""

    def finish(self, view: DirectView) -> Sequence[BaseException]:
        breaches = super().finish(view)
        return [*breaches, *self.forget(view.work.test)] if view.watched else breaches


class Copy(Isolation):
    """Every test has its own database."""

    name = "copy"

    def __init__(self, database: Database, host: HostLoop) -> None:
        self._database = database
        self._host = host
        self._pool: DirectPool | None = None
        #: For backends that restore a database by copying the template again.
        self._reset = _ReusedCopy(database, host) if database.backend.restores_whole else None

    def view(self, request: ViewRequest) -> View:
        if self._reset is not None:
            return self._reset.view(ViewRequest(request.test))
        ref = self._database.copy(request.prefetch, self._prefetch)
        if self._pool is None:
            self._pool = DirectPool(self._database, self._host, ref.url)
        self._pool.lead_to(ref.url)
        restoration = Restoration(self._database, self._host, ref)
        return DirectView(self._finish, self._pool, request.test, restoration)

    def _prefetch(self, ref: DatabaseRef) -> None:
        """Open a connection to a copy for a later test. A background thread calls this."""
        if self._pool is not None:
            self._pool.prefetch(ref.url)

    def _finish(self, view: DirectView) -> Sequence[BaseException]:
        breaches = view.work.close(view.keeping)
        ref = view.restoration.ref
        assert ref is not None
        assert self._pool is not None
        view.restoration.close()
        self._pool.discard()
        if view.keeping:
            view.kept = self._database.keep(ref)
        self._database.drop(ref)
        return breaches

    def close(self) -> None:
        if self._reset is not None:
            self._reset.close()
        if self._pool is not None:
            self._pool.close()
