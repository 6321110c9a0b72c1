"""Gives xdist's workers the servers and templates that the controller owns.

A worker sends requests over a channel of execnet that came with its ``workerinput``: no port, no
file, no polling. A worker on another host gets no channel. It owns its servers, like a run without
xdist.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import pickle
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from pytest_asyncdb import errors
from pytest_asyncdb._databases.templates import Claim, Claims
from pytest_asyncdb._run.owned_servers import OwnedServers
from pytest_asyncdb._run.runs import CHANNEL
from pytest_asyncdb.abc import Server
from pytest_asyncdb.values import BackendSpec

#: Seconds that a worker waits for a server. This is longer than the limit of any provider.
_PATIENCE = 600.0


def prepare_worker(node: Any, run: str, servers: OwnedServers) -> None:
    """Open a channel for an xdist worker on this host, before the worker starts.

    Args:
        node: xdist's ``WorkerController``, as ``pytest_configure_node`` gets it.
    """
    spec = node.gateway.spec
    if not spec.popen or spec.via:
        return
    # Execnet documents newchannel() only in its docstring. Without it no worker starts.
    channel = node.gateway.newchannel()
    node.workerinput[CHANNEL] = channel, run
    _serve(channel, servers)


class ChannelServers:
    """The controller's servers, in a worker. It has the methods of :class:`OwnedServers`."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.templates: Claims = self
        self._numbers = itertools.count()
        self.get: Callable[[BackendSpec], Server] = functools.cache(partial(self._ask, "get"))

    def claim(self, key: str) -> Claim:
        return self._ask("claim", key)  # type: ignore[no-any-return]

    def settle(self, key: str, error: str | None, seeded: bytes = b"") -> None:
        self._ask("settle", key, error, seeded)

    def close(self) -> None:
        self._channel.close()

    def _ask(self, what: str, *arguments: Any) -> Any:
        number, answered, answer = next(self._numbers), None, b""
        self._channel.send((number, what, pickle.dumps(arguments)))
        while answered != number:  # skips answers that a test's time limit did not wait for
            answered, answer = self._channel.receive(_PATIENCE)
        result = pickle.loads(answer)  # noqa: S301  # the controller's
        if isinstance(result, Exception):
            raise result
        return result


def _serve(channel: Any, servers: OwnedServers) -> None:
    """Answer a worker's requests, each in a thread, because execnet's receiver thread must not
    wait."""

    def answer(number: int, what: str, arguments: bytes) -> None:
        templates = servers.templates
        answers: dict[str, Callable[..., Any]] = {
            "get": servers.get,
            "claim": partial(templates.claim, builder=channel),
            "settle": templates.settle,
        }
        try:
            result = answers[what](*pickle.loads(arguments))  # noqa: S301  # the worker's
        except Exception as error:
            own = isinstance(error, errors.AsyncdbError)
            result = error if own else errors.AsyncdbError(f"{type(error).__name__}: {error}")
        with contextlib.suppress(OSError):  # the worker has ended
            channel.send((number, pickle.dumps(result)))

    def on_request(request: tuple[int, str, bytes] | None) -> None:
        if request is None:
            servers.templates.abandon(channel)
        else:
            threading.Thread(target=answer, args=request, daemon=True).start()

    channel.setcallback(on_request, endmarker=None)
