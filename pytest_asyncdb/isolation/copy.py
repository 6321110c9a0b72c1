"""The strategy ``copy``: each test has a database of its own, a copy of the template.

Copies are made ahead and dropped behind while the tests run (``Database.copy``). Nothing of a
test can reach another one, so there is nothing to watch.
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
        self._connections: DirectPool | None = None
        #: A database that is as good as a new one, and what makes it so.
        self._spare: tuple[DatabaseRef, Restoration] | None = None

    def view(self, request: ViewRequest) -> View:
        if self._spare is not None and self._connections is not None:
            (copied, restoration), self._spare = self._spare, None
            return _CopyView(self, self._connections, copied, restoration, request.test)
        copied = self.database.copy(request.prefetch, self._connect_ahead)
        if self._connections is None:
            connector = Connector(self.database, self.host, copied.url)
            self._connections = DirectPool(connector)
        self._connections.lead_to(copied.url)
        whole = self.database.backend.restores_whole
        made = Restoration(self.database, self.host, copied) if whole else None
        return _CopyView(self, self._connections, copied, made, request.test)

    def _connect_ahead(self, copied: DatabaseRef) -> None:
        """A copy is there that a later test will get."""
        if self._connections is not None:
            self._connections.open_ahead(copied.url)

    def use_again(self, copied: DatabaseRef, restoration: Restoration) -> bool:
        """Make the database of a test one for the next test. False: it cannot be had."""
        try:
            changed, restored = restoration.put_back()
        except Exception:
            return False  # another copy does as well
        if restored and not any(word.startswith(LEFT_OPEN) for word in changed):
            self._spare = copied, restoration
            return True
        return False

    def close(self) -> None:
        if self._spare is not None:
            self._spare[1].close()
            self.database.drop(self._spare[0], lambda: None)
            self._spare = None
        connections, self._connections = self._connections, None
        if connections is not None:
            connections.close()


class _CopyView(DirectView):
    def __init__(
        self,
        strategy: Copy,
        connections: DirectPool,
        copied: DatabaseRef,
        restoration: Restoration | None,
        test: str,
    ) -> None:
        super().__init__(connections, test)
        self._strategy = strategy
        self._copied = copied
        self._restoration = restoration
        self._watched = False

    @property
    def restoration(self) -> Restoration:
        """Made where checkpoints are to be expected."""
        if self._restoration is None:
            strategy = self._strategy
            self._restoration = Restoration(strategy.database, strategy.host, self._copied)
        return self._restoration

    def reference(self) -> URL:
        return self._strategy.database.reference()

    def expect_checkpoints(self) -> None:
        self.restoration  # noqa: B018  # made before anything has changed

    def watch(self) -> None:
        self._watched = True  # who has its URL may come back to it

    def close(self) -> Sequence[BaseException]:
        breaches = self._work.close(self.keeping)
        restoration = self._restoration
        if (
            restoration is not None
            and self._strategy.database.backend.restores_whole
            and not self._watched
            and not self.keeping
            and self._strategy.use_again(self._copied, restoration)
        ):
            return breaches
        if restoration is not None:
            restoration.close()
        if self.keeping:
            self._connections.discard()
            self.kept = self._strategy.database.keep(self._copied)
        self._connections.retire()
        self._strategy.database.drop(self._copied, self._connections.close_retired)
        return breaches
