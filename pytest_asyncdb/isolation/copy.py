"""The strategy ``copy``: each test has a database of its own, a copy of the template.

Copies are made ahead and dropped afterwards while the tests run (``Database.copy``). Nothing of a
test can reach another one, so nothing has to be watched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_asyncdb.abc import LEFT_OPEN, Database, Isolation, View, ViewRequest
from pytest_asyncdb.isolation.backing_connection import Connector
from pytest_asyncdb.isolation.direct import DirectView
from pytest_asyncdb.isolation.direct_pool import DirectPool
from pytest_asyncdb.isolation.restoring import Restoration

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from pytest_asyncdb._engines.host_loop import HostLoop
    from pytest_asyncdb.abc import DatabaseRef


class Copy(Isolation):
    """Every test has its own database."""

    name = "copy"
    needs_copies = True

    def __init__(self, database: Database, host: HostLoop) -> None:
        self.database = database
        self.host = host
        self._pool: DirectPool | None = None
        #: A database that is put back and can be used again, with what puts it back.
        self._spare: tuple[DatabaseRef, Restoration] | None = None

    def view(self, request: ViewRequest) -> View:
        spare, self._spare = self._spare, None
        if spare is not None and self._pool is not None:
            return _CopyView(self, self._pool, *spare, request.test)
        ref = self.database.copy(request.coming, self._prefetch)
        if self._pool is None:
            self._pool = DirectPool(Connector(self.database, self.host, ref.url))
        self._pool.lead_to(ref.url)
        restoration = self.restoration(ref) if self.database.backend.restores_whole else None
        return _CopyView(self, self._pool, ref, restoration, request.test)

    def restoration(self, ref: DatabaseRef) -> Restoration:
        return Restoration(self.database, self.host, ref)

    def _prefetch(self, ref: DatabaseRef) -> None:
        """Called in a background thread when a copy for a later test has been made."""
        if self._pool is not None:
            self._pool.prefetch(ref.url)

    def use_again(self, ref: DatabaseRef, restoration: Restoration) -> bool:
        """Put the database of a test back for the next test. False: that failed."""
        try:
            changed, restored = restoration.put_back()
        except Exception:
            return False  # the next test gets another copy
        if restored and not any(word.startswith(LEFT_OPEN) for word in changed):
            self._spare = ref, restoration
            return True
        return False

    def close(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            spare[1].close()
            self.database.drop(spare[0], lambda: None)
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()


class _CopyView(DirectView):
    def __init__(
        self,
        strategy: Copy,
        pool: DirectPool,
        ref: DatabaseRef,
        restoration: Restoration | None,
        test: str,
    ) -> None:
        super().__init__(pool, test)
        self._strategy = strategy
        self._ref = ref
        self._restoration = restoration
        #: May the next test have this database?
        self._reusable = strategy.database.backend.restores_whole

    @property
    def restoration(self) -> Restoration:
        if self._restoration is None:
            self._restoration = self._strategy.restoration(self._ref)
        return self._restoration

    def reference(self) -> URL:
        return self._strategy.database.reference()

    def expect_checkpoints(self) -> None:
        self.restoration  # noqa: B018  # made before anything has changed

    def watch(self) -> None:
        self._reusable = False  # whoever has its URL may come back to it

    def close(self) -> Sequence[BaseException]:
        breaches = self._work.close(self.keeping)
        strategy, restoration = self._strategy, self._restoration
        if restoration is not None:
            reusable = self._reusable and not self.keeping
            if reusable and strategy.use_again(self._ref, restoration):
                return breaches
            restoration.close()
        if self.keeping:
            self._pool.discard()
            self.kept = strategy.database.keep(self._ref)
        self._pool.retire()
        strategy.database.drop(self._ref, self._pool.close_retired)
        return breaches
