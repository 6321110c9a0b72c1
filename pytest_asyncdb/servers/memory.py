"""The provider ``memory``: SQLite, which runs in this process and needs no start."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator

from pytest_asyncdb.abc import (
    Backend,
    BackendSpec,
    Candidate,
    Driver,
    Server,
    ServerProvider,
    Sourced,
)
from pytest_asyncdb.errors import ProviderUnavailable
from pytest_asyncdb.servers.readiness import fits


class MemoryProvider(ServerProvider):
    """This process, for backends without a server of their own."""

    name = "memory"

    def find(self, spec: BackendSpec, backend: Backend, url: Sourced[str] | None) -> Candidate:
        if backend.local is not None or backend.container is not None:
            raise ProviderUnavailable(f"{backend.label} needs a server")
        version = sqlite3.sqlite_version
        if not fits(version, spec.version):
            raise ProviderUnavailable(f"this Python has {backend.label} {version}")
        return Candidate(self.name, "in this process", version)

    @contextlib.contextmanager
    def obtain(
        self,
        found: Candidate,
        spec: BackendSpec,
        backend: Backend,
        driver: Driver,
        progress: Callable[[str], None],
    ) -> Iterator[Server]:
        yield Server(backend.name, found.version or "", self.name, found.reason, managed=True)
