"""Explains why a statement did not get its lock: who holds locks, and where that code stands.

The server ends the wait (``Backend.lock_wait``). Then one query asks it which sessions hold
locks in the test's database. A wait that took as long as the plugin's limit raises
:class:`StatementBlocked`. For a shorter limit, which the test or its application has set, the
driver's own error stays, and the explanation becomes a section of the test's report. A test
whose statements get their locks pays nothing.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_asyncdb import errors
from pytest_asyncdb._engines.asyncio_internals import running_task
from pytest_asyncdb._record.call_sites import standing
from pytest_asyncdb._record.statement_log import Statement, line_of
from pytest_asyncdb._record.text import error_text, one_line
from pytest_asyncdb.isolation.calls import Calls, task_name

if TYPE_CHECKING:
    from pytest_asyncdb._record.statement_log import StatementLog
    from pytest_asyncdb.isolation.backing_connection import BackingConnection

#: A statement that fails within so many seconds did not wait for its lock (NOWAIT).
_WAITED = 0.2
#: Seconds by which a server may end a wait early.
_MARGIN = 0.5
#: Seconds in which the server must say who holds locks.
_ANSWER = 10.0
#: Statements of a transaction that the explanation shows.
_SHOWN = 5
#: Characters of a statement that the explanation shows.
_WIDTH = 160


class Session(NamedTuple):
    """One connection of the test at this moment.

    Args:
        number: The server's number of the session; None: it has none.
        who: The task that uses it.
        place: Lines of the user's code where that task stands, the innermost last.
        checkout: Its checkout in the statement log; None: the log has no others.
    """

    number: int | None
    who: str
    place: Sequence[str]
    checkout: int | None

    def described(self, what: str) -> list[str]:
        """Lines that say *what* the session does, for whom, and where that code stands."""
        number = "" if self.number is None else f"session {self.number}, "
        line = f"{what}: {number}{self.who}"
        return [f"{line}, at", *(f"  {one}" for one in self.place)] if self.place else [line]


class Owner:
    """The task or thread that has taken a connection."""

    __slots__ = ("_task", "_thread", "checkout")

    def __init__(self, checkout: int | None) -> None:
        task = running_task()
        self.checkout = checkout
        self._task = None if task is None else weakref.ref(task)
        self._thread = threading.get_ident()

    def session(self, link: BackingConnection, calls: Calls) -> Session:
        """Describe the connection as it is now."""
        call = next((one for one in list(calls.running) if one.connection is link), None)
        task = None if self._task is None else self._task()
        if call is not None and call.task is not None:
            task = call.task
        if self._task is not None and (task is None or task.done()):
            return Session(link.number, "a task that has ended", [], self.checkout)
        who = "no task" if task is None else task_name(task)
        place = standing(task, self._thread, None if call is None else call.greenlet)
        return Session(link.number, who, place, self.checkout)


class LockWaits:
    """Explains the waits for locks of one test.

    Args:
        test: Its node id.
        log: Its statements.
        calls: Its calls that are under way.
        taken: Returns the connections that are in use.
        breaches: Errors with which the test fails at its end, also if its code swallows them.
    """

    def __init__(
        self,
        test: str,
        log: StatementLog,
        calls: Calls,
        taken: Callable[[], Iterable[tuple[BackingConnection, Owner]]],
        breaches: list[BaseException],
    ) -> None:
        self._test = test
        self._log = log
        self._calls = calls
        self._taken = taken
        self._breaches = breaches

    def explain(
        self, link: BackingConnection, error: BaseException, statement: str, seconds: float
    ) -> None:
        """Explain *error* of a statement if it is about a lock. Blocks.

        Raises:
            StatementBlocked: The plugin's own limit has ended the wait.
        """
        backend = link.backend
        if seconds < _WAITED or link.driver.error_code(error) not in backend.lock_timeout_codes:
            return
        lines = [f"statement: {one_line(statement, _WIDTH)}"]
        lines += [
            line
            for one, owner in list(self._taken())
            if one is link
            for line in owner.session(one, self._calls).described("Waiting")
        ]
        holders = self._holders(link)
        for holder in holders:
            lines += self._described(holder)
        if not holders:
            lines.append("No other session holds locks, as far as the server says.")
        if seconds < backend.lock_wait - _MARGIN:
            self._log.waits.append("\n".join([f"no lock within {seconds:.1f} s", *lines]))
            return
        lines.append(error_text(error))
        blocked = _blocked(self._test, seconds, lines, holders)
        self._breaches.append(blocked)
        raise blocked from None

    def _holders(self, waiter: BackingConnection) -> list[Session | str]:
        """The sessions besides *waiter* that hold locks; if there are none, those in a
        transaction."""
        own = {
            link: owner.session(link, self._calls)
            for link, owner in list(self._taken())
            if link is not waiter and link.is_open and link.in_transaction() is not False
        }
        rows = None
        with contextlib.suppress(Exception):  # no right to ask, or no connection left
            rows = waiter.host.run(_ask(waiter), _ANSWER)
        if rows is None:
            return list(own.values())
        others = [row for row in rows if row[0] != waiter.number]
        others = [row for row in others if row[3]] or others
        sessions = {one.number: one for one in own.values()}
        return [sessions.get(row[0]) or ", ".join(str(w) for w in row[:3] if w) for row in others]

    def _described(self, holder: Session | str) -> list[str]:
        """Who holds locks, where that code stands, and which statements may have taken them."""
        if isinstance(holder, str):
            return [f"Holding locks: another session ({holder})"]
        lines = holder.described("Holding locks")
        ran = self._log.running(holder.checkout)
        if ran:
            lines.append(f"  in its transaction:{' …' * (len(ran) > _SHOWN)}")
        for step in ran[-_SHOWN:]:
            assert isinstance(step.entry, Statement)
            places = "".join(f" -- {line_of(place)}" for place in step.entry.places[:1])
            lines.append(f"    {step.number}  {one_line(step.entry.sql, _WIDTH)}{places}")
        return lines


async def _ask(link: BackingConnection) -> Sequence[tuple[Any, ...]] | None:
    """Ask over another connection which sessions hold locks; None: the server cannot say."""
    connector = link.connector
    statements = link.backend.holders(connector.url.database or "")
    if not statements:
        return None
    async with connector.engine.connect() as connection:
        own = (await connection.get_raw_connection()).driver_connection
        if len(statements) == 1:
            return await link.driver.ask(own, statements[0])
        return (await link.driver.run(own, statements))[-1]


def _blocked(
    test: str, seconds: float, lines: Sequence[str], holders: Sequence[Session | str]
) -> errors.StatementBlocked:
    """The error for a statement that waited as long as the plugin allows.

    Args:
        lines: The statement, who waited, and who holds locks.
    """
    own = any(isinstance(one, Session) for one in holders)
    held = f" that {'the test itself' if own else 'another session'} holds" if holders else ""
    remedy = "commit, roll back or close its session"
    return errors.StatementBlocked(
        f"waited {seconds:.0f} s for a lock{held}",
        [f"test: {test}", *lines],
        [
            f"end the transaction that holds the lock before: {remedy}"
            if own
            else "end the other session or its transaction; it does not use the test's engine"
        ],
    )
