"""Real servers for the tests, by URL, each started once in a run of the suite.

``ASYNCDB_TEST_REQUIRE`` names the servers that have to be there, as
``backend-provider`` words: ``postgres-embedded,mysql-container,mariadb-local``. A test
that needs another one is skipped with the reason where it cannot be had; with a named one
it fails. Without the variable ``ASYNCDB_POSTGRES_URL`` and its like are taken first.
"""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version

import pytest
from fix_observer import Observer, observer_of
from sqlalchemy.engine import URL

from pytest_asyncdb._registry import Registry
from pytest_asyncdb._types import BackendSpec, Server, Sourced
from pytest_asyncdb.errors import AsyncdbError

#: The words in ``--asyncdb`` on which every contract test runs.
WORDS = (
    "sqlite",
    "postgres+asyncpg",
    "postgres+psycopg",
    "mysql+asyncmy",
    "mysql+aiomysql",
    "mariadb+asyncmy",
)

#: The providers that are tried where none is required, the fastest first.
PREFERRED = {
    "postgres": ("url", "local", "embedded", "container"),
    "mysql": ("url", "local", "container"),
    "mariadb": ("url", "local", "container"),
}

_PACKAGES = (
    *("pytest", "pytest-asyncio", "pytest-xdist", "anyio", "uvloop", "SQLAlchemy"),
    *("aiosqlite", "asyncpg", "psycopg", "asyncmy", "aiomysql"),
)


def required() -> list[tuple[str, str]]:
    """What ``ASYNCDB_TEST_REQUIRE`` names, as pairs of backend and provider."""
    words = os.environ.get("ASYNCDB_TEST_REQUIRE", "").replace(",", " ").split()
    pairs = [(backend, provider) for backend, _, provider in (w.partition("-") for w in words)]
    for backend, provider in pairs:
        if provider not in PREFERRED.get(backend, ()):
            raise pytest.UsageError(f"ASYNCDB_TEST_REQUIRE: {backend}-{provider} is unknown")
    return pairs


@dataclasses.dataclass(frozen=True)
class Target:
    """A backend and a driver for an inner run, and who watches it.

    Args:
        word: The word in ``--asyncdb``.
        server: The URL of a server that is up, or None for SQLite.
        observer: Looks at that server.
    """

    word: str
    server: URL | None
    observer: Observer

    @property
    def backend(self) -> str:
        return self.word.partition("+")[0]

    @property
    def driver(self) -> str:
        return self.word.partition("+")[2] or "aiosqlite"

    @property
    def id(self) -> str:
        """The backend as it stands in test ids."""
        return self.word.replace("+", "-")

    @property
    def url(self) -> str | None:
        """The server's URL as a user writes it, password included."""
        return self.server and self.server.render_as_string(hide_password=False)

    @property
    def arguments(self) -> list[str]:
        """The command line of an inner run."""
        where = [f"--asyncdb-url={self.url}"] if self.server else []
        return [f"--asyncdb={self.word}", *where]


class Servers:
    """The servers of this run, each started when the first test needs it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._servers: dict[str, Server | AsyncdbError] = {}
        self._required = required()
        # Read now: the tests' own environment has none of our variables.
        self._urls = {
            name: Sourced(os.environ[variable], variable)
            for name in PREFERRED
            if os.environ.get(variable := f"ASYNCDB_{name.upper()}_URL")
        }
        self._registry = Registry()

    def server(self, backend: str) -> Server:
        """The server of a backend; the test is skipped, or fails, where there is none."""
        if backend not in self._servers:
            self._servers[backend] = self._obtain(backend)
        found = self._servers[backend]
        if isinstance(found, Server):
            return found
        if any(name == backend for name, _ in self._required):
            pytest.fail(f"ASYNCDB_TEST_REQUIRE names {backend}: {found}", pytrace=False)
        pytest.skip(f"no {backend} server: {found}")

    def need(self, backend: str, provider: str) -> None:
        """Skip the test, or fail, where *provider* cannot give a server of *backend*."""
        spec = BackendSpec(backend, written=backend, source="the test suite")
        try:
            self._registry.provider(provider).find(spec, self._registry.backend(backend), None)
        except AsyncdbError as error:
            if (backend, provider) in self._required:
                pytest.fail(f"ASYNCDB_TEST_REQUIRE names {backend}-{provider}: {error}")
            pytest.skip(f"no {backend} from {provider}: {error}")

    def target(self, word: str) -> Target:
        """What an inner run on *word* needs."""
        backend, _, driver = word.partition("+")
        if backend == "sqlite":
            return Target(word, None, observer_of(None))
        server = self.server(backend)
        url = self._registry.backend(backend).url(server, driver, None)
        return Target(word, url, observer_of(url))

    def _obtain(self, name: str) -> Server | AsyncdbError:
        backend = self._registry.backend(name)
        url = self._urls.get(name)
        spec = BackendSpec(name, written=name, source="the test suite")
        named = [provider for backend_, provider in self._required if backend_ == name]
        reasons = []
        for word in named[:1] or PREFERRED[name]:
            provider = self._registry.provider(word)
            try:
                found = provider.find(spec, backend, url if word == "url" else None)
                return self._stack.enter_context(
                    provider.obtain(
                        found, spec, backend, self._registry.driver(spec), lambda line: None
                    )
                )
            except AsyncdbError as error:
                reasons.append(f"{word}: {error}")
        return AsyncdbError("; ".join(reasons))


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Iterator[Servers]:
    """The servers of this run of the suite. Scope: session."""
    with ExitStack() as stack:
        found = Servers(stack)
        yield found
        pytestconfig.stash[_USED] = [s for s in found._servers.values() if isinstance(s, Server)]


@pytest.fixture(params=WORDS, ids=lambda word: word.replace("+", "-"))
def target(request: pytest.FixtureRequest, servers: Servers) -> Target:
    """Each backend with each driver, on a server that is up."""
    return servers.target(request.param)


_USED = pytest.StashKey[list[Server]]()


def pytest_report_header() -> list[str]:
    def known(package: str) -> str:
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            return f"no {package}"

    needed = ",".join("-".join(pair) for pair in required()) or "nothing"
    return [
        f"tested with: Python {platform.python_version()}, {', '.join(map(known, _PACKAGES))}",
        f"required servers: {needed}",
    ]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for server in config.stash.get(_USED, []):
        terminalreporter.write_line(
            f"server: {server.backend} {server.version} from {server.provider}"
        )
