"""The outer transaction of a test, and the units of work that nest in it.

Each unit of work is a *branch*: a savepoint, opened at its first statement; commit releases
it, rollback goes back to it. Branches stack: one that is opened in the context of an open
branch (the same task, or a child of it) nests in it, another one waits for its turn.

Nothing here knows drivers or backends beyond their data; ``_link.py`` holds the real
connection, ``_dbapi.py`` is what SQLAlchemy sees.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import threading
from typing import TYPE_CHECKING, Any

from pytest_asyncdb import errors
from pytest_asyncdb.isolation._link import PATIENCE
from pytest_asyncdb.isolation._statements import ends_transaction

if TYPE_CHECKING:
    from pytest_asyncdb.isolation._dbapi import Branch
    from pytest_asyncdb.isolation._link import Link

#: The branches that are open in this context, outermost first.
_CHAIN: contextvars.ContextVar[tuple[Branch, ...]] = contextvars.ContextVar(
    "asyncdb_chain", default=()
)

#: The savepoint right behind BEGIN: where it is gone, something ended the transaction.
GUARD = "asyncdb_guard"


class OuterTransaction:
    """The transaction around one test: begun at its first statement, undone at its end.

    Args:
        link: The kept connection.
        test: The node id, for errors.
        turn: Seconds that a unit of work waits for another one to end.
    """

    def __init__(self, link: Link, test: str, turn: float) -> None:
        self.link = link
        self.test = test
        self.turn = turn
        self.begun = False
        self.ended = False
        #: Units of work that are closed now are undone by the next one, or by our ROLLBACK.
        self.deferring = False
        #: The statement that ended the transaction, if one did.
        self.lost: str | None = None
        #: The rollback did not go through.
        self.stuck = False
        self.breaches: list[BaseException] = []
        #: Calls under way, with the names of the tasks that made them.
        self.calls: dict[object, str] = {}
        self.stack: list[Branch] = []
        #: SQLAlchemy's pool entries of this test's checkouts.
        self.entries: list[Any] = []
        self._lock = threading.RLock()
        self._waiting: list[asyncio.Future[None]] = []
        self._numbers = itertools.count(1)

    # The life of the transaction.

    def end(self) -> None:
        """From now on nothing of the application reaches the server."""
        self.ended = True
        self._wake()

    def close(self) -> list[BaseException]:
        """Undo everything. Blocks; the result says what broke the isolation."""
        self.end()
        if self.calls:
            self._end_calls()
        if self.begun and self.lost is None and self.link.is_open:
            try:
                self.link.script([f"ROLLBACK TO SAVEPOINT {GUARD}", "ROLLBACK"])
            except Exception as error:
                self._end_failed(error)
        self.stack.clear()
        for entry in self.entries:
            # A session that the test forgot would warn in some later test, when the garbage
            # collector finds it.
            if entry.in_use:
                entry.invalidate()
        return self.breaches

    def _end_calls(self) -> None:
        """Something of the test still runs a statement: end it, and say so."""
        self.breaches.append(errors.left_running(self.test, sorted(set(self.calls.values()))))
        # Its answer could be taken for the answer to our ROLLBACK.
        self.link.end_calls()
        self.link.discard()

    def _end_failed(self, error: Exception) -> None:
        if isinstance(error, TimeoutError) or not self.link.is_open:
            self.stuck = True
            self.breaches.append(errors.teardown_stuck(self.test, PATIENCE, error))
        else:
            # The guard is gone: something ended the transaction and began another one.
            self.lose("not known; a transaction was begun after the one of the test")
        self.link.discard()

    def lose(self, statement: str) -> errors.IsolationBreach:
        """Note that *statement* ended the outer transaction."""
        self.lost = statement
        error = errors.lost_transaction(self.test, statement, self.link.backend.label)
        self.breaches.append(error)
        return error

    # Statements of the application.

    def check_before(self, statement: str) -> None:
        """Refuse what must not reach the server.

        Raises:
            IsolationBreach: The statement would end the transaction, or one did before.
            IsolationConflict: The test has ended.
        """
        if self.ended:
            raise errors.after_the_test(self.test)
        if self.lost is not None:
            raise errors.lost_transaction(self.test, self.lost, self.link.backend.label)
        backend = self.link.backend
        why = ends_transaction(statement, not backend.capabilities.transactional_ddl)
        if why is not None:
            error = errors.refused_statement(statement, backend.label, self.test, why)
            self.breaches.append(error)
            raise error

    def check_after(self, statement: str) -> None:
        """Has the statement ended the transaction all the same?

        Raises:
            IsolationBreach: It has.
        """
        if self.lost is None and self.link.is_open and self.link.in_transaction() is False:
            raise self.lose(statement)

    def failed(self, error: BaseException) -> None:
        """After an error of the driver: rebuild what a deadlock has taken away."""
        code = self.link.driver.error_code(error)
        if code not in self.link.backend.transaction_ending_errors:
            return
        statements = [self.link.begin, f"SAVEPOINT {GUARD}"]
        for branch in self.stack:
            statements += [f"SAVEPOINT {name}" for name in (branch.savepoint, *branch.nested)]
        self.link.script(statements)
        error.add_note(
            "asyncdb: the server undid the test's whole outer transaction, with what the test"
            ' had committed before. To keep that: @pytest.mark.asyncdb(isolation="reset")'
        )

    # Branches.

    def push(self, branch: Branch) -> str:
        """Open *branch* on top of the stack when it is its turn. Returns its savepoint."""
        from sqlalchemy.util import await_only

        while not self._try_push(branch):
            await_only(self._wait())
        name = f"asyncdb_{next(self._numbers)}"
        statements = [f"SAVEPOINT {name}"]
        if not self.begun:
            self.link.adapted  # noqa: B018  # connected before the first statement
            statements = [self.link.begin, f"SAVEPOINT {GUARD}", *statements]
        try:
            self.link.script(statements)
        except BaseException:
            self.stack.remove(branch)
            self._wake()
            raise
        self.begun = True
        return name

    def _try_push(self, branch: Branch) -> bool:
        with self._lock:
            self.settle()
            chain = [open_ for open_ in _CHAIN.get() if open_.savepoint is not None]
            if self.stack and self.stack[-1] not in chain:
                return False
            self.stack.append(branch)
            _CHAIN.set((*chain, branch))
            return True

    async def _wait(self) -> None:
        """Wait until some unit of work has ended."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if not self.stack or self.ended:
                return
            holder = self.stack[-1]
            self._waiting.append(future)
        try:
            await asyncio.wait_for(future, self.turn)
        except TimeoutError:
            raise errors.waited_for_turn(self.test, self.turn, holder.task) from None

    def _wake(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            loop = future.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_resolve, future)

    def settle(self) -> None:
        """End the branches on top of the stack that wait for their end."""
        with self._lock:
            settled = False
            while self.stack and self.stack[-1].ending is not None:
                self._settle_top(self.stack[-1])
                settled = True
        if settled:
            self._wake()

    def _settle_top(self, branch: Branch) -> None:
        below = self.stack[-2] if len(self.stack) > 1 else None
        release = f"RELEASE SAVEPOINT {branch.savepoint}"
        undo = f"ROLLBACK TO SAVEPOINT {branch.savepoint}"
        kept = branch.ending == "commit" and (branch.wrote or branch.absorbed)
        statements = [release] if branch.ending == "commit" else [undo, release]
        if kept and below is not None:
            if below.wrote or below.nested or below.ending is not None:
                below.absorbed = True
            else:
                # The outer unit has written nothing: with its savepoint behind this commit,
                # its rollback will not undo what is committed here.
                statements += [
                    f"RELEASE SAVEPOINT {below.savepoint}",
                    f"SAVEPOINT {below.savepoint}",
                ]
        try:
            if self.link.is_open and self.lost is None:
                self._settle_on_server(statements, branch, undo, release)
        finally:
            self.stack.pop()
            branch.forget()

    def _settle_on_server(
        self, statements: list[str], branch: Branch, undo: str, release: str
    ) -> None:
        try:
            self.link.script(statements)
        except Exception:
            if branch.ending == "rollback":
                raise
            # A failed transaction: COMMIT would roll it back, so this does too.
            self.link.script([undo, release])


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
