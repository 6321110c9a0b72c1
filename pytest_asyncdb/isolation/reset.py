"""The strategy ``reset``: real commits on real connections; what changed is put back.

The server tells what changed, so it does not matter who changed it: the test's engine, another
one, a subprocess. How it tells, and how a table is put back, is the backend's business
(:class:`~pytest_asyncdb.abc.Restorer`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_asyncdb.abc import Database, View, ViewRequest
from pytest_asyncdb.isolation.backing_connection import Connector
from pytest_asyncdb.isolation.direct import DirectView
from pytest_asyncdb.isolation.direct_pool import DirectPool
from pytest_asyncdb.isolation.restoring import Restoration, SharedDatabaseStrategy

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from pytest_asyncdb._engines.host_loop import HostLoop


class Reset(SharedDatabaseStrategy):
    """Everything that a test commits is put back after it."""

    name = "reset"

    def __init__(self, database: Database, host: HostLoop) -> None:
        super().__init__(database, host)
        self._connections: DirectPool | None = None
        #: Earlier tests have let their counters go on.
        self._ids_moved = False

    def view(self, request: ViewRequest) -> View:
        if self._connections is None:
            connector = Connector(self._database, self._host, self._database.url)
            self._connections = DirectPool(connector)
        ids = request.reset_sequences is not False
        if ids and self._ids_moved:
            self.restoration.restart_ids()
        self._ids_moved = not ids
        return _ResetView(self, self._connections, request.test, ids)

    def close(self) -> None:
        connections, self._connections = self._connections, None
        self._ids_moved = False
        try:
            super().close()
        finally:
            if connections is not None:
                connections.close()


class _ResetView(DirectView):
    def __init__(self, strategy: Reset, connections: DirectPool, test: str, ids: bool) -> None:
        super().__init__(connections, test)
        self._strategy = strategy
        self.ids = ids
        strategy.restoration  # noqa: B018  # made before anything has changed

    @property
    def restoration(self) -> Restoration:
        return self._strategy.restoration

    def reference(self) -> URL:
        return self._strategy.reference()

    def close(self) -> Sequence[BaseException]:
        breaches = self._work.close(self.keeping)
        if self.keeping:
            self.kept = self._strategy.keep()
            return [*breaches, *self._strategy.forget(self._work.test)]
        return [*breaches, *self._strategy.put_back(self._work.test, self.ids)[1]]
