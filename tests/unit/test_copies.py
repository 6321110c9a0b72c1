"""The thread that makes and drops copies ends when it is told to."""

from __future__ import annotations

import threading
import time
from typing import Any

from pytest_asyncdb._databases import worker_databases


class _Connection:
    async def close(self) -> None:
        pass


class _Provisioner:
    """Drops nothing; each drop waits for an event."""

    def __init__(self, allowed: threading.Event) -> None:
        self.allowed = allowed
        self.dropped: list[Any] = []

    def new_connection(self) -> _Connection:
        return _Connection()

    async def drop(self, copy: Any, sql: Any) -> None:
        self.dropped.append(copy)
        assert self.allowed.wait(10)


def test_the_end_of_a_run_does_not_wait_for_a_job_that_has_not_begun() -> None:
    """The present job ends; those after it do nothing."""
    allowed = threading.Event()
    provisioner: Any = _Provisioner(allowed)
    template: Any = None
    copies = worker_databases._Copies(provisioner, template)
    for name in ("first", "second"):
        copy: Any = name
        copies.drop(copy)
    while not provisioner.dropped:
        time.sleep(0)
    closing = threading.Thread(target=copies.close, daemon=True)
    closing.start()
    while not copies._closing:
        time.sleep(0)
    allowed.set()
    closing.join(10)
    assert not closing.is_alive()
    assert copies._thread.done()
    assert provisioner.dropped == ["first"]  # the end of the run drops the other one
