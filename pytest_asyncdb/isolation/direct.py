"""What ``reset`` and ``copy`` have in common: a test's view of real connections.

What happens to the database after the test, the strategies decide.
"""

from __future__ import annotations

import abc
import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from pytest_asyncdb.isolation import messages
from pytest_asyncdb.isolation.direct_connection import DirectConnection, DirectWork
from pytest_asyncdb.isolation.work import WorkView

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from pytest_asyncdb.isolation.direct_pool import DirectPool
    from pytest_asyncdb.isolation.restoring import Restoration

#: Seconds that a query for a report waits for a lock of the test.
_LOCK_PATIENCE = 1.0

T = TypeVar("T")


class DirectView(WorkView):
    """What a test sees of a database on which its connections are real ones."""

    independent = True
    #: Sequences and AUTO_INCREMENT start where the template's do in each test.
    reset_sequences = True
    _work: DirectWork

    def __init__(self, pool: DirectPool, test: str) -> None:
        self._pool = pool
        self._work = DirectWork(pool, test)
        super().__init__(self._work, functools.partial(DirectConnection, self._work))

    @property
    @abc.abstractmethod
    def restoration(self) -> Restoration:
        """Puts the database back."""

    def read(self, work: Callable[[Connection], T]) -> T | None:
        if (writer := self._work.writer()) is not None:
            return None if self._work.calls.running else writer.read(work)
        backing = self._pool.take()
        try:
            backing.connect()
            backing.script(backing.backend.lock_timeout(_LOCK_PATIENCE))
            return backing.read(work)
        finally:
            backing.discard()  # its lock_timeout is not the test's

    @contextlib.contextmanager
    def checkpoint(self) -> Iterator[None]:
        changed = self.restoration.changed(self.reset_sequences)
        if changed:
            raise messages.checkpoint_behind_changes(self._work.test, changed)
        try:
            yield
        finally:
            self._work.undo_open()
            changed, restored = self.restoration.put_back(self.reset_sequences)
            if not restored:
                raise messages.checkpoint_lost(self._work.test, changed)
