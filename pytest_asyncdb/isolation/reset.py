"""The strategy ``reset``: real commits on real connections. The plugin restores what changed.

The server reports what changed. So it does not matter what made the change: the test's engine,
another engine or a subprocess. The backend knows how to ask the server and how to restore a table
(:class:`~pytest_asyncdb.abc.Restorer`).
"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_asyncdb._engines.host_loop import HostLoop
from pytest_asyncdb.abc import Database, View, ViewRequest
from pytest_asyncdb.isolation.direct import DirectView
from pytest_asyncdb.isolation.direct_pool import DirectPool
from pytest_asyncdb.isolation.restoring import SharedDatabaseStrategy


class Reset(SharedDatabaseStrategy):
    """Restores everything that a test has committed."""

    name = "reset"

    def __init__(self, database: Database, host: HostLoop) -> None:
        super().__init__(database, host)
        self._pool: DirectPool | None = None
        #: True if earlier tests did not reset their sequences.
        self._sequences_moved = False

    def view(self, request: ViewRequest) -> View:
        if self._pool is None:
            self._pool = DirectPool(self._database, self._host, self._database.url)
        restoration = self.restoration  # created before anything changes
        reset_sequences = request.reset_sequences is not False
        if reset_sequences and self._sequences_moved:
            restoration.reset_sequences()
        self._sequences_moved = not reset_sequences
        return DirectView(self.finish, self._pool, request.test, restoration, reset_sequences)

    def finish(self, view: DirectView) -> Sequence[BaseException]:
        breaches, test = view.work.close(view.keeping), view.work.test
        if view.keeping:
            view.kept = self.keep()
            return [*breaches, *self.forget(test)]
        view.unseen = view.restoration.unseen
        changed, more = self.put_back(test, view.reset_sequences)
        if "schema" in changed and self._pool is not None:
            self._pool.discard()  # SQLite's connections have read the old schema
        return [*breaches, *more]

    def close(self) -> None:
        pool, self._pool = self._pool, None
        self._sequences_moved = False
        try:
            super().close()
        finally:
            if pool is not None:
                pool.close()
