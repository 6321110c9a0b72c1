"""A pytest plugin, copied into each project: how long its tests took, as JSON.

One file per process: the seconds of every test (``pytest_runtest_protocol``: set-up, call,
teardown and pytest's own work), and when the first test's body began.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_tests: list[tuple[str, float]] = []
_begun: list[float] = []


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    begun = time.perf_counter()
    result = yield
    _tests.append((item.name, time.perf_counter() - begun))
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call() -> Iterator[None]:
    if not _begun:
        _begun.append(time.monotonic())  # the same clock for all processes of a machine
    return (yield)


def pytest_unconfigure() -> None:
    if _begun:
        path = Path(os.environ["BENCHMARK_TIMES"], f"{os.getpid()}.json")
        path.write_text(json.dumps({"begun": _begun[0], "tests": _tests}), encoding="utf-8")
