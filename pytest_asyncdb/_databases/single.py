"""The one database that may be used, where the account may not make others.

It is not copied: it is built in place, and built anew where a server with many databases
would give another copy. The owner of the servers reserves it for the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pytest_asyncdb import errors
from pytest_asyncdb._databases import messages
from pytest_asyncdb._databases.provisioner import PATIENCE, Provisioner, contents, empty
from pytest_asyncdb._databases.sql import Connection
from pytest_asyncdb.abc import Backend, Database, DatabaseRef, Driver, Restorer, Server

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from pytest_asyncdb._databases.plan import SchemaPlan

#: How the names of databases begin that are ours, whatever they hold.
_OURS = "asyncdb_"
#: What may be there already: an administrator has made it for the account.
_PLACES = ("schema ", "extension ")
#: How many things that stand in the way an error shows.
_SHOWN = 5


class Reservation:
    """This run's claim to the one database; blocks. What the run makes in it is dropped at
    the end.

    Args:
        server: Its maintenance database is the one.
    """

    def __init__(self, server: Server, backend: Backend, driver: Driver) -> None:
        self._server = server
        self._backend = backend
        self._name = server.maintenance or ""
        self._sql = Connection(backend.url(server, driver.name, None), driver)
        self._loop = asyncio.new_event_loop()

    def take(self) -> Server:
        """Wait for nobody, and see that the database is empty, or ours.

        Returns:
            The server, with what the database keeps: schemas and extensions.

        Raises:
            ServerStartError: Another run uses it, or it holds something.
        """
        try:
            return self._loop.run_until_complete(self._take())
        except BaseException:
            self._end()
            raise

    def give_back(self) -> None:
        """Leave the database as it was."""
        try:
            self._loop.run_until_complete(empty(self._sql, self._backend, self._server))
        finally:
            self._end()

    def _end(self) -> None:
        self._loop.run_until_complete(self._sql.close())
        self._loop.close()

    async def _take(self) -> Server:
        # The server lets go of it when the connection ends, however that happens.
        lock = self._backend.hold_lock(hashlib.sha256(self._name.encode()).hexdigest()[:8])
        assert lock is not None
        await self._sql.each(self._backend.keep_session())
        ((free,),) = await self._sql.fetch(lock)
        if not free:
            raise messages.single_in_use(self._name, self._server.reason)
        found = await contents(self._sql, self._backend)
        kept = tuple(what for what, _ in found if what.startswith(_PLACES))
        things = [what for what, _ in found if what not in kept]
        if things and not self._name.startswith(_OURS):
            raise messages.single_not_empty(self._name, self._server.reason, things, _SHOWN)
        self._server = dataclasses.replace(self._server, single=kept)
        await empty(self._sql, self._backend, self._server)
        return self._server


class SingleDatabase(Database):
    """The one database, while it holds what one plan says."""

    def __init__(
        self, provisioner: Provisioner, plan: SchemaPlan, engine_options: Mapping[str, Any]
    ) -> None:
        self.server = provisioner.server
        self.backend = provisioner.backend
        self.driver = provisioner.driver
        self.budget = provisioner.budget
        self.engine_options = engine_options
        self._provisioner = provisioner
        self._plan = plan
        self._built: DatabaseRef | None = None
        self._failed: errors.AsyncdbError | None = None

    @property
    def url(self) -> URL:
        return self._build().url

    @contextlib.contextmanager
    def restorer(self, copied: DatabaseRef | None = None) -> Iterator[Restorer]:
        host, built = self._provisioner.host, self._build()
        sql = Connection(built.url, self.driver)
        with self.budget.using():
            try:
                restorer = self.backend.restorer(sql, built, built)
                host.run(restorer.remember(), PATIENCE)
                yield restorer
            finally:
                host.run(sql.close(), PATIENCE)

    def reference(self) -> URL:
        raise messages.needs_databases("asyncdb.changes()", self.server.reason)

    def prepare(self) -> None:
        """Build the database; blocks."""
        self._build()

    def discard(self) -> None:
        self._built = None

    def copy(self, coming: int, made: Callable[[DatabaseRef], None]) -> DatabaseRef:
        raise messages.needs_databases("isolation 'copy'", self.server.reason)

    def drop(self, copied: DatabaseRef, first: Callable[[], None]) -> None:
        raise NotImplementedError("there is no other database")

    def keep(self, copied: DatabaseRef | None = None) -> DatabaseRef | Exception:
        return messages.needs_databases("--asyncdb-keep", self.server.reason)

    def relax(self) -> None:
        """There is nothing that is kept."""

    def close(self) -> None:
        """The end of the run empties it."""
        self._built = None

    def _build(self) -> DatabaseRef:
        if self._failed is not None:
            raise self._failed
        if self._built is None:
            try:
                self._built = self._provisioner.rebuild(self._plan, self.engine_options)
            except errors.AsyncdbError as error:
                self._failed = error  # for the next tests, without another try
                raise
        return self._built
