"""How xdist's workers get servers and templates from the controller, which owns them.

A worker sends requests over a channel of execnet that came with its ``workerinput``: no port,
no file, no polling. A worker on another host gets no channel: it owns its servers, like a run.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from pytest_asyncdb import errors
from pytest_asyncdb._databases.templates import Claim
from pytest_asyncdb.abc import BackendSpec, Server

if TYPE_CHECKING:
    from pytest_asyncdb._run.owned_servers import OwnedServers

#: The key of the plugin's data in ``workerinput``, which execnet sends.
_KEY = "asyncdb"
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
    node.workerinput[_KEY] = channel, run
    _serve(channel, servers)


def worker_input(config: Any) -> tuple[Any, str] | None:
    """The channel to the controller and the run id; None: this process owns its servers."""
    given: tuple[Any, str] | None = getattr(config, "workerinput", {}).get(_KEY)
    return given


class ChannelServers:
    """The controller's servers, in a worker; like :class:`OwnedServers`."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._servers: dict[tuple[str, str | None], Server | errors.AsyncdbError] = {}

    def get(self, spec: BackendSpec) -> Server:
        key = (spec.backend, spec.version)
        if key not in self._servers:
            answer = self._ask("server", *spec)
            self._servers[key] = (
                errors.ServerUnavailable(answer["error"])
                if "error" in answer
                else Server.from_message(answer)
            )
        server = self._servers[key]
        if isinstance(server, errors.AsyncdbError):
            raise server
        return server

    def claim(self, key: tuple[str, ...]) -> Claim:
        answer = self._ask("claim", *key)
        if "error" in answer:
            raise errors.SchemaError(answer["error"])
        return Claim(**answer)

    def settle(self, key: tuple[str, ...], error: str | None) -> None:
        self._ask("settle", error, *key)

    def close(self) -> None:
        self._channel.close()

    def _ask(self, *request: str | None) -> dict[str, Any]:
        self._channel.send(request)
        answer: dict[str, Any] = self._channel.receive(_PATIENCE)
        return answer


class ServerClaims:
    """The templates on one server of a run."""

    def __init__(self, servers: OwnedServers | ChannelServers, spec: BackendSpec) -> None:
        self._servers = servers
        self._server = (spec.backend, spec.version or "")

    def claim(self, fingerprint: str) -> Claim:
        """The template with that fingerprint; waits while another process builds it."""
        return self._servers.claim((*self._server, fingerprint))

    def settle(self, fingerprint: str, error: str | None) -> None:
        """Report that the template is complete, or could not be built."""
        self._servers.settle((*self._server, fingerprint), error)


def _serve(channel: Any, servers: OwnedServers) -> None:
    """Answer a worker's requests, each in a thread: execnet's receiver thread must not wait."""

    def answer(request: tuple[Any, ...]) -> None:
        what, *words = request
        message: dict[str, Any] = {}
        try:
            if what == "server":
                message = servers.get(BackendSpec(*words)).to_message()
            elif what == "claim":
                message = servers.templates.claim(tuple(words), channel)._asdict()
            else:
                servers.templates.settle(tuple(words[1:]), words[0])
        except errors.AsyncdbError as error:
            message = {"error": str(error)}
        except Exception as error:
            message = {"error": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(OSError):  # the worker has ended
            channel.send(message)

    def on_request(request: tuple[Any, ...] | None) -> None:
        if request is None:
            servers.templates.abandon(channel)
        else:
            threading.Thread(target=answer, args=(request,), daemon=True).start()

    channel.setcallback(on_request, endmarker=None)
