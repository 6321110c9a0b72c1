"""An event loop without a thread of its own: code that needs it runs it for a moment.

Calls that take longer wait on the caller's loop. That loop watches the private loop's selector and
timers, and runs the private loop whenever something arrives. ``host_loop.py`` says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import sys
import threading
import types
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pytest_asyncdb._engines.asyncio_internals import SteppedLoop, pause, resolve, resume

T = TypeVar("T")

#: Seconds between two polls of the private loop, if its selector cannot be watched (Windows).
_POLL = 0.002


class _Selector(selectors.DefaultSelector):
    """A selector that notices when its loop has been idle for long enough.

    A loop calls ``select`` with a timeout of 0 while callbacks are ready, and with None or a
    positive timeout when it is about to block. No other public name shows that.
    """

    def __init__(self) -> None:
        super().__init__()
        #: The time of the loop until which the loop may block; None: no limit.
        self.until: float | None = None
        #: True if the loop was idle at that time.
        self.idle = False
        #: Seconds until the loop's next timer, when it was last found idle.
        self.next_timer: float | None = None
        self._skipped = False

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            # What is ready is the start or the end of a statement, and nothing else has arrived. So
            # every second look at the sockets is left out.
            self._skipped = not self._skipped
            return [] if self._skipped else super().select(0)
        self._skipped = False
        if self.until is None:
            return super().select(timeout)
        left = self.until - SteppedLoop.time()  # a negative number means no time, too
        events = super().select(left if timeout is None else min(left, timeout))
        if not events and SteppedLoop.time() >= self.until:
            self.next_timer = timeout
            self.idle = True
        return events


#: Objects that a forked child must not use any more, each with a method ``end_in_child``.
OF_PARENT: weakref.WeakSet[Any] = weakref.WeakSet()


def _end_in_child() -> None:
    with contextlib.ExitStack() as stack:  # calls all of them, even if one fails
        for one in OF_PARENT:
            stack.callback(one.end_in_child)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_end_in_child)


class PrivateLoop:
    """An event loop that any thread can run, also inside a callback of another loop."""

    def __init__(self) -> None:
        #: Its file descriptor is readable when something has arrived. On Windows it has none.
        self.selector = _Selector()
        self.loop = SteppedLoop(self.selector)
        self.loop.set_debug(False)
        #: Held while the loop runs.
        self.lock = threading.RLock()
        #: Number of waiting calls, by the loop on which they wait.
        self.waiting: dict[asyncio.AbstractEventLoop, int] = {}
        OF_PARENT.add(self)

    def end_in_child(self) -> None:
        """Close the loop in a forked child, without effect on the parent's loop.

        Parent and child share the sockets and the epoll object. In the child the sockets' file
        descriptors are replaced by the null device. So what the child still does reaches no socket,
        such as data that drivers send in finalizers, and transports that unregister.
        """
        if self.loop.is_closed():
            return
        null = os.open(os.devnull, os.O_RDWR)
        for key in self.selector.get_map().values():
            os.dup2(null, key.fd)
        os.close(null)
        with contextlib.suppress(RuntimeError):  # the loop is running
            self.loop.close()

    def start(
        self, work: Awaitable[T], patience: float | None, at_once: bool = False
    ) -> asyncio.Task[T]:
        """Run *work* in a new task until it is done or *patience* is over.

        Args:
            at_once: Run the first step before all ready callbacks, which saves a step of the loop.
                If calls are waiting, they come first nevertheless.
        """
        if type(work) is not types.CoroutineType:
            work = _awaited(work)
        with self.lock:
            if at_once and not self.waiting:
                task, first = self.loop.make_task(work)
            else:
                task, first = self.loop.create_task(work), None
            self._run(task, patience, first)
        return task

    def turn(self, task: asyncio.Task[Any] | None, patience: float | None) -> None:
        """Run the loop until *task* is done or *patience* is over.

        The caller's loop, if one runs in this thread, stands still meanwhile.

        Args:
            task: A task of :meth:`start`; None: run what is ready.
            patience: Seconds; None: no limit.
        """
        with self.lock:
            self._run(task, patience)

    def _run(
        self,
        task: asyncio.Task[Any] | None,
        patience: float | None,
        first: Callable[[], object] | None = None,
    ) -> None:
        """Run *first*, and then the loop, as ``run_forever()`` would."""
        loop = self.loop
        if loop.runs:
            raise RuntimeError("the plugin's event loop is running already")
        outer = pause(loop)
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(*loop.hooks)
        loop.runs = True
        try:
            if first is not None:
                first()
            if task is None or not task.done():
                self._step(task, None if patience is None else loop.time() + patience)
            if self.waiting and task is not None:
                self._step(None, 0.0)  # else waiting calls do not notice what is ready
        finally:
            loop.runs = False
            sys.set_asyncgen_hooks(*hooks)
            resume(*outer)

    def _step(self, task: asyncio.Task[Any] | None, until: float | None) -> None:
        selector, step = self.selector, self.loop.step
        selector.until, selector.idle = until, False
        while not selector.idle:
            step()
            if task is not None and task.done():
                break


async def _awaited(work: Awaitable[T]) -> T:
    return await work


class Parking:
    """The loops that wait for the private loop."""

    def __init__(self, private: PrivateLoop) -> None:
        self._private = private
        self.waiting = private.waiting
        self._timers: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}
        #: The next poll of each loop that cannot watch the selector.
        self._polls: dict[asyncio.AbstractEventLoop, asyncio.Handle] = {}

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
            self._polls[outer] = outer.call_soon(self._poll, outer)  # Windows
        else:
            self._turn(outer)  # what has arrived meanwhile, and the timers

    def leave(self, outer: asyncio.AbstractEventLoop) -> None:
        """Undo one :meth:`enter`."""
        self.waiting[outer] -= 1
        if self.waiting[outer]:
            return
        del self.waiting[outer]
        for handles in (self._timers, self._polls):
            if outer in handles:
                handles.pop(outer).cancel()
        if not outer.is_closed():
            with contextlib.suppress(AttributeError, NotImplementedError):
                outer.remove_reader(self._private.selector.fileno())

    def set_timer(self, outer: asyncio.AbstractEventLoop) -> None:
        """Let *outer* run the private loop when its next timer is due, if calls wait on *outer*."""
        if outer in self._timers:
            self._timers.pop(outer).cancel()
        timer = self._private.selector.next_timer
        if timer is not None and outer in self.waiting:
            self._timers[outer] = outer.call_later(timer, self._turn, outer)

    def _turn(self, outer: asyncio.AbstractEventLoop) -> None:
        self._private.turn(None, 0.0)
        self.set_timer(outer)

    def _poll(self, outer: asyncio.AbstractEventLoop) -> None:
        self._private.turn(None, 0.0)
        if outer in self.waiting:
            self._polls[outer] = outer.call_later(_POLL, self._poll, outer)
