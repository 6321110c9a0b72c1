"""The strategy ``reset``: real commits on real connections; what changed is put back.

The server tells what changed, so it does not matter who changed it: the test's engine, another
one, a subprocess. How it tells, and how a table is put back, is the backend's business
(:class:`~pytest_asyncdb.abc.Restorer`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_asyncdb import errors
from pytest_asyncdb.abc import LEFT_OPEN, Database, Isolation, View, Wish
from pytest_asyncdb.isolation._link import PATIENCE, Connector
from pytest_asyncdb.isolation._real import RealConnections, RealView
from pytest_asyncdb.isolation._restoration import Restoration

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from pytest_asyncdb._loops import HostLoop


class Reset(Isolation):
    """Everything that a test commits is put back after it."""

    name = "reset"

    def __init__(self, database: Database, host: HostLoop) -> None:
        self._database = database
        self._host = host
        self._connections: RealConnections | None = None
        self._restoration: Restoration | None = None

    def view(self, wish: Wish) -> View:
        if self._connections is None:
            connector = Connector(self._database, self._host, self._database.url)
            self._connections = RealConnections(connector)
        return _ResetView(self, self._connections, wish.test)

    @property
    def restoration(self) -> Restoration:
        """What puts the kept database back; made while that equals its template."""
        if self._restoration is None:
            self._restoration = Restoration(self._database, self._host)
        return self._restoration

    def reference(self) -> URL:
        """The URL of an untouched database."""
        return self._database.reference()

    def put_back(self, test: str) -> Sequence[BaseException]:
        """Make the database what its template is. Blocks; returns what broke the isolation."""
        try:
            changed, restored = self.restoration.put_back()
        except Exception as error:
            self.forget()
            return [errors.teardown_stuck(test, PATIENCE, error)]
        if not restored:
            self.forget()
        left = [word for word in changed if word.startswith(LEFT_OPEN)]
        return [errors.left_connected(test, left)] if left else []

    def forget(self) -> None:
        """The database cannot be put back: the next test gets a new one."""
        self.close()
        self._database.discard()

    def close(self) -> None:
        connections, self._connections = self._connections, None
        restoration, self._restoration = self._restoration, None
        try:
            if restoration is not None:
                restoration.close()
        finally:
            if connections is not None:
                connections.close()


class _ResetView(RealView):
    def __init__(self, strategy: Reset, connections: RealConnections, test: str) -> None:
        super().__init__(connections, test)
        self._strategy = strategy
        strategy.restoration  # noqa: B018  # made before anything has changed

    @property
    def restoration(self) -> Restoration:
        return self._strategy.restoration

    def reference(self) -> URL:
        return self._strategy.reference()

    def close(self) -> Sequence[BaseException]:
        breaches = self._work.close()
        return [*breaches, *self._strategy.put_back(self._work.test)]
