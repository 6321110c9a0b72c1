"""Templates that xdist's workers ask for, when a time limit interrupts a worker."""

from __future__ import annotations

import queue
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_asyncdb._databases.templates import Claim, TemplateBook
from pytest_asyncdb._run import worker_channel
from pytest_asyncdb._run.worker_channel import ChannelServers
from pytest_asyncdb.errors import AsyncdbError, ServerStartError
from pytest_asyncdb.values import BackendSpec


class TimeLimit(BaseException):
    """What a signal raises, as that of pytest-timeout."""


class End:
    """One end of a channel in this process."""

    def __init__(self, other: End | None = None) -> None:
        self.other = End(self) if other is None else other
        self.struck = False
        self._callback: Any = None
        self._arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def setcallback(self, callback: Any, endmarker: object) -> None:
        self._callback = callback

    def send(self, message: Any) -> None:
        receiver = self.other
        (receiver._callback or receiver._arrived.put)(message)

    def receive(self, timeout: float) -> Any:
        if self.struck:
            self.struck = False
            raise TimeLimit
        return self._arrived.get(timeout=timeout)


def start(spec: BackendSpec) -> None:
    if spec.backend == "mysql":
        raise ServerStartError("the server did not start", ["it printed nothing"])
    raise LookupError(spec.backend)


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> tuple[End, End]:
    """The ends of two workers; the controller serves the other ones."""
    monkeypatch.setattr(worker_channel, "_PATIENCE", 5.0)
    servers: Any = SimpleNamespace(get=start, templates=TemplateBook("run_"))
    one, two = End(), End()
    for end in (one, two):
        worker_channel._serve(end.other, servers)
    return one, two


def test_an_answer_that_comes_too_late_is_not_that_of_the_next_request(
    ends: tuple[End, End],
) -> None:
    one, two = map(ChannelServers, ends)
    before = {*threading.enumerate()}
    assert one.claim("a") == Claim("run_t1", mine=True)
    ends[1].struck = True
    with pytest.raises(TimeLimit):
        two.claim("a")
    one.settle("a", None)
    assert two.claim("a") == Claim("run_t1", mine=False)
    for thread in {*threading.enumerate()} - before:
        thread.join(5.0)  # both answers have come
    assert two.claim("b") == Claim("run_t2", mine=True)


def test_a_worker_that_has_not_got_its_claim_gets_it_again(ends: tuple[End, End]) -> None:
    """It would wait for itself."""
    two = ChannelServers(ends[1])
    ends[1].struck = True
    with pytest.raises(TimeLimit):
        two.claim("a")
    assert two.claim("a") == Claim("run_t1", mine=True)


def test_another_worker_builds_what_was_interrupted(ends: tuple[End, End]) -> None:
    one, two = map(ChannelServers, ends)
    assert one.claim("a").mine
    one.settle("a", "")
    assert two.claim("a") == Claim("run_t2", mine=True)


def test_an_error_arrives_as_it_is(ends: tuple[End, End]) -> None:
    """What happens to a test depends on its class, as without workers; others are wrapped."""
    one = ChannelServers(ends[0])
    with pytest.raises(ServerStartError, match="it printed nothing") as caught:
        one.get(BackendSpec("mysql"))
    assert caught.value.headline == "the server did not start"
    with pytest.raises(AsyncdbError, match="LookupError: none"):
        one.get(BackendSpec("none"))
