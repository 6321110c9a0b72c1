"""The strategy ``reset``: real commits on real connections; what changed is put back.

The server tells what changed, so it does not matter who changed it: the test's engine, another
one, a subprocess. How it tells, and how a table is put back, is the backend's business
(:class:`~pytest_asyncdb.abc.Restorer`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pytest_asyncdb import errors
from pytest_asyncdb.abc import LEFT_OPEN, Database, Isolation, Restorer, View
from pytest_asyncdb.isolation._link import PATIENCE, Connector
from pytest_asyncdb.isolation._real import RealConnections, RealWork, deferring

if TYPE_CHECKING:
    from pytest_asyncdb._loops import HostLoop


class Reset(Isolation):
    """Everything that a test commits is put back after it."""

    name = "reset"

    def __init__(self, database: Database, host: HostLoop) -> None:
        self._database = database
        self._host = host
        self._connections: RealConnections | None = None
        self._restorer: Restorer | None = None

    def view(self, test: str, coming: int) -> View:
        if self._connections is None:
            connector = Connector(self._database, self._host, self._database.url)
            self._connections = RealConnections(connector)
        if self._restorer is None:
            restorer = self._database.restorer()
            try:
                self._host.run(restorer.remember(), PATIENCE)
            except BaseException:
                self.forget()
                raise
            self._restorer = restorer
        return _ResetView(self, self._connections, test)

    def put_back(self, test: str) -> Sequence[BaseException]:
        """Make the database what its template is. Blocks; returns what broke the isolation."""
        assert self._restorer is not None
        try:
            changed, restored = self._host.run(_restore(self._restorer), PATIENCE)
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
        if connections is not None:
            connections.close()
        self._restorer = None


async def _restore(restorer: Restorer) -> tuple[Sequence[str], bool]:
    """What had changed, and whether it was put back."""
    changed = await restorer.changed()
    return changed, not changed or await restorer.restore(changed)


class _ResetView(View):
    def __init__(self, strategy: Reset, connections: RealConnections, test: str) -> None:
        self._strategy = strategy
        self._work = RealWork(connections, test)
        self.engine = connections.engine(self._work)
        self.url = connections.connector.url

    def closing(self) -> AbstractContextManager[None]:
        return deferring(self._work)

    def close(self) -> Sequence[BaseException]:
        breaches = self._work.close()
        return [*breaches, *self._strategy.put_back(self._work.test)]
