"""Real connections for ``reset`` and ``copy``: a test's checkouts, work and view.

A connection lives on the plugin's own loop, so it works on any loop and in any thread. It is kept
from test to test. The strategies decide what happens to the database after the test.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy.engine import Connection

from pytest_asyncdb._engines.asyncio_internals import running_loop, running_task
from pytest_asyncdb._engines.host_loop import CANCEL_PATIENCE
from pytest_asyncdb._engines.pool_internals import CheckoutPool
from pytest_asyncdb._engines.sqlalchemy_internals import in_greenlet
from pytest_asyncdb._record.sql_text import begins_transaction, only_queries
from pytest_asyncdb.isolation import messages
from pytest_asyncdb.isolation.backing_connection import BackingConnection
from pytest_asyncdb.isolation.connector import PATIENCE
from pytest_asyncdb.isolation.dbapi import Checkout
from pytest_asyncdb.isolation.direct_pool import DirectPool
from pytest_asyncdb.isolation.restoring import Restoration
from pytest_asyncdb.isolation.started_tasks import task_name
from pytest_asyncdb.isolation.turns import Turns
from pytest_asyncdb.isolation.two_phase import Prepared
from pytest_asyncdb.isolation.work import Call, Owner, Work
from pytest_asyncdb.isolation.work_view import WorkView

T = TypeVar("T")

#: Seconds that a query for a report waits for a lock that the test holds.
_LOCK_PATIENCE = 1.0


class DirectWork(Work):
    """The work of one test on its real connections."""

    def __init__(self, pool: DirectPool, test: str) -> None:
        #: Connections that will be closed, because SQLAlchemy gave up their checkouts.
        self._given_up: list[BackingConnection] = []
        #: Connections with a transaction that :meth:`finish` or :meth:`close` will end.
        self.unfinished: list[BackingConnection] = []
        self.prepared = Prepared()
        self._pool = pool
        self._taken: dict[BackingConnection, Owner] = {}
        self._stop_attending: Callable[[], None] | None = None
        super().__init__(pool.connector, test)

    def in_transaction(self, besides: BackingConnection | None) -> list[Owner]:
        return [
            owner
            for backing, owner in list(self._taken.items())
            if backing is not besides and backing.is_open and backing.in_transaction() is not False
        ]

    def take(self, checkout: int, pool: CheckoutPool) -> BackingConnection:
        """Take a connection for a checkout from *pool*, and open it.

        In a greenlet, opening does not block the caller's loop. As in SQLAlchemy's pool, a
        connection that was given back is used again first, as it is. The "connect" listeners of the
        first pool, that of the test's own engine, run on every connection.
        """
        self.check_open("connect")
        used = bool(pool.idle)
        backing = pool.idle.pop(0) if used else self._pool.take([self.pools[0], pool])
        # When more listeners run on a used connection, the plugin no longer sees what the test
        # changed.
        backing.touched |= used and bool(backing.to_run())
        if backing.is_open and backing.was_ended():
            backing.discard()
        self._taken[backing] = Owner(task_name(running_task()), checkout)
        for one in self._given_up:
            one.give_up()  # a finalizer may have been unable to; the locks would stay
        backing.open(wait=not in_greenlet())
        return backing

    def give_back(self, backing: BackingConnection, pool: CheckoutPool, usable: bool) -> None:
        """Take back the connection of a checkout that has ended.

        Its transaction may still be open if a statement was cancelled.
        """
        if not usable or self.ended:
            self._given_up.append(backing)
        elif backing in self._taken and backing not in self.unfinished:
            del self._taken[backing]
            if backing.is_open and not backing.in_transaction():
                pool.idle.append(backing)
            else:
                backing.discard()

    def attend(self) -> None:
        """Let messages that the server sends by itself (NOTIFY) arrive while the running loop
        waits."""
        loop = running_loop()
        if self._stop_attending is None and loop is not None:
            self._stop_attending = self.host.attend(loop)

    def close(self, keeping: bool = False) -> list[BaseException]:
        """End everything that the test has left open. Blocks, with a time limit.

        With *keeping*, open transactions are committed, as far as the server can.
        """
        self.ended = True
        if keeping and not self.running:
            self.end_open("commit")
        if self._stop_attending is not None:
            self._stop_attending()
        if self.running:
            self.breaches.append(self.left_running())
            with contextlib.suppress(Exception):  # the connections are closed below
                self.host.run(self.host.end_parked(), PATIENCE)
            self._given_up += self._taken
        self.abandon(self.cursors)
        used = [*self._taken, *self._given_up, *(one for pool in self.pools for one in pool.idle)]
        self.invalidate_checkouts()
        self._taken.clear()
        self._given_up += used if self.prepared else ()
        self.host.run(self._clean([one for one in dict.fromkeys(used) if one.is_open]))
        self._pool.keep(one for one in used if one not in self._given_up)
        for backing in self._given_up:
            backing.discard()
        self.breaches += self.prepared.roll_back(self._pool.take, self.test)
        return self.breaches

    async def _clean(self, connections: Sequence[BackingConnection]) -> None:
        """Clean the sessions.

        Those that will be closed are cleaned, too: else the server would release their locks later.
        """
        ends = [asyncio.wait_for(one.clean(), CANCEL_PATIENCE) for one in connections]
        pairs = zip(connections, await asyncio.gather(*ends, return_exceptions=True), strict=True)
        self._given_up += [one for one, clean in pairs if clean is not True]

    def end_open(self, how: str) -> None:
        """Commit or roll back the open transactions. Blocks."""
        for backing in self._taken:
            self._end(backing, how)

    def finish(self) -> None:
        """End the transactions that have a deferred end. Blocks.

        Called when something else uses the database, such as a fixture that ends later.
        """
        while self.unfinished and not self.ended:
            self._end(self.unfinished.pop(), "commit" if self.keeping else "rollback")

    def _end(self, backing: BackingConnection, how: str) -> None:
        if backing.is_open and backing.in_transaction() is not False:
            with contextlib.suppress(Exception):  # the pool closes it if it stays in a transaction
                backing.run(getattr(backing.adapted, how), patience=CANCEL_PATIENCE)


class DirectConnection(Checkout):
    """One checkout. It takes its backing connection at first use."""

    work: DirectWork
    pool: CheckoutPool
    turns: Turns

    def __init__(self, work: DirectWork, number: int, pool: CheckoutPool) -> None:
        self.__dict__.update(work=work, number=number, pool=pool, taken=None, turns=Turns(self))
        self.autocommit = work.connector.autocommit

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("taken", "autocommit", "read_only", "closed", "failed"):
            self.__dict__[name] = value
        else:
            self.backing.touched = True
            self.backing.call(setattr, self.adapted, name, value)

    @property
    def backing(self) -> BackingConnection:
        if self.taken is None:
            self.failed = None
            try:
                self.taken = self.work.take(self.number, self.pool)
            except AttributeError as error:  # raised by a listener
                self.failed = error
                raise
        return self.taken

    @property
    def driver_connection(self) -> Any:
        """The driver's connection, with which the application may do anything.

        Messages of the server reach it while the loop of the test runs.
        """
        self.backing.touched = True
        self.work.attend()
        return super().driver_connection

    def run_async(self, function: Callable[[Any], Any]) -> Any:
        """Call *function* with the driver's connection, as SQLAlchemy's adapted connections do."""
        self.backing.touched = True
        return self.backing.call(self.adapted.run_async, function)

    def close(self) -> None:
        """Give the connection back. SQLAlchemy's pool calls this after a rollback."""
        self._give_back(usable=True)

    def terminate(self) -> None:
        """Give the connection up. SQLAlchemy calls this after a cancellation, or in its
        finalizer."""
        if self.taken is not None:
            self.work.log.ended("ROLLBACK", self.number)
            if in_greenlet() and not self.work.host.runs_here:  # a finalizer must not wait
                self.taken.give_up()
        self._give_back(usable=False)

    def _give_back(self, usable: bool) -> None:
        self.closed = True
        backing, self.taken = self.taken, None
        if backing is not None:
            self.work.give_back(backing, self.pool, usable)

    def set_level(self, level: str | None) -> None:
        if level is None and (self.taken is None or not self.taken.is_open):
            return
        connector, adapted = self.work.connector, self.adapted
        level = level or ("AUTOCOMMIT" if connector.autocommit else None)
        if level is None:
            self.backing.call(connector.dialect.reset_isolation_level, adapted)
        else:
            self.backing.call(connector.dialect.set_isolation_level, adapted, level)
        self.autocommit = level == "AUTOCOMMIT"
        if (begin := connector.backend.begin_at_write) is not None:
            # On SQLite the isolation level decides how the driver begins transactions.
            self.backing.call(connector.driver.adapt, adapted, None if self.autocommit else begin)

    def set_read_only(self, value: bool) -> None:
        if self.taken is not None or value:
            dialect: Any = self.work.connector.dialect
            self.backing.call(dialect.set_readonly, self.adapted, value)
        self.read_only = value

    def run(self, statement: str, work: Callable[[str], Any], whole: bool, call: Call) -> Any:
        succeeded = False
        self.turns.enter()  # the test may end meanwhile
        try:
            self.work.check_open(statement)
            backing = self.backing
            with call:
                self.work.finish()
                result = backing.call(self._begun, work, statement)
            succeeded = True
            return result
        finally:
            self.turns.leave()
            self.work.prepared.note(statement, call.parameters, succeeded)

    def _begun(self, work: Callable[[str], Any], statement: str) -> Any:
        begin = self.work.connector.backend.begin_at_write
        needs_none = only_queries(statement) or begins_transaction(statement)
        if begin is None or self.autocommit or needs_none:
            return work(statement)
        # Ask the driver: in_transaction() of the backing connection returns None during a call like
        # this.
        backing = self.backing
        if backing.driver.in_transaction(backing.connection) is False:
            cursor = self.adapted.cursor()
            cursor.execute(begin)
            cursor.close()
        return work(statement)

    def end(self, how: str) -> None:
        if (self.taken is None and not self.turns.tasks) or self.closed:
            return
        if not self.work.deferring and in_greenlet():
            taken = self.taken
            begun = taken is not None and taken.is_open and taken.in_transaction() is not False
            self.turns.before_end(begun)  # the test may end meanwhile
        backing = self.taken
        if backing is None or not backing.is_open:
            return
        if self.work.deferring or self.work.ended:
            self.work.unfinished.append(backing)
            if self.work.running:  # a running call may wait for a lock of this one
                self.work.finish()
        else:
            if not self.autocommit:
                self.work.log.ended(how.upper(), self.number)
            backing.call(getattr(backing.adapted, how))


class DirectView(WorkView):
    """The view of a test on real connections.

    Args:
        finish: The strategy's part of ``View.close``.
        restoration: Restores the database.
        reset_sequences: True if sequences and AUTO_INCREMENT start where the template's do.
    """

    independent = True
    work: DirectWork

    def __init__(
        self,
        finish: Callable[[DirectView], Sequence[BaseException]],
        pool: DirectPool,
        test: str,
        restoration: Restoration,
        reset_sequences: bool = True,
    ) -> None:
        self.restoration = restoration
        self.reset_sequences = reset_sequences
        self._finish = finish
        self._pool = pool
        super().__init__(DirectWork(pool, test), DirectConnection)

    def expect_checkpoints(self) -> None:
        self.restoration.remember()

    def close(self) -> Sequence[BaseException]:
        return self._finish(self)

    def read(self, work: Callable[[Connection], T]) -> T | None:
        backing = self._pool.take(())
        try:
            backing.connect()
            backing.script(backing.backend.lock_timeout(_LOCK_PATIENCE))
            return backing.read(work)
        finally:
            backing.discard()  # other connections have another lock_timeout

    @contextlib.contextmanager
    def checkpoint(self) -> Iterator[None]:
        changed = self.restoration.changed(self.reset_sequences)
        if unseen := self.restoration.unseen:
            raise messages.CHECKPOINT_UNSEEN.of(self.work.test, *unseen)
        if changed:
            raise messages.CHECKPOINT_AFTER_CHANGES.of(self.work.test, messages.changed(changed))
        try:
            yield
        finally:
            self.work.end_open("rollback")
            changed, restored = self.restoration.put_back(self.reset_sequences)
            if not restored:
                raise messages.CHECKPOINT_LOST.of(self.work.test, messages.changed(changed))
