"""The plugin's own event loop, run in place: one connection serves any loop and any thread.

The drivers' connections live on a private loop that has no thread of its own. Code that needs a
connection runs that loop for a moment, in the calling thread: a sync fixture until the work is
done, a test's coroutine for at most ``PATIENCE`` seconds. A call that takes longer is parked: the
caller's loop watches the private loop's selector, and runs the private loop whenever something
arrives. So other tasks, timeouts and cancellation go on meanwhile.

A connection works on any loop and in any thread, and no thread is started here. docs/loops.md says
what the alternatives cost. This module knows neither databases nor pytest.
"""

from __future__ import annotations

import asyncio
import functools
import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

from greenlet import getcurrent

# Not from the package sqlalchemy.util: that costs two more calls for each statement.
from sqlalchemy.util.concurrency import await_only, greenlet_spawn

from pytest_asyncdb._engines import selector_loop
from pytest_asyncdb._engines.asyncio_internals import pause, resume, running_loop, set_running_loop
from pytest_asyncdb._engines.greenlet_parents import Carrier, Place
from pytest_asyncdb._engines.private_loop import Parking, PrivateLoop
from pytest_asyncdb._engines.sqlalchemy_internals import GREENLET_MARK

T = TypeVar("T")

#: Ends the work of a future on the server, so that its connection stays usable.
Ending = Callable[["asyncio.Future[Any]"], Coroutine[Any, Any, None]]

#: Seconds for which the caller's loop may stand still while the private loop runs. Most statements
#: on a local server take less, and nothing in a test measures time this finely.
PATIENCE = 0.002

#: Seconds that a cancelled call gets to end on the server.
CANCEL_PATIENCE = 5.0


@types.coroutine
def _next_turn() -> Generator[None, None, None]:
    """Suspend once, like ``asyncio.sleep(0)`` but in one call."""
    yield


class HostLoop:
    """A private event loop that runs in the calling thread when a call needs it.

    There is one in each process; :meth:`close` ends it. All methods can be called from any thread.
    """

    def __init__(self) -> None:
        self._private = PrivateLoop()
        self.loop = self._private.loop
        self._parking = Parking(self._private)
        #: How to end each parked call on the server.
        self._endings: dict[asyncio.Task[Any], Ending | None] = {}

    @property
    def runs_here(self) -> bool:
        """Whether this loop runs the caller's code."""
        return running_loop() is self.loop

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run *work* to its end and return its result. Blocks the caller.

        Args:
            work: The coroutine; it runs on the private loop.
            timeout: Seconds after which *work* is cancelled; None: no limit.

        Raises:
            TimeoutError: *work* did not end in time, and was cancelled.
        """
        # The lock keeps other threads from starting the task: a greenlet in it cannot change
        # threads.
        with self._private.lock:
            task = self.loop.create_task(work)
            try:
                self._turn(task, timeout)
                if not task.done():
                    raise TimeoutError(f"no answer within {timeout:g} s")
            finally:  # also after a signal, such as that of a test's time limit
                for _ in range(2):  # psycopg asks the server to cancel, and waits for its answer
                    if not task.done():
                        task.cancel()
                        self._turn(task, CANCEL_PATIENCE)
            return task.result()

    def call(
        self,
        function: Callable[..., T],
        *args: Any,
        on_cancel: Ending | None = None,
        as_running: bool = True,
        patience: float = PATIENCE,
    ) -> T:
        """Call sync SQLAlchemy code from a SQLAlchemy greenlet. What it awaits runs on the private
        loop.

        *function* does not run in a task of the private loop: any thread may run that loop, but a
        greenlet stays in its thread.

        Args:
            function: Code of a SQLAlchemy adapter. It awaits by calling its greenlet's parent.
            on_cancel: Ends the awaited work on the server when the caller's task is cancelled;
                called with the future of that work.
            as_running: If True, the private loop is the running one for *function*, so that futures
                that it creates belong to that loop. If False, *function* may run a loop of its own.
            patience: Seconds for which the caller's loop may stand still.

        Raises:
            sqlalchemy.exc.MissingGreenlet: The call has to wait and was not made from a SQLAlchemy
                greenlet, as with a real connection.
        """
        outer = running_loop()
        if outer is self.loop:
            return function(*args)
        current = getcurrent()
        if not getattr(current, GREENLET_MARK, False):
            carried = functools.partial(
                self.call, function, *args, as_running=as_running, patience=patience
            )
            return Carrier(carried).switch()  # type: ignore[no-any-return]
        parent = current.parent
        place = Place(None, parent)
        place.await_here = functools.partial(self._await, outer, on_cancel, patience)
        current.parent = place
        set_running_loop(self.loop if as_running else outer)
        try:
            return function(*args)
        finally:
            set_running_loop(outer)
            current.parent = parent  # type: ignore[assignment]

    def call_in_thread(self, function: Callable[..., T], *args: Any, timeout: float) -> T:
        """Like :meth:`call`, for a background thread.

        While *function* waits for an answer, the private loop is free, so other threads go on. A
        new loop in this thread waits.

        Raises:
            TimeoutError: After *timeout* seconds; what *function* awaits is cancelled.
        """
        outer = pause()
        try:
            work = greenlet_spawn(lambda: self.call(function, *args, patience=0.0))
            return selector_loop.run(asyncio.wait_for(work, timeout))
        finally:
            resume(*outer)

    async def await_here(self, work: Awaitable[T]) -> T:
        """Await something that belongs to the private loop, from a coroutine on any loop."""
        outer = asyncio.get_running_loop()
        if outer is self.loop:
            return await work
        task = self._private.start(work, PATIENCE)
        self._set_timer()
        if not task.done():
            try:
                await self._parking.wait(task, outer)
            finally:
                if not task.done():  # the caller was cancelled
                    self._end(task, None)
        return task.result()

    async def iterate_here(self, generator: Any) -> AsyncGenerator[Any]:
        """Iterate over a generator that belongs to the private loop, from a coroutine on any
        loop."""
        end: Any = object()
        try:
            while (value := await self.await_here(anext(generator, end))) is not end:
                yield value
        finally:
            await self.await_here(generator.aclose())

    def suspend(self) -> None:
        """Suspend the caller's task for one turn of its loop, as every statement on a real
        connection does.

        Other tasks run meanwhile, so two tasks that use one session collide as in production.
        SQLAlchemy also checks that a statement suspends (``AwaitRequired``). Outside of its
        greenlets SQLAlchemy raises its own error: a lazy load fails in tests as it fails in
        production.

        Raises:
            sqlalchemy.exc.MissingGreenlet: The caller is not in a SQLAlchemy greenlet.
        """
        await_only(_next_turn())

    def attend(self, outer: asyncio.AbstractEventLoop) -> Callable[[], None]:
        """Let *outer* run the private loop whenever something arrives, even if no call waits.

        Returns:
            A function that ends this.
        """
        self._parking.enter(outer)
        return lambda: self._parking.leave(outer)

    async def end_parked(self) -> None:
        """End every parked call on its server. Must be awaited on this loop."""
        parked = list(self._endings.items())
        for task, on_cancel in parked:
            if on_cancel is None:
                task.cancel()
            else:
                await on_cancel(task)
        if parked:
            await asyncio.wait([task for task, _ in parked], timeout=CANCEL_PATIENCE)

    def close(self) -> None:
        """Cancel the tasks that are left, and close the loop. May be called twice."""
        if self.loop.is_closed():
            return
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        if left:
            self._private.start(asyncio.gather(*left, return_exceptions=True), CANCEL_PATIENCE)
        self.run(self.loop.shutdown_asyncgens())
        self.loop.close()

    def _turn(self, task: asyncio.Task[Any], patience: float | None) -> None:
        """Continue *task*."""
        self._private.turn(task, patience)
        self._set_timer()

    def _set_timer(self) -> None:
        """Set the timer again after the private loop has run, because its next timer may have
        changed."""
        if self._private.waiting and (outer := running_loop()) is not None:
            self._parking.set_timer(outer)

    def _await(
        self,
        outer: asyncio.AbstractEventLoop | None,
        on_cancel: Ending | None,
        patience: float,
        place: Place,
        awaitable: Awaitable[Any],
    ) -> Any:
        task = self._private.start(awaitable, patience if outer is not None else None, at_once=True)
        if outer is not None and self._private.waiting:
            self._parking.set_timer(outer)
        if not task.done():
            assert outer is not None  # without a caller's loop there is no limit
            inside = running_loop()
            set_running_loop(outer)
            self._endings[task] = on_cancel
            try:
                place.wait(self._parking.wait(task, outer))
            except BaseException:
                if not task.done():
                    self._end(task, on_cancel)
                raise
            finally:
                del self._endings[task]
                set_running_loop(inside)
        return task.result()

    def _end(self, task: asyncio.Task[Any], on_cancel: Ending | None) -> None:
        """End a call after its caller was cancelled, so that the connection survives."""
        if on_cancel is None:
            task.cancel()
        else:
            with self._private.lock:  # as in run()
                self._private.start(on_cancel(task), CANCEL_PATIENCE)
                self._set_timer()
        self._turn(task, CANCEL_PATIENCE)
        if task.done() and not task.cancelled():
            task.exception()  # retrieved: the caller sees its own cancellation
