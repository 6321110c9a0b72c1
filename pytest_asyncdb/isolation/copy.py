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
        self._database = database
        self._host = host
        self._pool: DirectPool | None = None
        #: A database that is put back and can be used again.
        self._spare: Restoration | None = None

    def view(self, request: ViewRequest) -> View:
        spare, self._spare = self._spare, None
        if spare is not None and self._pool is not None:
            return DirectView(self, self._pool, request.test, spare)
        ref = self._database.copy(request.prefetch, self._prefetch)
        if self._pool is None:
            self._pool = DirectPool(Connector(self._database, self._host, ref.url))
        self._pool.lead_to(ref.url)
        restoration = Restoration(self._database, self._host, ref)
        if self._database.backend.restores_whole:
            restoration.remember()
        return DirectView(self, self._pool, request.test, restoration)

    def reference(self) -> URL:
        return self._database.reference()

    def _prefetch(self, ref: DatabaseRef) -> None:
        """Called in a background thread when a copy for a later test has been made."""
        if self._pool is not None:
            self._pool.prefetch(ref.url)

    def finish(self, view: DirectView) -> Sequence[BaseException]:
        breaches = view.work.close(view.keeping)
        ref, restoration = view.restoration.ref, view.restoration
        assert ref is not None
        assert self._pool is not None
        reusable = self._database.backend.restores_whole and not view.watched
        if reusable and not view.keeping and self._is_put_back(restoration):
            self._spare = restoration
            return breaches
        restoration.close()
        self._pool.discard()
        if view.keeping:
            view.kept = self._database.keep(ref)
        self._database.drop(ref)
        return breaches

    def _is_put_back(self, restoration: Restoration) -> bool:
        """Put the database of a test back. False: that failed; the next test gets another one."""
        try:
            changed, restored = restoration.put_back()
        except Exception:
            return False
        return restored and not any(word.startswith(LEFT_OPEN) for word in changed)

    def close(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None and spare.ref is not None:
            spare.close()
            self._database.drop(spare.ref)
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
