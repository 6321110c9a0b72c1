"""The private names of asyncio, all of them: one loop that runs inside a callback of another.

asyncio refuses a second running loop in a thread. These names switch the thread from the
caller's loop to the plugin's and back. ``_enter_task`` and ``_leave_task`` are documented for
authors of event loops: https://docs.python.org/3/library/asyncio-extending.html
"""

from __future__ import annotations

import asyncio
import sys

# Without _set_running_loop no statement can run in place: "Cannot run the event loop while
# another loop is running". Futures that an adapter makes would belong to the wrong loop.
# _get_running_loop is get_running_loop() without its exception.
from asyncio import _get_running_loop, _set_running_loop

# Without these two, asyncio.current_task() is wrong in the plugin's tasks and in the caller's,
# and since Python 3.12 entering a task while another one is entered raises RuntimeError.
from asyncio.tasks import _enter_task, _leave_task
from types import FrameType

#: pytest leaves the plugin's frames out of the tracebacks of drivers' errors.
__tracebackhide__ = True

#: The loop that runs in this thread, or None.
running_loop = _get_running_loop
#: Lets asyncio believe that a loop, or none, runs in this thread.
set_running_loop = _set_running_loop

Loop = asyncio.AbstractEventLoop
Task = asyncio.Task[object]


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


def pause() -> tuple[Loop | None, Task | None]:
    """Suspend the loop that runs in this thread, so that another one can run.

    Returns:
        The arguments of :func:`resume`.
    """
    loop = running_loop()
    task = None
    if loop is not None:
        task = asyncio.current_task(loop)
        if task is not None:
            _leave_task(loop, task)
        set_running_loop(None)
    return loop, task


def resume(loop: Loop | None, task: Task | None) -> None:
    """Continue what :func:`pause` has suspended."""
    set_running_loop(loop)
    if loop is not None and task is not None:
        _enter_task(loop, task)
