"""A pytest plugin, copied into each project: how long its tests took, as JSON.

One file per process: the seconds of every test (``pytest_runtest_protocol``: set-up, call,
teardown and pytest's own work) and those of the processor, in all threads, when the first
test's body began, and now and then what the process holds, and how many functions a test calls.
Two processes may take turns: a block of tests here, a block there.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_tests: list[tuple[str, float, float]] = []
_begun: list[float] = []
_samples: list[tuple[int, int, int, float]] = []
_calls: list[int] = []
_EACH = int(os.environ["BENCHMARK_SAMPLE"])
#: Of the whole run, from the import of this plugin on, which is the first one.
_all_calls = [0]
#: Of so many tests before each sample the calls are counted, which makes them slower.
_COUNTED = 20


class _Turns:
    """Waits for a byte in our pipe before a turn, and puts one into the other's after it.

    Args:
        text: See ``Turns`` in ``runs.py``; empty: there are none.
    """

    def __init__(self, text: str) -> None:
        *paths, first, end, turn = text.split(os.pathsep) if text else ["0", "0", "1"]
        self._pipes = [os.open(path, os.O_RDWR) for path in paths]
        self._starts = range(int(first), int(end), int(turn))
        self._ends = range(int(first) + int(turn), int(end) + 1, int(turn))

    def wait(self, done: int) -> None:
        """So many tests are done."""
        if done in self._starts:
            if done == self._starts[0]:
                # Both on the same processor: two are seldom equally fast.
                os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            os.read(self._pipes[0], 1)

    def give(self, done: int) -> None:
        """So many tests are done."""
        if done in self._ends:
            os.write(self._pipes[1], b".")


_turns = _Turns(os.environ["BENCHMARK_TURNS"])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _turns.wait(len(_tests))
    counted = _EACH and len(_tests) % _EACH >= _EACH - _COUNTED
    begun, cpu = time.perf_counter(), time.process_time()
    if counted:
        _calls.append(0)
        sys.setprofile(_count)
    result = yield
    if counted:
        sys.setprofile(None)
    _tests.append((item.name, time.perf_counter() - begun, time.process_time() - cpu))
    if _EACH and len(_tests) % _EACH == 0:
        _samples.append((*_sample(), statistics.median(_calls)))
        _calls.clear()
    _turns.give(len(_tests))
    return result


def _count(frame: object, event: str, arg: object) -> None:
    if event in ("call", "c_call"):
        _calls[-1] += 1


def _count_all(frame: object, event: str, arg: object) -> None:
    if event in ("call", "c_call"):
        _all_calls[0] += 1


if os.environ["BENCHMARK_CALLS"]:
    sys.setprofile(_count_all)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call() -> Iterator[None]:
    if not _begun:
        _begun.append(time.monotonic())  # the same clock for all processes of a machine
    return (yield)


def _sample() -> tuple[int, int, int]:
    """Bytes in memory, threads, open descriptors; from Linux's /proc."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    files = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return pages * os.sysconf("SC_PAGE_SIZE"), threading.active_count(), files


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    calls = _all_calls[0]
    if _begun:
        path = Path(os.environ["BENCHMARK_TIMES"], f"{os.getpid()}.json")
        noted = {"begun": _begun[0], "tests": _tests, "samples": _samples, "calls": calls}
        path.write_text(json.dumps(noted), encoding="utf-8")
