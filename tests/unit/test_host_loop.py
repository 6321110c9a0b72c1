"""Our loop, run in place: any loop, any thread, and nobody notices."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import socket
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import pytest
import uvloop
from inner.like_windows import ProactorEventLoop
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.util import await_only, greenlet_spawn

from pytest_asyncdb._engines.host_loop import HostLoop

LOOPS = [asyncio.SelectorEventLoop, uvloop.new_event_loop, ProactorEventLoop]


@pytest.fixture
def host() -> Iterator[HostLoop]:
    host = HostLoop()
    yield host
    host.close()
    assert host.loop.is_closed()


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop", "proactor"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """A loop of the caller's."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


async def where() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_a_sync_caller_gets_the_result(host: HostLoop) -> None:
    assert host.run(where()) is host.loop


def test_a_limit_cancels_the_work(host: HostLoop) -> None:
    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        host.run(asyncio.Event().wait(), 0.01)


def test_work_of_a_coroutine_runs_on_our_loop_and_the_callers_is_as_it_was(
    host: HostLoop, runner: asyncio.Runner
) -> None:
    async def caller() -> None:
        mine, task = asyncio.get_running_loop(), asyncio.current_task()
        assert await host.await_here(where()) is host.loop
        assert asyncio.get_running_loop() is mine
        assert asyncio.current_task() is task

    runner.run(caller())


def test_sync_code_of_sqlalchemy_awaits_on_our_loop(host: HostLoop, runner: asyncio.Runner) -> None:
    def adapter(number: int) -> tuple[asyncio.AbstractEventLoop, int]:
        return await_only(where()), number

    async def caller() -> tuple[asyncio.AbstractEventLoop, int]:
        return await greenlet_spawn(host.call, adapter, 7)

    assert runner.run(caller()) == (host.loop, 7)


def test_errors_reach_the_code_that_awaits_and_then_the_caller(host: HostLoop) -> None:
    seen = []

    async def fail() -> None:
        raise ValueError("no")

    def adapter() -> None:
        try:
            await_only(fail())
        except ValueError as error:
            seen.append(error)
            raise KeyError("translated") from error

    async def caller() -> None:
        await greenlet_spawn(host.call, adapter)

    with pytest.raises(KeyError, match="translated"):
        asyncio.run(caller())
    assert len(seen) == 1


def test_outside_of_sqlalchemys_greenlets_its_own_error_is_raised(host: HostLoop) -> None:
    async def caller() -> None:
        host.suspend()

    with pytest.raises(MissingGreenlet):
        asyncio.run(caller())


def test_what_takes_longer_leaves_the_callers_loop_running(
    host: HostLoop, runner: asyncio.Runner
) -> None:
    reader, writer = socket.socketpair()
    reader.setblocking(False)

    async def receive() -> bytes:
        return await asyncio.get_running_loop().sock_recv(reader, 10)

    async def caller() -> None:
        waiting = asyncio.create_task(host.await_here(receive()))
        await asyncio.sleep(0)  # the task has begun, and gave up its turn, else this would not end
        assert not waiting.done()
        writer.send(b"late")
        assert await waiting == b"late"

    with reader, writer:
        runner.run(caller())


def test_a_loop_that_watches_no_files_has_one_timer_for_all_calls(host: HostLoop) -> None:
    """The default loop of Windows looks at the private loop every two milliseconds."""

    class Counting(ProactorEventLoop):
        def call_later(self, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
            timers.append(super().call_later(*args, **kwargs))
            return timers[-1]

    async def caller() -> int:
        for _ in range(20):
            await host.await_here(asyncio.sleep(0.004, "longer than a caller stands still"))
        now = asyncio.get_running_loop().time()
        return sum(timer.when() > now and not timer.cancelled() for timer in timers)

    timers: list[asyncio.TimerHandle] = []
    with asyncio.Runner(loop_factory=Counting) as runner:
        assert runner.run(caller()) == 0
    assert len(timers) >= 20  # the control


def test_timers_of_our_loop_go_on_while_a_call_is_parked(
    host: HostLoop, runner: asyncio.Runner
) -> None:
    async def timed() -> str:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.02)
        return "over"

    async def caller() -> str:
        return await host.await_here(timed())

    assert runner.run(caller()) == "over"


def test_several_calls_of_one_loop_are_parked_together(
    host: HostLoop, runner: asyncio.Runner
) -> None:
    async def caller() -> list[int]:
        events = [asyncio.Event() for _ in range(3)]

        async def work(number: int) -> int:
            await events[number].wait()
            return number

        tasks = [asyncio.create_task(host.await_here(work(n))) for n in range(3)]
        await asyncio.sleep(0)
        for event in reversed(events):
            host.loop.call_soon_threadsafe(event.set)
            await asyncio.sleep(0)
        return await asyncio.gather(*tasks)

    assert runner.run(caller()) == [0, 1, 2]
    assert not host._parking.waiting


def test_a_cancelled_caller_ends_the_work_the_way_it_is_told(host: HostLoop) -> None:
    ended = []

    async def work() -> str:
        await asyncio.Event().wait()
        return "never"

    async def end(future: asyncio.Future[object]) -> None:
        ended.append(future)
        future.cancel()

    def adapter() -> None:
        host.call(lambda: await_only(work()), on_cancel=end)

    async def caller() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(greenlet_spawn(adapter), 0.02)

    asyncio.run(caller())
    assert [future.cancelled() for future in ended] == [True]
    assert not asyncio.all_tasks(host.loop)


def test_two_threads_share_it(host: HostLoop) -> None:
    """One waits for what only the other one's turn brings about."""
    event = host.run(_event())

    async def wait() -> str:
        await event.wait()
        return "set"

    async def release() -> None:
        event.set()

    async def first() -> str:
        return await host.await_here(wait())

    async def second() -> None:
        await host.await_here(release())

    results: list[str] = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(first())))
    thread.start()
    asyncio.run(second())
    thread.join(10)
    assert results == ["set"]


def test_work_that_waits_for_nothing_needs_no_step_of_the_loop(host: HostLoop) -> None:
    """It still runs in a task of its own, on our loop."""
    ready = []

    async def work() -> tuple[object, object, int]:
        return asyncio.get_running_loop(), asyncio.current_task(), len(ready)

    host.loop.call_soon(ready.append, "ready")
    loop, task, before = asyncio.run(greenlet_spawn(host.call, lambda: await_only(work())))
    assert loop is host.loop
    assert isinstance(task, asyncio.Task)
    assert before == len(ready) == 0
    host.run(where())
    assert ready == ["ready"]


def test_a_generator_that_is_left_ends_on_our_loop(host: HostLoop) -> None:
    """Also one that began in the first step of its task."""
    ended = []

    async def generate() -> AsyncGenerator[int]:
        try:
            yield 1
        finally:
            ended.append(asyncio.get_running_loop())

    async def begin() -> None:
        async for _ in generate():
            break

    async def caller() -> None:
        await greenlet_spawn(host.call, lambda: await_only(begin()))
        gc.collect()
        await host.await_here(asyncio.sleep(0.001))

    asyncio.run(caller())
    assert ended == [host.loop]


def test_context_variables_are_the_callers(host: HostLoop) -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    async def read() -> str:
        return variable.get()

    async def caller() -> str:
        variable.set("set")
        return await host.await_here(read())

    assert asyncio.run(caller()) == "set"


def test_a_caller_whose_loop_dies_leaves_it_usable(host: HostLoop) -> None:
    async def caller() -> None:
        asyncio.create_task(host.await_here(asyncio.Event().wait()))  # noqa: RUF006
        await asyncio.sleep(0)

    asyncio.run(caller())
    assert host.run(where()) is host.loop
    assert not host._parking.waiting


async def _event() -> asyncio.Event:
    return asyncio.Event()


def test_a_call_that_another_one_sets_free_goes_on(host: HostLoop, runner: asyncio.Runner) -> None:
    """It becomes ready in the moment in which the other one is done and our loop stops; no
    file descriptor tells it."""

    async def caller() -> str:
        freed = host.loop.create_future()

        async def wait() -> str:
            await freed
            return "done"

        async def free() -> None:
            freed.set_result(None)

        waiting = asyncio.create_task(host.await_here(wait()))
        while not host._parking.waiting:
            await asyncio.sleep(0)
        await host.await_here(free())
        return await asyncio.wait_for(waiting, 5)

    assert runner.run(caller()) == "done"


class Aside:
    """A background thread with a loop, in which adapters' code runs on our loop."""

    def __init__(self, host: HostLoop, function: Callable[[], object]) -> None:
        self.result: object = None
        self._function = function
        self._host = host
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Aside:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _work(self) -> None:
        try:
            self.result = asyncio.run(self._call())
        except Exception as error:
            self.result = error

    async def _call(self) -> object:
        task = asyncio.current_task()
        result = self._host.call_in_thread(self._function, timeout=10)
        assert asyncio.current_task() is task
        return result


def test_what_is_done_aside_keeps_nobody_from_the_loop(host: HostLoop) -> None:
    """The control is in the middle: a thread that runs the loop to the end of its work would
    keep the others waiting, and this test would never end."""
    event = asyncio.Event()
    waits = threading.Event()

    async def wait() -> str:
        waits.set()
        await event.wait()
        return "aside"

    async def end() -> None:
        event.set()

    with Aside(host, lambda: await_only(wait())) as aside:
        waits.wait()
        host.run(end())
    assert aside.result == "aside"


def test_greenlets_stay_in_their_thread(host: HostLoop) -> None:
    """Both threads turn the loop, and so each other's work."""
    ended = threading.Event()

    def adapter() -> int:
        while not ended.is_set():
            await_only(asyncio.sleep(0))
        return threading.get_ident()

    def short() -> int:
        await_only(asyncio.sleep(0))
        return threading.get_ident()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with Aside(host, adapter) as aside:
            try:
                for _ in range(500):
                    assert host.run(greenlet_spawn(short)) == threading.get_ident()
            finally:
                ended.set()
    finally:
        sys.setswitchinterval(interval)
    assert isinstance(aside.result, int)
    assert aside.result != threading.get_ident()


def test_a_limit_cancels_what_is_done_aside(host: HostLoop) -> None:
    def adapter() -> None:
        await_only(asyncio.Event().wait())

    with pytest.raises(TimeoutError):
        host.call_in_thread(adapter, timeout=0.01)
