"""How xdist's workers get servers and templates from the controller, which owns them.

A worker sends requests over a channel of execnet that came with its ``workerinput``: no port,
no file, no polling. A worker on another host gets no channel: it owns its servers, like a run.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from typing import Any

from pytest_asyncdb import errors
from pytest_asyncdb._databases.templates import Claim, Claims
from pytest_asyncdb._run.owned_servers import OwnedServers
from pytest_asyncdb._run.runs import CHANNEL
from pytest_asyncdb.abc import Server
from pytest_asyncdb.values import BackendSpec

#: Seconds that a worker waits for a server; longer than any provider's own limit.
_PATIENCE = 600.0


def prepare_worker(node: Any, run: str, servers: OwnedServers) -> None:
    """Open a channel for a worker of xdist on this host before it starts.

    Args:
        node: xdist's ``WorkerController``, as ``pytest_configure_node`` gets it.
    """
    spec = node.gateway.spec
    if not spec.popen or spec.via:
        return
    # Execnet documents newchannel() in its docstring only; without it no worker starts.
    channel = node.gateway.newchannel()
    node.workerinput[CHANNEL] = channel, run
    _serve(channel, servers)


class ChannelServers:
    """The controller's servers, in a worker; like :class:`OwnedServers`."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.templates: Claims = self
        self._numbers = itertools.count()
        self._servers: dict[tuple[str, str | None], Server] = {}

    def get(self, spec: BackendSpec) -> Server:
        key = (spec.backend, spec.version)
        if key not in self._servers:
            answer = self._ask(errors.ServerUnavailable, "server", *spec)
            self._servers[key] = Server.from_message(answer)
        return self._servers[key]

    def claim(self, key: str) -> Claim:
        return Claim(**self._ask(errors.SchemaError, "claim", key))

    def settle(self, key: str, error: str | None, seeded: bytes = b"") -> None:
        self._ask(errors.SchemaError, "settle", key, error, seeded)

    def close(self) -> None:
        self._channel.close()

    def _ask(self, kind: type[errors.AsyncdbError], *request: str | bytes | None) -> dict[str, Any]:
        number, answered = next(self._numbers), None
        self._channel.send((number, *request))
        answer: dict[str, Any]
        while answered != number:  # but a request that a test's time limit has interrupted
            answered, answer = self._channel.receive(_PATIENCE)
        if "error" in answer:
            raise kind(answer["error"])
        return answer


def _serve(channel: Any, servers: OwnedServers) -> None:
    """Answer a worker's requests, each in a thread: execnet's receiver thread must not wait."""

    def answer(request: tuple[Any, ...]) -> None:
        number, what, *words = request
        message: dict[str, Any] = {}
        try:
            if what == "server":
                message = servers.get(BackendSpec(*words)).to_message()
            elif what == "claim":
                message = servers.templates.claim(words[0], channel)._asdict()
            else:
                servers.templates.settle(*words)
        except errors.AsyncdbError as error:
            message = {"error": str(error)}
        except Exception as error:
            message = {"error": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(OSError):  # the worker has ended
            channel.send((number, message))

    def on_request(request: tuple[Any, ...] | None) -> None:
        if request is None:
            servers.templates.abandon(channel)
        else:
            threading.Thread(target=answer, args=(request,), daemon=True).start()

    channel.setcallback(on_request, endmarker=None)
