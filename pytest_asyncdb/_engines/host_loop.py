"""Our own event loop, run in place: how one connection is used from any loop or thread.

The drivers' connections live on a private loop that no thread runs for itself. Whoever
needs something of them runs that loop for a moment, right where it is: a sync fixture
until the work is done, a test's coroutine for at most ``PATIENCE`` seconds. What takes
longer is parked: the caller's loop watches the private loop's selector and turns it
whenever something arrives, so that other tasks, timeouts and cancellation go on.

No connection ever notices on which loop or in which thread a test runs, and no thread is
started here. docs/loops.md says what the alternatives cost. Nothing here knows
databases or pytest.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import selectors
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from pytest_asyncdb._engines.greenlet_pool import Result, provider

#: pytest leaves our frames out of the tracebacks of drivers' errors.
__tracebackhide__ = True

T = TypeVar("T")

#: Ends the work of a future on the server, so that its connection stays usable.
Ending = Callable[["asyncio.Future[Any]"], Coroutine[Any, Any, None]]

#: Seconds for which a caller's loop may stand still while ours runs: most statements on
#: a local server need less, and nothing in a test measures time this finely.
PATIENCE = 0.002

#: Seconds that a cancelled call gets to end on the server.
CANCEL_PATIENCE = 5.0


#: Rounds of our loop without a look at its sockets: one to send a statement, and one to go on
#: with the answer. Each look is a system call.
_IN_HAND = 2


class _Selector(selectors.DefaultSelector):
    """A selector that stops its loop when that has been idle for long enough.

    A loop calls ``select`` with a timeout of 0 while callbacks are ready, and with None or
    a positive one when it is about to block: the one public place to see that.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop: asyncio.AbstractEventLoop | None = None
        #: ``time.monotonic()`` until which the loop may block; None: as long as it likes.
        self.until: float | None = None
        #: Seconds until the loop's next timer, when it was last found idle.
        self.next_timer: float | None = None
        #: How often the loop may go on with what is ready before it looks for more.
        self.in_hand = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            if self.in_hand > 0:
                self.in_hand -= 1
                return []
            return super().select(timeout)
        if self.until is None:
            return super().select(timeout)
        left = max(0.0, self.until - time.monotonic())
        events = super().select(left if timeout is None else min(left, timeout))
        if not events and time.monotonic() >= self.until:
            self.next_timer = timeout
            assert self.loop is not None
            self.loop.stop()
        return events


class HostLoop:
    """A private event loop that runs where it is needed.

    One for each process; :meth:`close` ends it. All methods may be called from any
    thread.
    """

    def __init__(self) -> None:
        self._selector = _Selector()
        self.loop = asyncio.SelectorEventLoop(self._selector)
        self.loop.set_debug(False)
        self._selector.loop = self.loop
        self._turning = threading.RLock()
        #: What the loop is being run for; its end stops the loop.
        self._awaited: asyncio.Task[Any] | None = None
        #: How calls that are parked are ended on the server.
        self._endings: dict[asyncio.Task[Any], Ending | None] = {}
        #: How many calls are parked, by the loop that waits for them.
        self._parked: dict[asyncio.AbstractEventLoop, int] = {}
        #: The next wake-up for our timers, by the loop that gives it.
        self._alarms: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}

    @property
    def runs_here(self) -> bool:
        """Is the caller's code run by this loop?"""
        return asyncio._get_running_loop() is self.loop

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run *work* to its end and return its result; blocks the caller.

        Args:
            work: The coroutine; it runs on the private loop.
            timeout: Seconds after which it is cancelled; None: no limit.

        Raises:
            TimeoutError: *work* did not end in time, and was cancelled.
        """
        # Else another thread might begin it, and a greenlet stays in the thread that has begun it.
        with self._turning:
            task = self.loop.create_task(self._stopping(work))
            self._turn(task, timeout)
            while timeout is None and not task.done():
                self._turn(task, None)  # a stop that was meant for a call that was interrupted
            if not task.done():
                for _ in range(2):  # psycopg asks the server to cancel, and waits for its answer
                    if not task.done():
                        task.cancel()
                        self._turn(task, CANCEL_PATIENCE)
                raise TimeoutError(f"no answer within {timeout:g} s")
            if task.cancelled():
                raise TimeoutError("no answer from the server")  # cancel_all()
            return task.result()

    def cancel_all(self) -> None:
        """Cancel everything that runs on this loop: the server is gone. From any thread."""

        def cancel() -> None:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()

        with contextlib.suppress(RuntimeError):  # it is closed
            self.loop.call_soon_threadsafe(cancel)

    def call(
        self,
        function: Callable[..., T],
        *args: Any,
        on_cancel: Ending | None = None,
        as_running: bool = True,
    ) -> T:
        """Call sync SQLAlchemy code from a SQLAlchemy greenlet; what it awaits runs here.

        Args:
            function: Code of a SQLAlchemy adapter: it awaits by switching greenlets.
            on_cancel: Ends the awaitable's work on the server when the caller's task is
                cancelled; gets the future of that work.
            as_running: Our loop is the running one for *function*, so that the futures which
                it makes belong to it; False: it may run a loop of its own.

        Raises:
            sqlalchemy.exc.MissingGreenlet: Not called from a SQLAlchemy greenlet, as with
                a real connection.
        """
        return self._drive(lambda work: self._await(work, on_cancel), as_running, function, args)

    def call_aside(self, function: Callable[..., T], *args: Any, timeout: float) -> T:
        """Like :meth:`call`, from a thread that nobody waits for: while *function* waits for an
        answer, others run the loop, and what they do not take up is taken up here.

        Args:
            timeout: Seconds after which what *function* awaits is cancelled.

        Raises:
            TimeoutError: *function* did not do otherwise when that happened.
        """
        return self._drive(lambda work: self._await_aside(work, timeout), True, function, args)

    def _drive(
        self,
        wait: Callable[[Awaitable[Any]], Any],
        as_running: bool,
        function: Callable[..., T],
        args: tuple[Any, ...],
    ) -> T:
        """Call *function* in a greenlet, and *wait* for what it awaits.

        The greenlet is this thread's, and so is whoever turns it: a greenlet in a task of our loop
        could be turned by one thread only.
        """
        outer = asyncio._get_running_loop()
        if outer is self.loop:
            return function(*args)
        inside = self.loop if as_running else outer
        inner = provider()
        awaitable = _switch(inside, outer, inner.switch, function, args)
        while not isinstance(awaitable, Result):
            try:
                result = wait(awaitable)
            except BaseException as error:  # handed to the code that awaits, which decides
                awaitable = _switch(inside, outer, inner.throw, error)
            else:
                awaitable = _switch(inside, outer, inner.switch, result)
        inner.rest()
        return awaitable.result()  # type: ignore[no-any-return]

    async def await_here(self, work: Awaitable[T]) -> T:
        """Await something of the private loop from a coroutine on any loop."""
        outer = asyncio.get_running_loop()
        if outer is self.loop:
            return await work
        task = self.loop.create_task(self._stopping(work))
        self._turn(task, PATIENCE)
        if not task.done():
            await self._park(task, outer)
        return task.result()

    def require_greenlet(self) -> None:
        """Switch to the caller's loop and back, as every call of a real connection does.

        SQLAlchemy wants to see that (``AwaitRequired``), and outside of its greenlets it
        raises its own error: without it a lazy load would work in tests and fail in
        production.

        Raises:
            sqlalchemy.exc.MissingGreenlet: This is not a SQLAlchemy greenlet.
        """
        from sqlalchemy.util import await_only

        await_only(_nothing())

    def attend(self, outer: asyncio.AbstractEventLoop) -> Callable[[], None]:
        """Let *outer* turn our loop whenever something arrives, also where nobody waits for it.

        Returns:
            What ends it.
        """
        self._watch(outer)
        return lambda: self._unwatch(outer)

    async def end_parked(self) -> None:
        """End every call that is parked, on its server; awaited on this loop."""
        parked = list(self._endings.items())
        for task, on_cancel in parked:
            if on_cancel is None:
                task.cancel()
            else:
                await on_cancel(task)
        if parked:
            await asyncio.wait([task for task, _ in parked], timeout=CANCEL_PATIENCE)

    def close(self) -> None:
        """Cancel what is left and close the loop. May be called twice."""
        if self.loop.is_closed():
            return
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        if left:
            self._turn(self.loop.create_task(self._stopping(_settle(left))), CANCEL_PATIENCE)
        self.run(self.loop.shutdown_asyncgens())
        self.loop.close()

    def _await(
        self,
        awaitable: Awaitable[Any],
        on_cancel: Ending | None,
    ) -> Any:
        outer = asyncio._get_running_loop()
        task = self.loop.create_task(self._stopping(awaitable))
        self._turn(task, PATIENCE if outer is not None else None)
        if not task.done():
            from sqlalchemy.util import await_only

            assert outer is not None  # without a loop to go back to, ours ran to the end
            self._endings[task] = on_cancel
            try:
                await_only(self._park(task, outer))
            except BaseException:
                if not task.done():
                    self._end(task, on_cancel)
                raise
            finally:
                del self._endings[task]
        return task.result()

    def _await_aside(self, awaitable: Awaitable[T], timeout: float) -> T:
        with self._turning:
            task = self.loop.create_task(self._stopping(awaitable))
        self._turn_aside(task, timeout)
        if not task.done():
            task.cancel()
            self._turn_aside(task, CANCEL_PATIENCE)
            raise TimeoutError(f"no answer within {timeout:g} s")
        return task.result()

    def _end(
        self,
        task: asyncio.Task[Any],
        on_cancel: Ending | None,
    ) -> None:
        """End a call whose caller was cancelled; the connection should survive."""
        if on_cancel is None:
            task.cancel()
        else:
            with self._turning:  # as in run()
                ending = self.loop.create_task(self._stopping(on_cancel(task)))
                self._turn(ending, CANCEL_PATIENCE)
        self._turn(task, CANCEL_PATIENCE)
        if task.done() and not task.cancelled():
            task.exception()  # retrieved: the caller sees its own cancellation

    async def _park(self, task: asyncio.Task[Any], outer: asyncio.AbstractEventLoop) -> None:
        """Wait for *task* on the caller's loop, which turns ours when something arrives."""
        waiter = outer.create_future()

        def finish() -> None:
            if not waiter.done():
                waiter.set_result(None)

        def wake(_: object) -> None:
            if not outer.is_closed():
                outer.call_soon_threadsafe(finish)

        task.add_done_callback(wake)
        self._watch(outer)
        try:
            await waiter
        finally:
            task.remove_done_callback(wake)
            self._unwatch(outer)

    def _watch(self, outer: asyncio.AbstractEventLoop) -> None:
        self._parked[outer] = self._parked.get(outer, 0) + 1
        if self._parked[outer] > 1:
            return
        try:
            outer.add_reader(self._selector.fileno(), self._turn_for, outer)
        except (AttributeError, NotImplementedError):
            outer.call_soon(self._poll, outer)  # no selector that can be watched: Windows
        else:
            self._turn_for(outer)  # what arrived meanwhile, and the timers

    def _unwatch(self, outer: asyncio.AbstractEventLoop) -> None:
        self._parked[outer] -= 1
        if self._parked[outer]:
            return
        del self._parked[outer]
        if outer in self._alarms:
            self._alarms.pop(outer).cancel()
        if not outer.is_closed():
            try:
                outer.remove_reader(self._selector.fileno())
            except (AttributeError, NotImplementedError):
                pass

    def _turn_for(self, outer: asyncio.AbstractEventLoop) -> None:
        """Turn our loop for a loop that has parked calls, and see to our timers."""
        self._turn(None, 0.0)
        self._set_alarm(outer)

    def _set_alarm(self, outer: asyncio.AbstractEventLoop) -> None:
        if outer in self._alarms:
            self._alarms.pop(outer).cancel()
        timer = self._selector.next_timer
        if timer is not None and outer in self._parked:
            self._alarms[outer] = outer.call_later(timer, self._turn_for, outer)

    def _poll(self, outer: asyncio.AbstractEventLoop) -> None:
        if outer in self._parked:
            self._turn(None, 0.0)
            outer.call_later(PATIENCE, self._poll, outer)

    def _turn_aside(self, task: asyncio.Task[Any], patience: float) -> None:
        """Turn the private loop whenever something arrives, until *task* is done or *patience* is
        over; others may turn it meanwhile."""
        end = time.monotonic() + patience
        self._turn(None, 0.0)
        while not task.done() and time.monotonic() < end:
            try:
                select.select([self._selector.fileno()], [], [], PATIENCE)
            except (AttributeError, ValueError, OSError):
                time.sleep(PATIENCE)  # no selector that can be watched: Windows
            self._turn(None, 0.0)

    def _turn(self, task: asyncio.Task[Any] | None, patience: float | None) -> None:
        """Run the private loop until *task* is done or *patience* is over.

        The caller's loop, if one runs in this thread, stands still meanwhile; what asyncio
        keeps for each thread is set aside with the functions that it offers for that.
        """
        outer = asyncio._get_running_loop()
        current = asyncio.current_task(outer) if outer is not None else None
        if current is not None:
            assert outer is not None
            asyncio.tasks._leave_task(outer, current)
        asyncio._set_running_loop(None)
        try:
            with self._turning:
                if task is not None and task.done():
                    return
                self._selector.until = None if patience is None else time.monotonic() + patience
                if task is None:
                    self.loop.run_forever()
                    return
                before, self._awaited = self._awaited, task
                self._selector.in_hand = _IN_HAND
                try:
                    self.loop.run_forever()
                finally:
                    self._awaited = before
                if self._parked:
                    # What became ready together with *task*: nothing else would turn us for it.
                    self._selector.until = 0.0
                    self.loop.run_forever()
                    if outer is not None:
                        self._set_alarm(outer)
        finally:
            asyncio._set_running_loop(outer)
            if current is not None:
                assert outer is not None
                asyncio.tasks._enter_task(outer, current)

    async def _stopping(self, work: Awaitable[T]) -> T:
        """*work*, whose end stops the loop if that runs for it: a callback of its task would
        take the loop another round."""
        try:
            return await work
        finally:
            if self._awaited is not None and self._awaited is asyncio.current_task():
                self.loop.stop()


def _switch(
    inside: asyncio.AbstractEventLoop | None,
    outer: asyncio.AbstractEventLoop | None,
    switch: Callable[..., Any],
    *args: Any,
) -> Any:
    """Go on with an adapter's code, for which the loop *inside* is the running one."""
    asyncio._set_running_loop(inside)
    try:
        return switch(*args)
    finally:
        asyncio._set_running_loop(outer)


async def _settle(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


async def _nothing() -> None:
    pass
