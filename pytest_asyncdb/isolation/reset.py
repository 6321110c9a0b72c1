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
        self._pool: DirectPool | None = None
        #: Earlier tests did not reset their sequences.
        self._sequences_moved = False

    def view(self, request: ViewRequest) -> View:
        if self._pool is None:
            self._pool = DirectPool(Connector(self._database, self._host, self._database.url))
        restoration = self.restoration  # made before anything has changed
        reset_sequences = request.restart_ids is not False
        if reset_sequences and self._sequences_moved:
            restoration.reset_sequences()
        self._sequences_moved = not reset_sequences
        return _ResetView(self, self._pool, request.test, reset_sequences)

    def close(self) -> None:
        pool, self._pool = self._pool, None
        self._sequences_moved = False
        try:
            super().close()
        finally:
            if pool is not None:
                pool.close()


class _ResetView(DirectView):
    def __init__(self, strategy: Reset, pool: DirectPool, test: str, reset_sequences: bool) -> None:
        super().__init__(pool, test)
        self._strategy = strategy
        self.reset_sequences = reset_sequences

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
        return [*breaches, *self._strategy.put_back(self._work.test, self.reset_sequences)[1]]
