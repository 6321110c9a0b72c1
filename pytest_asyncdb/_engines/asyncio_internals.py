"""The private names of asyncio, all of them: one loop that runs inside a callback of another.

asyncio refuses a second running loop in a thread. These names switch the thread from the
caller's loop to the plugin's and back. ``_enter_task`` and ``_leave_task`` are documented for
authors of event loops: https://docs.python.org/3/library/asyncio-extending.html
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import selectors
import sys

# Without _set_running_loop no statement can run in place: "Cannot run the event loop while
# another loop is running". Futures that an adapter makes would belong to the wrong loop.
# _get_running_loop is get_running_loop() without its exception.
from asyncio import _get_running_loop, _set_running_loop

# Without these two, entering a task while another one is entered raises RuntimeError since Python
# 3.14, where a thread has one current task for all of its loops.
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

#: The loop that runs in this thread, or None.
running_loop = _get_running_loop
#: Lets asyncio believe that a loop, or none, runs in this thread.
set_running_loop = _set_running_loop

Loop = asyncio.AbstractEventLoop
Task = asyncio.Task[object]
T = TypeVar("T")

#: A thread has one current task, not one for each loop.
_ONE_TASK = sys.version_info >= (3, 14)


class SteppedLoop(asyncio.SelectorEventLoop):
    """A loop that is run step by step: a statement needs two or three, and ``run_forever()``
    prepares and cleans up more than that.

    Without these names of ``BaseEventLoop`` no statement runs in place.
    """

    #: It is being run.
    runs = False
    #: What ``run_forever()`` repeats.
    step = asyncio.SelectorEventLoop._run_once  # type: ignore[attr-defined]

    def __init__(self, selector: selectors.BaseSelector) -> None:
        super().__init__(selector)
        #: For ``sys.set_asyncgen_hooks``, while it runs.
        self.hooks = (self._asyncgen_firstiter_hook, self._asyncgen_finalizer_hook)  # type: ignore[attr-defined]

    def is_running(self) -> bool:
        return self.runs or super().is_running()

    def make_task(
        self, work: Coroutine[Any, Any, T]
    ) -> tuple[asyncio.Task[T], Callable[[], object]]:
        """A new task, and its first step, which the caller must do."""
        own = contextvars.copy_context()
        step: Callable[..., object] | None = None

        def call_soon(callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
            nonlocal step
            if context is not own:  # for a finalizer
                return type(self).call_soon(self, callback, *args, context=context)
            step = callback
            return None

        # A new task calls it for its first step.
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
    """The task that runs in this thread, if one does."""
    loop = running_loop()
    return asyncio.current_task(loop) if loop is not None else None


def loop_closer() -> FrameType | None:
    """Who closes the loop whose tasks are being cancelled for that in this thread; None: no loop.

    Without ``_cancel_all_tasks`` a task that a test leaves on a loop of its own is not reported.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "_cancel_all_tasks":
        frame = frame.f_back
    while frame is not None and frame.f_globals.get("__name__", "").startswith("asyncio."):
        frame = frame.f_back
    return frame


def pause(instead: Loop | None = None) -> tuple[Loop | None, Task | None]:
    """Suspend the loop that runs in this thread, so that *instead*, or any other one, can run.

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
