"""What a test's connections are at, for whoever asks because one of them waits for a lock.

Noted is only who has taken a connection; everything else is looked up where there is a wait.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pytest_asyncdb._engines.asyncio_internals import running_task
from pytest_asyncdb._record.call_sites import standing
from pytest_asyncdb.abc import Session, TimedOut
from pytest_asyncdb.isolation.calls import Calls, task_name

if TYPE_CHECKING:
    from pytest_asyncdb.isolation.backing_connection import BackingConnection

#: What fails within so many seconds has not waited for its lock, but asked for it (NOWAIT).
_WAITED = 0.2


class Owner:
    """Who has taken a connection.

    Args:
        checkout: The number of the checkout, as the journal has it; None: the connection's
            transaction lasts as long as the test.
    """

    __slots__ = ("_task", "_thread", "checkout")

    def __init__(self, checkout: int | None) -> None:
        task = running_task()
        self.checkout = checkout
        self._task = None if task is None else weakref.ref(task)
        self._thread = threading.get_ident()

    def session(self, link: BackingConnection, calls: Calls) -> Session:
        """What there is to know about it now."""
        call = next((one for one in list(calls.running) if one.connection is link), None)
        task = None if self._task is None else self._task()
        if call is not None and call.task is not None:
            task = call.task
        gone = self._task is not None and (task is None or task.done())
        if gone:
            who, place = "a task that has ended", []
        else:
            who = "no task" if task is None else task_name(task)
            place = standing(task, self._thread, None if call is None else call.greenlet)
        return Session(
            number=link.number,
            who=who,
            place=place,
            statement=None if call is None else call.statement,
            checkout=self.checkout,
            in_transaction=link.is_open and link.in_transaction() is not False,
            link=link,
        )


class LockWaits:
    """The connections of one test, and what became of their waits for locks.

    Args:
        calls: What is under way.
        taken: Gives the connections that are in use.
        breaches: Takes what the test must be told at its end.
    """

    def __init__(
        self,
        calls: Calls,
        taken: Callable[[], Iterable[tuple[BackingConnection, Owner]]],
        breaches: list[BaseException],
    ) -> None:
        self.timed_out: TimedOut | None = None
        self._calls = calls
        self._taken = taken
        self._breaches = breaches
        #: Why the statement of a connection is ended by us.
        self._ended: dict[object, BaseException] = {}

    def sessions(self) -> list[Session]:
        return [owner.session(link, self._calls) for link, owner in list(self._taken())]

    def end(self, session: Session | None, why: BaseException) -> None:
        self._breaches.append(why)
        if session is not None:
            self._ended[session.link] = why

    def explain(
        self, link: BackingConnection, error: BaseException, statement: str, seconds: float
    ) -> None:
        """After an error of a statement: was it about a lock?

        Raises:
            StatementBlocked: It was ended by :meth:`end`.
        """
        code = link.driver.error_code(error)
        why = self._ended.pop(link, None)
        if why is not None and code in link.backend.cancelled:
            raise why from None
        if code in link.backend.lock_timeouts and seconds >= _WAITED and self.timed_out:
            found = [one for one in self.sessions() if one.link is link]
            self.timed_out(found[0] if found else None, statement, seconds)
