"""The view that shows a test's work on its database, and the test's engines."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy.engine import URL, Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from pytest_asyncdb._engines.pool_internals import CheckoutPool
from pytest_asyncdb._engines.sqlalchemy_internals import in_greenlet
from pytest_asyncdb.abc import View
from pytest_asyncdb.isolation import lock_waits
from pytest_asyncdb.isolation.started_tasks import late
from pytest_asyncdb.isolation.sync_side import SyncConnection, SyncSide
from pytest_asyncdb.isolation.work import Work


class WorkView(View):
    """A view that shows a test's work.

    Args:
        connect: Makes the DBAPI connection of a checkout from *work*, the checkout's number and its
            pool.
    """

    def __init__(self, work: Work, connect: Callable[[Any, int, CheckoutPool], Any]) -> None:
        numbers = itertools.count(1)

        def check_out(entry: Any, pool: CheckoutPool) -> object:
            if (error := late()) is not None:
                raise error
            work.check_open("connect")  # else the pool would wait for the connection's return
            if in_greenlet():
                work.host.suspend()  # as an engine that opens a connection does
            work.entries.append(entry)
            entry.dbapi_connection = checkout = connect(work, next(numbers), pool)
            checkout.connected(entry)
            return checkout

        self.work = work
        #: True if another connection may write to the database, also after the test.
        self.watched = False
        self.engine = AsyncEngine(work.connector.test_engine(check_out, work.pools))
        self._check_out = check_out
        self.url = work.connector.url
        self.log = work.log

    @functools.cached_property
    def sync_engine(self) -> Engine:
        work, side = self.work, SyncSide(self.work.host)
        work.at_end.append(side.close)

        def check_out(entry: Any, pool: CheckoutPool) -> object:
            checkout: Any = side.call(self._check_out, entry, pool)
            entry.dbapi_connection = made = SyncConnection(side, checkout)
            return made

        return work.connector.test_engine(check_out, work.pools, is_async=False)

    def watch(self) -> None:
        self.watched = True

    def waits(self) -> list[str]:
        return lock_waits.of_running(self.work)

    def reference(self) -> URL:
        return self.work.connector.database.reference()

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        self.work.deferring, self.work.keeping = True, self.keeping
        try:
            yield
        finally:
            self.work.deferring = False
