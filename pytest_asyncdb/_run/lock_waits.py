"""Who waits for whom: what is said where a statement of a test does not get its lock.

A test that waits for a lock which it holds itself would wait for ever. ``liveness.py`` looks where
a test makes no progress; where a driver raises the end of its own patience, who holds locks is
asked at once. Costs nothing where nobody waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pytest_asyncdb import errors
from pytest_asyncdb._databases.connection import AutocommitConnection
from pytest_asyncdb._record import text
from pytest_asyncdb._record.sql_text import only_queries
from pytest_asyncdb._record.statement_text import last_lines
from pytest_asyncdb._run import messages

if TYPE_CHECKING:
    from pytest_asyncdb._record.statement_log import Statement
    from pytest_asyncdb.abc import Backend, Driver, Server, Session, View

T = TypeVar("T")

#: Queries that lock rows, or something else.
_LOCKING = re.compile(
    r"\bfor\s+(no\s+key\s+)?update\b|\bfor\s+(key\s+)?share\b|lock", re.IGNORECASE
)
#: Seconds in which a server answers.
_ANSWER = 10.0


class _Wait(NamedTuple):
    """A row of ``Backend.waits``."""

    seconds: float
    waiter: int
    user: str | None
    application: str | None
    holder: int
    holder_user: str | None
    holder_application: str | None


class LockMonitor:
    """Looks after the waits of one test.

    Args:
        test: Its node id.
    """

    def __init__(
        self, view: View, server: Server, backend: Backend, driver: Driver, test: str
    ) -> None:
        self._view = view
        self._server = server
        self._backend = backend
        self._driver = driver
        self._test = test
        self._database = view.url.database or ""
        view.waits.timed_out = self.timed_out

    def look(self, limit: float) -> float | None:
        """End the waits that have lasted for *limit* seconds. Blocks.

        Returns:
            In how many seconds the next one will have; None: nobody waits, or nobody knows.
        """
        query = self._backend.waits(self._database)
        return None if query is None else self._ask(lambda sql: self._look(sql, query, limit))

    def timed_out(self, waiter: Session | None, statement: str, seconds: float) -> None:
        """Note who holds locks, as a driver has given up waiting for one. Blocks."""
        lines = text.wrap(f"no lock within {seconds:.1f} s: {_short(statement)}", "", "  ")
        lines += [] if waiter is None else self._by(waiter)
        holders = self._holders(waiter)
        for holder in holders:
            lines += self._about(holder, "In a transaction then")
        if not holders:
            lines.append("Nobody else is in a transaction, as far as can be seen.")
        self._view.journal.waits.append("\n".join(lines))

    async def _look(self, sql: AutocommitConnection, query: str, limit: float) -> float | None:
        waits = [_Wait(*row) for row in await sql.fetch(query)]
        sessions = self._sessions()
        for number in {one.waiter for one in waits if one.seconds >= limit}:
            waiter = sessions.get(number)
            mine = [one for one in waits if one.waiter == number]
            self._view.waits.end(waiter, self._blocked(mine, sessions))
            await sql.each([self._backend.cancel(number)])
        return min((limit - one.seconds for one in waits if one.seconds < limit), default=None)

    def _blocked(
        self, waits: Sequence[_Wait], sessions: dict[int, Session]
    ) -> errors.StatementBlocked:
        """The error for one session that waits."""
        first = waits[0]
        waiter = sessions.get(first.waiter)
        lines = self._by(waiter or _other(first.waiter, first.user, first.application))
        if waiter is not None and waiter.statement is not None:
            lines += text.wrap(f"for the statement: {_short(waiter.statement)}", "", "  ")
        held = []
        for one in waits:
            found = sessions.get(one.holder)
            held += [] if found is None else [found]
            other = _other(one.holder, one.holder_user, one.holder_application)
            lines += self._about(found or other, "It is held by")
        outer = any(one.checkout is None for one in held)
        return messages.blocked(self._test, float(first.seconds), lines, bool(held), outer)

    def _holders(self, waiter: Session | None) -> list[Session | str]:
        """Who is in a transaction besides *waiter*; those that only read where nobody else is."""
        sessions = self._sessions()
        mine = None if waiter is None else waiter.link
        known = [one for one in self._view.waits.sessions() if one.link is not mine]
        query = self._backend.holders(self._database)
        rows = self._ask(lambda sql: sql.answer(query)) if query else None
        if rows is None:
            return [one for one in known if one.in_transaction]
        number = None if waiter is None else waiter.number
        others = [row for row in rows if row[0] != number]
        others = [row for row in others if row[3]] or others
        return [
            sessions.get(number) or _other(number, user, application)
            for number, user, application, _ in others
        ]

    def _ask(self, work: Callable[[AutocommitConnection], Coroutine[Any, Any, T]]) -> T | None:
        """Do *work* over a new connection. Blocks; bounded in time. None: it cannot be done.

        In a thread of its own: the caller's may have a loop.
        """
        found: list[T] = []

        async def ask() -> None:
            url = self._backend.url(self._server, self._driver.name, None)
            async with asyncio.timeout(_ANSWER), AutocommitConnection(url, self._driver) as sql:
                found.append(await work(sql))

        def run() -> None:
            # The account may not ask, or there is no room for a connection.
            with contextlib.suppress(Exception):
                asyncio.run(ask())

        thread = threading.Thread(target=run, name="asyncdb-blocked", daemon=True)
        thread.start()
        thread.join(2 * _ANSWER)
        return found[0] if found else None

    def _sessions(self) -> dict[int, Session]:
        return {one.number: one for one in self._view.waits.sessions() if one.number is not None}

    def _by(self, waiter: Session | str) -> list[str]:
        """Who waits for a lock, and where."""
        if isinstance(waiter, str):
            return [f"It was waited for by: {waiter}"]
        return _placed(f"It was waited for by: {_name(waiter)}", "at", waiter)

    def _about(self, holder: Session | str, what: str) -> list[str]:
        """Who holds a lock, where that stands, and what may have taken it."""
        if isinstance(holder, str):
            return [f"{what}: {holder}"]
        journal = self._view.journal
        ran = journal.running(holder.checkout)
        ran = [step for step in ran if _locks(step.entry)] or ran
        return [
            *_placed(f"{what}: {_name(holder)}", "which stands at", holder),
            *(["and has run in its transaction", *last_lines(ran, journal.hidden)] if ran else []),
        ]


def _locks(entry: Statement | str) -> bool:
    """Is it a statement that takes locks which others than a change of the schema wait for?"""
    if isinstance(entry, str):
        return False
    return not only_queries(entry.sql) or _LOCKING.search(entry.sql) is not None


def _placed(who: str, word: str, session: Session) -> list[str]:
    if not session.place:
        return [who]
    return [f"{who}, {word}", *(f"  {line}" for line in session.place)]


def _other(number: int | None, user: str | None, application: str | None) -> str:
    if not number:
        return "nobody knows whom; a prepared transaction, perhaps"
    known = ", ".join(word for word in (str(number), user, application) if word)
    return f"another session ({known})"


def _name(session: Session) -> str:
    return session.who if session.number is None else f"session {session.number}, {session.who}"


def _short(statement: str) -> str:
    return text.one_line(statement, 200)
