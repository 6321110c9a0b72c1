"""Tasks that use one checkout at the same time collide or take turns, as on a real connection."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

from sqlalchemy.util.concurrency import await_only

from pytest_asyncdb._engines.asyncio_internals import resolve, running_loop
from pytest_asyncdb._engines.sqlalchemy_internals import raise_as_dbapi_error
from pytest_asyncdb.isolation.dbapi import Checkout


class Turns:
    """Decides which task runs a statement on a checkout, and which tasks wait.

    They wait on the loop of their test. So a task that ends its transaction right after its
    statement comes before them.
    """

    __slots__ = ("_checkout", "_collision", "_ending", "_executing", "_held", "_waiting", "tasks")

    def __init__(self, checkout: Checkout) -> None:
        self._checkout = checkout
        #: Number of tasks that run a statement or wait to run one.
        self.tasks = 0
        #: True while a task runs a statement.
        self._executing = False
        self._waiting: list[asyncio.Future[None]] = []
        #: ``_ending``: a task is ending the transaction. ``_held``: statements wait until it has
        #: ended.
        self._ending = self._held = False
        #: The error that waiting tasks raise; None: they continue to wait.
        self._collision: Exception | None = None

    def enter(self) -> None:
        """Begin a statement: let other tasks run, as a real connection does, and wait for their
        statements.

        Call :meth:`leave` when the statement has ended.

        Raises:
            Exception: The driver's InterfaceError if another task has closed the connection
                meanwhile. The driver's error for two operations at once if another task is ending
                the transaction.
        """
        checkout = self._checkout
        self.tasks += 1
        try:
            checkout.work.host.suspend()
            while (self._executing or self._held) and self._collision is None:
                self._wait()
            if self._collision is not None:
                self._raise(self._collision)
            if checkout.closed:
                checkout.work.check_open("")  # its test may have ended
                dbapi: Any = checkout.work.connector.dialect.loaded_dbapi
                # SQLAlchemy's aiosqlite module has no InterfaceError.
                error = getattr(dbapi, "InterfaceError", dbapi.ProgrammingError)
                raise error("the connection is closed")
        except BaseException:
            self.tasks -= 1
            raise
        self._executing = True

    def leave(self) -> None:
        """End the statement of :meth:`enter`."""
        self.tasks -= 1
        self._executing = False
        self._held = self._ending
        if self._waiting:
            self._wake()

    def before_end(self, begun: bool) -> None:
        """Let other tasks run before the application ends a transaction, as a real connection does.

        Args:
            begun: True if the transaction has begun on the server.

        Raises:
            Exception: The driver's own, if another task is running a statement.
        """
        checkout = self._checkout
        driver = checkout.work.connector.driver
        error = driver.in_progress(begun) if self.tasks and not driver.takes_turns else None
        if error is not None and (self._executing or not begun):
            self._raise(error)
        try:
            if begun or (self.tasks and driver.takes_turns):
                self._collision = error
                self._ending = checkout.work.connector.ends_first
                self._wake()
                checkout.work.host.suspend()
            while self._executing and driver.takes_turns:
                self._wait()
        finally:
            self._collision = None
            held, self._ending, self._held = self._held, False, False
            if held:
                self._wake()

    def _wait(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await_only(future)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if future.get_loop() is not running_loop():
                resolve(future)
            elif not future.done():  # its task runs before what this task waits for
                future.set_result(None)

    def _raise(self, error: Exception) -> NoReturn:
        raise_as_dbapi_error(self._checkout.adapted, error)
        raise error
