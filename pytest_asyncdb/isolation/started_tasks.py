"""The tasks that a test has started.

A task copies the context in which it is created, and ``asyncio.to_thread`` copies it to its thread;
``run_in_executor`` does not. So the context shows which test has started a task. A task that has
used the test's database and is pending at the end of the test is reported. A task that goes on
after its test cannot use the database of another test.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pytest_asyncdb import errors
from pytest_asyncdb._engines.asyncio_internals import Task, loop_closer, runner_context
from pytest_asyncdb._record import call_sites
from pytest_asyncdb._record.statement_log import Place
from pytest_asyncdb.isolation import messages

#: The test that has started this task. None: outside of a test, or in a fixture of a wider scope.
_STARTED_IN: contextvars.ContextVar[StartedTasks | None] = contextvars.ContextVar(
    "asyncdb_started_in", default=None
)


class StartedTasks:
    """The tasks of one test that are started before :meth:`close`.

    Args:
        test: The node id.
        on_late: Called when a task is refused because its test has ended, with the node id, the
            task's name and its place in the user's code.
    """

    def __init__(self, test: str, on_late: Callable[[tuple[str, str, str]], object]) -> None:
        self.test = test
        #: True after the test. Its tasks may use no database any more.
        self.ended = False
        self.on_late = on_late
        self._thread = threading.get_ident()
        outer = _STARTED_IN.get()  # set if this run is inside of another test
        self._outer = None if outer is None or outer.ended else outer
        #: The tasks that have used a database, with the places of their last statements. None:
        #: another task, or another error, is reported instead.
        self._used: dict[weakref.ref[Task], Sequence[Place] | None] = {}
        #: The pending tasks by name, and where they stood.
        self._left: dict[str, Sequence[Place]] = {}
        _STARTED_IN.set(self)

    def close(self) -> list[errors.AsyncdbError]:
        """Return the errors about tasks that are pending at the end of the test."""
        _STARTED_IN.set(self._outer)
        for task in [key() for key in self._used]:
            if task is not None and not task.done():
                self._leave(task, call_sites.places_of_task(task))
        tasks = [(f"task: {task}", *messages.at(at[:3])) for task, at in self._left.items()]
        return [messages.LEFT_PENDING.of(self.test, *tasks)] if tasks else []

    @contextlib.contextmanager
    def of_test(self, item: Any) -> Iterator[None]:
        """Let the function of anyio's test *item* start its tasks in this test.

        anyio may run it in a task that is older than the test, and so has another context.
        """
        function: Any = getattr(item, "obj", None)
        if "anyio_backend" not in item.fixturenames or not inspect.iscoroutinefunction(function):
            yield
            return

        @functools.wraps(function)
        async def in_test(*args: Any, **kwargs: Any) -> Any:
            _STARTED_IN.set(self)
            try:
                return await function(*args, **kwargs)
            finally:
                _STARTED_IN.set(None)

        item.obj = in_test
        yield
        item.obj = function

    def use(self, task: Task, places: Sequence[Place]) -> None:
        """Note that *task* runs a statement."""
        key, used = weakref.ref(task), self._used
        if key in used:
            if used[key] is not None:
                used[key] = places
            return
        task.add_done_callback(self._done)
        used[key] = places
        if not places and (other := call_sites.user_task(task)) is not task:
            self.use(other, call_sites.places_of_task(other))
            used[key] = None

    def forget(self, task: Task) -> None:
        """Do not report *task*, because another error is about it."""
        self._used[weakref.ref(task)] = None

    def _leave(self, task: Task, places: Sequence[Place]) -> None:
        last = self._used.get(weakref.ref(task))
        code = getattr(task.get_coro(), "cr_code", None)
        # Tasks in which anyio runs tests and fixtures are not reported.
        if last is not None and (places or "anyio" not in getattr(code, "co_filename", "")):
            self._left[task_name(task)] = places or last

    def _done(self, task: Task) -> None:
        """Report a task that ended because pytest's plugin closes the loop of the test.

        A loop of function scope is closed, and its tasks are cancelled, before this plugin's
        fixtures end.
        """
        closer = loop_closer() if threading.get_ident() == self._thread else None
        if closer is None or call_sites.user_places(1, closer):
            return  # it ended by itself, or asyncio.run() in a test ended it
        places: Sequence[Place] = ()
        if task.cancelled():
            try:
                task.result()
            except asyncio.CancelledError as error:
                places = call_sites.places_of_error(error)
        self._leave(task, places)


#: Returns the tasks of the test that has started the running task.
started_in = _STARTED_IN.get


def late() -> errors.AsyncdbError | None:
    """Return the error for the running task, and report it, if its test has ended."""
    test = _STARTED_IN.get()
    if test is None or not test.ended:
        return None
    task, places = call_sites.user_position()
    here = threading.get_ident() == test._thread
    runner = runner_context(call_sites.caller_frames() if here else ())
    if runner.get(_STARTED_IN) == test and task not in {key() for key in test._used}:
        return None  # *test* was the first to use the Runner; its tasks do not belong to a test
    name = task_name(task)
    test.on_late((test.test, name, "".join(call_sites.lines_of(places[:1]))))
    return messages.LATE_TASK.of(test.test, f"task: {name}", messages.at(places))


def task_name(task: Task | None) -> str:
    """Return the name of a task with the name of its function, for errors."""
    if task is None:
        return "(no task)"
    function = getattr(task.get_coro(), "__qualname__", "")
    if function in ("", "greenlet_spawn"):  # SQLAlchemy's, for sync code
        return task.get_name()
    return f"{task.get_name()} ({function})"
