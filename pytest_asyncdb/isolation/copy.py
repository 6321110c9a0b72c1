"""The strategy ``copy``: each test has a database of its own, a copy of the template.

Copies are made ahead and dropped behind while the tests run (``Database.copy``). Nothing of a
test can reach another one, so there is nothing to watch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pytest_asyncdb.abc import Database, Isolation, View
from pytest_asyncdb.isolation._link import Connector
from pytest_asyncdb.isolation._real import RealConnections, RealWork, deferring

if TYPE_CHECKING:
    from pytest_asyncdb._loops import HostLoop
    from pytest_asyncdb._types import Copied


class Copy(Isolation):
    """Every test has its own database."""

    name = "copy"

    def __init__(self, database: Database, host: HostLoop) -> None:
        self._database = database
        self._host = host
        self._connections: RealConnections | None = None

    def view(self, test: str, coming: int) -> View:
        copied = self._database.copy(coming)
        if self._connections is None:
            connector = Connector(self._database, self._host, copied.url)
            self._connections = RealConnections(connector)
        self._connections.connector.url = copied.url
        return _CopyView(self, self._connections, copied, test)

    def drop(self, copied: Copied) -> None:
        """The test that had *copied* is over."""
        self._database.drop(copied)

    def close(self) -> None:
        connections, self._connections = self._connections, None
        if connections is not None:
            connections.close()


class _CopyView(View):
    def __init__(
        self, strategy: Copy, connections: RealConnections, copied: Copied, test: str
    ) -> None:
        self._strategy = strategy
        self._connections = connections
        self._copied = copied
        self._work = RealWork(connections, test)
        self.engine = connections.engine(self._work)
        self.url = copied.url

    def closing(self) -> AbstractContextManager[None]:
        return deferring(self._work)

    def close(self) -> Sequence[BaseException]:
        breaches = self._work.close()
        self._connections.discard()
        self._strategy.drop(self._copied)
        return breaches
