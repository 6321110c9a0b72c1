"""The provider ``memory``: this process, for SQLite and similar backends, which need no start."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pytest_asyncdb.abc import Backend, Candidate, Driver, Server, ServerProvider, Show
from pytest_asyncdb.errors import ProviderUnavailable
from pytest_asyncdb.servers.readiness import fits
from pytest_asyncdb.values import BackendSpec, Sourced


class MemoryProvider(ServerProvider):
    """This process, for backends without a server of their own."""

    name = "memory"

    def find(self, spec: BackendSpec, backend: Backend, url: Sourced[str] | None) -> Candidate:
        if not backend.in_process:
            raise ProviderUnavailable(f"{backend.label} needs a server")
        version = backend.library_version()
        if not fits(version, spec.version):
            raise ProviderUnavailable(f"this Python has {backend.label} {version}")
        return Candidate(self.name, "in this process", version)

    @contextlib.contextmanager
    def obtain(
        self, found: Candidate, spec: BackendSpec, backend: Backend, driver: Driver, progress: Show
    ) -> Iterator[Server]:
        yield Server(backend.name, found.version or "", self.name, found.reason, managed=True)
