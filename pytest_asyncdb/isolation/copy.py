"""The strategy ``copy``: each test has a database of its own, a copy of the template.

Copies are made ahead and dropped behind while the tests run (``Database.copy``). Nothing of a
test can reach another one, so there is nothing to watch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_asyncdb.abc import Database, Isolation, View, Wish
from pytest_asyncdb.isolation._link import Connector
from pytest_asyncdb.isolation._real import RealConnections, RealView
from pytest_asyncdb.isolation._restoration import Restoration

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from pytest_asyncdb._loops import HostLoop
    from pytest_asyncdb._types import Copied


class Copy(Isolation):
    """Every test has its own database."""

    name = "copy"

    def __init__(self, database: Database, host: HostLoop) -> None:
        self.database = database
        self.host = host
        self._connections: RealConnections | None = None

    def view(self, wish: Wish) -> View:
        copied = self.database.copy(wish.coming)
        if self._connections is None:
            connector = Connector(self.database, self.host, copied.url)
            self._connections = RealConnections(connector)
        self._connections.lead_to(copied.url)
        return _CopyView(self, self._connections, copied, wish.test)

    def close(self) -> None:
        connections, self._connections = self._connections, None
        if connections is not None:
            connections.close()


class _CopyView(RealView):
    def __init__(
        self, strategy: Copy, connections: RealConnections, copied: Copied, test: str
    ) -> None:
        super().__init__(connections, test)
        self._strategy = strategy
        self._copied = copied
        self._restoration: Restoration | None = None

    @property
    def restoration(self) -> Restoration:
        """Made where a checkpoint asks for it."""
        if self._restoration is None:
            strategy = self._strategy
            self._restoration = Restoration(strategy.database, strategy.host, self._copied)
        return self._restoration

    def reference(self) -> URL:
        return self._strategy.database.reference()

    def close(self) -> Sequence[BaseException]:
        breaches = self._work.close()
        self._connections.discard()
        if self._restoration is not None:
            self._restoration.close()
        self._strategy.database.drop(self._copied)
        return breaches
