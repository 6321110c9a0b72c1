"""How many connections this process may have to a server, so that all workers find room.

The server says how many it has room for; each worker gets the same share. Connections that are
kept for later are closed where another one is needed, and only then it is an error.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from pytest_asyncdb._databases import messages
from pytest_asyncdb.abc import Server

#: What a process needs at least: one for the test and one for its database, and one to spare.
MINIMUM = 3
#: For what is opened for a moment, and not counted: to build a template, to cancel a statement.
_SPARE = 1


class Budget:
    """The connections of one process to one server, those that are kept included.

    Args:
        workers: The processes that share the server's room.
        make_room: Closes connections that are kept for later; False: there was none.

    Raises:
        ServerUnavailable: There is no room for so many workers.
    """

    def __init__(
        self, server: Server, label: str, workers: int, make_room: Callable[[], bool]
    ) -> None:
        self._limit: int | None = None
        self._server = server
        self._label = label
        self._workers = workers
        self._make_room = make_room
        self._lock = threading.Lock()
        #: How many are open.
        self.open = 0
        #: How many wait for room, which nobody may take before them.
        self._waiting = 0
        if server.room is not None:
            share = server.room // workers
            if share < MINIMUM:
                raise messages.no_room_for_workers(
                    label, server.reason, server.room, workers, MINIMUM
                )
            self._limit = share - _SPARE

    def take(self) -> None:
        """Count a connection that is about to be opened. Blocks; not for our own loop.

        Raises:
            IsolationConflict: There is no room for it, also without those that are kept.
        """
        with self._lock:
            self._waiting += 1
        try:
            while not self._count():
                if not self._make_room():
                    if self._count():
                        return  # one that was being opened ahead has come to nothing meanwhile
                    assert self._limit is not None
                    assert self._server.room is not None
                    raise messages.no_room_for_connection(
                        *(self._label, self._server.reason),
                        *(self.open, self._server.room, self._workers),
                    )
        finally:
            with self._lock:
                self._waiting -= 1

    def take_spare(self) -> bool:
        """Count a connection that is opened only where there is room that nobody waits for; False:
        there is none."""
        return self._waiting == 0 and self._count()

    def _count(self) -> bool:
        with self._lock:
            if self._limit is not None and self.open >= self._limit:
                return False
            self.open += 1
            return True

    def give(self) -> None:
        """A connection has been closed, or was not opened."""
        with self._lock:
            self.open -= 1

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """A connection that may be open while this is entered."""
        self.take()
        try:
            yield
        finally:
            self.give()
