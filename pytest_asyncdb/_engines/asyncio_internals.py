"""All private names of asyncio that the plugin uses. They let one loop run inside a callback of
another.

asyncio refuses a second running loop in a thread. These names switch the thread from the caller's
loop to the plugin's and back. ``_enter_task`` and ``_leave_task`` are documented for authors of
event loops: https://docs.python.org/3/library/asyncio-extending.html
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import selectors
import sys
import time

# Without _set_running_loop no statement can run in place ("Cannot run the event loop while another
# loop is running"), and futures that an adapter creates would belong to the wrong loop.
# _get_running_loop is get_running_loop() without its exception.
from asyncio import _get_running_loop, _set_running_loop

# Without these two, entering a task while another one is entered raises RuntimeError since Python
# 3.14, where a thread has one current task for all of its loops.
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine, Iterable, Mapping
from types import FrameType
from typing import Any, TypeVar

#: The loop that runs in this thread, or None.
running_loop = _get_running_loop
#: Makes asyncio take a loop, or none, for the one that runs in this thread.
set_running_loop = _set_running_loop

Loop = asyncio.AbstractEventLoop
Task = asyncio.Task[object]
T = TypeVar("T")

#: True if a thread has one current task for all its loops, not one for each loop.
_ONE_TASK = sys.version_info >= (3, 14)


class SteadyLoop(asyncio.SelectorEventLoop):
    """A loop whose time goes on while a test freezes the time. Otherwise a wait that begins then
    would not end. freezegun does not replace functions that a class holds.
    """

    time = staticmethod(time.monotonic)


class SteppedLoop(SteadyLoop):
    """A loop that is run step by step.

    A statement needs two or three steps. ``run_forever()`` does more work than these before and
    after them. Without these names of ``BaseEventLoop`` no statement runs in place.
    """

    #: True while the loop is being run.
    runs = False
    #: One step: what ``run_forever()`` repeats.
    step = asyncio.SelectorEventLoop._run_once  # type: ignore[attr-defined]

    def __init__(self, selector: selectors.BaseSelector) -> None:
        super().__init__(selector)
        #: The arguments of ``sys.set_asyncgen_hooks`` while the loop runs.
        self.hooks = (self._asyncgen_firstiter_hook, self._asyncgen_finalizer_hook)  # type: ignore[attr-defined]

    def is_running(self) -> bool:
        return self.runs or super().is_running()

    def make_task(
        self, work: Coroutine[Any, Any, T]
    ) -> tuple[asyncio.Task[T], Callable[[], object]]:
        """Return a new task and its first step, which the caller must run."""
        own = contextvars.copy_context()
        step: Callable[..., object] | None = None

        def call_soon(callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
            nonlocal step
            if context is not own:  # called by a finalizer
                return type(self).call_soon(self, callback, *args, context=context)
            step = callback
            return None

        # A new task calls this to schedule its first step.
        self.call_soon = call_soon  # type: ignore[assignment,method-assign]
        try:
            task = asyncio.Task(work, loop=self, context=own)
        finally:
            del self.call_soon
        assert step is not None
        return task, functools.partial(own.run, step)


def resolve(future: asyncio.Future[None]) -> None:
    """End the wait for *future*, of any loop, from any thread."""
    loop = future.get_loop()
    if not loop.is_closed():
        loop.call_soon_threadsafe(lambda: None if future.done() else future.set_result(None))


def running_task() -> Task | None:
    """Return the task that runs in this thread, or None."""
    loop = running_loop()
    return asyncio.current_task(loop) if loop is not None else None


def loop_closer() -> FrameType | None:
    """Return the frame of the code that closes a loop in this thread; None: no loop is being
    closed.

    asyncio then cancels the tasks of the loop. Without ``_cancel_all_tasks`` a task that a test
    leaves on a loop of its own is not reported.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "_cancel_all_tasks":
        frame = frame.f_back
    while frame is not None and frame.f_globals.get("__name__", "").startswith("asyncio."):
        frame = frame.f_back
    return frame


def runner_context(frames: Iterable[FrameType]) -> Mapping[Any, Any]:
    """Return the context of ``asyncio.Runner.run()`` if it is among *frames*, else an empty one.

    A Runner copies the context at its first use, and runs everything in it. Without the local
    variable ``context`` an application's Runner can be used in one test only.
    """
    run = asyncio.Runner.run.__code__
    return next((frame.f_locals["context"] for frame in frames if frame.f_code is run), {})


def pause(instead: Loop | None = None) -> tuple[Loop | None, Task | None]:
    """Suspend the loop that runs in this thread, so that *instead*, or any other loop, can run.

    Returns:
        The arguments of :func:`resume`.
    """
    loop = running_loop()
    task = asyncio.current_task(loop) if _ONE_TASK and loop is not None else None
    if loop is not None and task is not None:
        _leave_task(loop, task)
    set_running_loop(instead)
    return loop, task


def resume(loop: Loop | None, task: Task | None) -> None:
    """Continue what :func:`pause` has suspended."""
    set_running_loop(loop)
    if loop is not None and task is not None:
        _enter_task(loop, task)
