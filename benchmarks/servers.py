"""The servers of a benchmark, one per backend, started when the first case needs it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
from collections.abc import Iterator, Mapping

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._databases.connection import AutocommitConnection
from pytest_asyncdb._databases.provisioner import drop
from pytest_asyncdb.abc import BackendSpec, Server, Sourced
from pytest_asyncdb.errors import AsyncdbError, ProviderUnavailable, ServerUnavailable

#: The fastest to start first; ``auto`` would prefer a container to local programs.
ORDER = ("url", "embedded", "local", "container")
#: What is measured where nothing is chosen: backends with drivers, as in ``--asyncdb``.
WORDS = "sqlite,postgres+asyncpg,postgres+psycopg,mysql+asyncmy,mysql+aiomysql,mariadb+asyncmy"


class Servers(contextlib.ExitStack):
    """Servers by backend; left as a context manager, they stop.

    Args:
        providers: Which provider is wanted for which backend.
    """

    def __init__(self, providers: Mapping[str, str]) -> None:
        super().__init__()
        self._providers = providers
        self._registry = Registry()
        self._servers: dict[str, Server | AsyncdbError] = {}
        self._numbers = itertools.count(1)

    def versions(self) -> dict[str, str]:
        """What was used: version, provider, tuning."""
        return {
            name: ", ".join(filter(None, [server.version, server.provider, server.tuning]))
            for name, server in self._servers.items()
            if isinstance(server, Server)
        }

    def url(self, word: str, name: str | None = None) -> str:
        """The URL of a database; default: the one from which others are made.

        Raises:
            AsyncdbError: There is no such server.
        """
        backend, _, driver = word.partition("+")
        if backend == "sqlite":
            return "sqlite+aiosqlite://"
        server = self._server(backend)
        spec = BackendSpec(backend, driver or None)
        chosen = self._registry.driver(spec, None)
        url = self._registry.backend(backend).url(server, chosen.name, name)
        return url.render_as_string(hide_password=False)

    @contextlib.contextmanager
    def database(self, word: str) -> Iterator[str]:
        """The URL of an empty database, which is dropped at the end."""
        name = f"benchmark_{os.getpid()}_{next(self._numbers)}"
        backend = self._registry.backend(word.partition("+")[0])
        url = self.url(word, name)
        if backend.name == "sqlite":
            yield url
            return
        server = self._server(backend.name)
        driver = self._registry.driver(BackendSpec(backend.name), None)
        maintenance = backend.url(server, driver.name, None)

        async def make() -> None:
            async with AutocommitConnection(maintenance, driver) as sql:
                await sql.script(backend.create_database(name))

        async def end() -> None:
            async with AutocommitConnection(maintenance, driver) as sql:
                await drop(sql, backend, server, name)

        asyncio.run(make())
        try:
            yield url
        finally:
            asyncio.run(end())

    def _server(self, name: str) -> Server:
        if name not in self._servers:
            try:
                self._servers[name] = self._start(name)
            except AsyncdbError as error:
                self._servers[name] = error
        server = self._servers[name]
        if isinstance(server, AsyncdbError):
            raise server
        return server

    def _start(self, name: str) -> Server:
        variable = f"ASYNCDB_{name.upper()}_URL"
        written = os.environ.get(variable)
        url = Sourced(written, variable) if written else None
        spec = BackendSpec(name, written=name, source="the benchmark")
        backend, driver = self._registry.backend(name), self._registry.driver(spec, None)
        tried = []
        for word in (self._providers[name],) if name in self._providers else ORDER:
            provider = self._registry.provider(word)
            try:
                found = provider.find(spec, backend, url)
            except ProviderUnavailable as reason:
                tried.append(f"{word}: {reason}")
                continue
            provider.load(found, backend)
            return self.enter_context(provider.obtain(found, spec, backend, driver, _say))
        raise ServerUnavailable(f"no {backend.label} server: {'; '.join(tried)}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
