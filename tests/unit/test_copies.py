"""The thread that makes and drops copies ends when it is told to."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

import pytest

from pytest_asyncdb._databases import worker_databases


class _Connection:
    async def __aenter__(self) -> _Connection:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


class _Provisioner:
    """Drops nothing; each drop waits for an event."""

    def __init__(self, allowed: threading.Event) -> None:
        self.allowed = allowed
        self.dropped: list[Any] = []

    def new_connection(self) -> _Connection:
        return _Connection()

    async def dropping(self, copy: Any, sql: Any) -> None:
        self.dropped.append(copy)
        assert self.allowed.wait(10)


def test_the_end_of_a_run_does_not_wait_for_a_job_that_the_thread_has_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread may take the last job at any moment, also after :meth:`close` has seen it.

    The queue makes this certain: it lets the thread go on, and answers when it is empty.
    """
    allowed = threading.Event()

    class Queue(queue.SimpleQueue[Any]):
        def empty(self) -> bool:
            if super().empty():
                return True
            allowed.set()
            while not super().empty():
                time.sleep(0)
            return False

        def put(self, item: Any, *args: Any) -> None:
            super().put(item, *args)
            if item is None:
                allowed.set()

    monkeypatch.setattr(worker_databases.queue, "SimpleQueue", Queue)
    provisioner: Any = _Provisioner(allowed)
    template: Any = None
    copies = worker_databases._Copies(provisioner, template)
    for name in ("first", "second"):
        copy: Any = name
        copies.drop(copy, lambda: None)
    while not provisioner.dropped:
        time.sleep(0)
    closing = threading.Thread(target=copies.close, daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()
    assert provisioner.dropped == ["first"]  # the end of the run drops the other one
