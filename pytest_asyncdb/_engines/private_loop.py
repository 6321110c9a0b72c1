"""An event loop that no thread runs for itself: whoever needs it runs it for a moment.

Calls that take longer wait on the caller's loop, which watches the private loop's selector and
timers, and runs the private loop whenever something arrives. ``host_loop.py`` says what for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pytest_asyncdb._engines.asyncio_internals import pause, resolve, resume

#: pytest leaves the plugin's frames out of the tracebacks of drivers' errors.
__tracebackhide__ = True

T = TypeVar("T")

#: Seconds between two looks at the private loop, where its selector cannot be watched.
_POLL = 0.002


class _Selector(selectors.DefaultSelector):
    """A selector that stops its loop when that has been idle for long enough.

    A loop calls ``select`` with a timeout of 0 while callbacks are ready, and with None or
    a positive one when it is about to block: the one public place to see that.
    """

    #: Stops the loop.
    stop: Callable[[], None]

    def __init__(self) -> None:
        super().__init__()
        #: ``time.monotonic()`` until which the loop may block; None: no limit.
        self.until: float | None = None
        #: Seconds until the loop's next timer, when it was last found idle.
        self.next_timer: float | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if (timeout is not None and timeout <= 0) or self.until is None:
            return super().select(timeout)
        left = max(0.0, self.until - time.monotonic())
        events = super().select(left if timeout is None else min(left, timeout))
        if not events and time.monotonic() >= self.until:
            self.next_timer = timeout
            self.stop()
        return events


#: The private loops of this process.
_LOOPS: weakref.WeakSet[PrivateLoop] = weakref.WeakSet()


def _end_in_child() -> None:
    for loop in list(_LOOPS):
        loop.end_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_end_in_child)


class PrivateLoop:
    """An event loop that any thread can run, also inside a callback of another loop."""

    def __init__(self) -> None:
        #: Its file descriptor is readable when something has arrived; Windows has none.
        self.selector = _Selector()
        self.loop = asyncio.SelectorEventLoop(self.selector)
        self.loop.set_debug(False)
        self.selector.stop = self.loop.stop
        #: Held while the loop runs.
        self.lock = threading.RLock()
        #: The task that the loop is being run for; its end stops the loop.
        self._awaited: asyncio.Task[Any] | None = None
        _LOOPS.add(self)

    def end_in_child(self) -> None:
        """Close the loop in a forked child, without effect on the parent's.

        Both have the same sockets and the same epoll object. In the child the numbers of the
        sockets get another meaning, so that nothing it still does reaches them: what drivers send
        in finalizers, and what their transports unregister.
        """
        if self.loop.is_closed():
            return
        null = os.open(os.devnull, os.O_RDWR)
        for key in self.selector.get_map().values():
            os.dup2(null, key.fd)
        os.close(null)
        with contextlib.suppress(RuntimeError):  # it is running
            self.loop.close()

    def create_task(self, work: Awaitable[T]) -> asyncio.Task[T]:
        """A task for :meth:`turn`."""
        return self.loop.create_task(self._stopping(work))

    def turn(
        self, task: asyncio.Task[Any] | None, patience: float | None, again: bool = False
    ) -> None:
        """Run the loop until *task* is done or *patience* is over.

        The caller's loop, if one runs in this thread, stands still meanwhile.

        Args:
            task: A task of :meth:`create_task`; None: run what is ready.
            patience: Seconds; None: no limit.
            again: Run also what became ready together with *task*.
        """
        outer = pause()
        try:
            with self.lock:
                if task is not None and task.done():
                    return
                self.selector.until = None if patience is None else time.monotonic() + patience
                self._awaited = task
                try:
                    self.loop.run_forever()
                finally:
                    self._awaited = None
                if again:
                    self.selector.until = 0.0
                    self.loop.run_forever()
        finally:
            resume(*outer)

    async def _stopping(self, work: Awaitable[T]) -> T:
        """Await *work*, and stop the loop if it runs for that.

        A done callback of the task would cost the loop another iteration.
        """
        try:
            return await work
        finally:
            if self._awaited is not None and self._awaited is asyncio.current_task():
                self.loop.stop()


class Parking:
    """Which loops wait for the private one."""

    def __init__(self, private: PrivateLoop) -> None:
        self._private = private
        #: Number of calls that wait, by the loop on which they do.
        self.waiting: dict[asyncio.AbstractEventLoop, int] = {}
        self._timers: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}

    async def wait(self, task: asyncio.Task[Any], outer: asyncio.AbstractEventLoop) -> None:
        """Wait on *outer*, which is running, until *task* of the private loop is done."""
        waiter = outer.create_future()

        def wake(_: object) -> None:
            resolve(waiter)

        task.add_done_callback(wake)
        self.enter(outer)
        try:
            await waiter
        finally:
            task.remove_done_callback(wake)
            self.leave(outer)

    def enter(self, outer: asyncio.AbstractEventLoop) -> None:
        """Let *outer* run the private loop whenever something arrives."""
        self.waiting[outer] = self.waiting.get(outer, 0) + 1
        if self.waiting[outer] > 1:
            return
        try:
            outer.add_reader(self._private.selector.fileno(), self._turn, outer)
        except (AttributeError, NotImplementedError):
            outer.call_soon(self._poll, outer)  # Windows
        else:
            self._turn(outer)  # what has arrived meanwhile, and the timers

    def leave(self, outer: asyncio.AbstractEventLoop) -> None:
        """Undo one :meth:`enter`."""
        self.waiting[outer] -= 1
        if self.waiting[outer]:
            return
        del self.waiting[outer]
        if outer in self._timers:
            self._timers.pop(outer).cancel()
        if not outer.is_closed():
            with contextlib.suppress(AttributeError, NotImplementedError):
                outer.remove_reader(self._private.selector.fileno())

    def set_timer(self, outer: asyncio.AbstractEventLoop) -> None:
        """Let *outer*, if calls wait on it, run the private loop when its next timer is due."""
        if outer in self._timers:
            self._timers.pop(outer).cancel()
        timer = self._private.selector.next_timer
        if timer is not None and outer in self.waiting:
            self._timers[outer] = outer.call_later(timer, self._turn, outer)

    def _turn(self, outer: asyncio.AbstractEventLoop) -> None:
        self._private.turn(None, 0.0)
        self.set_timer(outer)

    def _poll(self, outer: asyncio.AbstractEventLoop) -> None:
        if outer in self.waiting:
            self._private.turn(None, 0.0)
            outer.call_later(_POLL, self._poll, outer)
