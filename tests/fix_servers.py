"""Real servers for the tests, by URL, each started once in a run of the suite.

They are the outer run's own, as any project's run has them: the plugin starts each when the
first test asks for it, and shares it among xdist's workers.

``ASYNCDB_TEST_REQUIRE`` names the servers that have to be there, as
``backend-provider`` words: ``postgres-embedded,mysql-container,mariadb-local``. A test
that needs another one is skipped with the reason where it cannot be had; with a named one
it fails; ``browser`` does the same for the HTML report, ``pgbouncer`` for the pooler. Of a backend's providers the first
one named serves the tests. Without the variable ``ASYNCDB_POSTGRES_URL`` and its like are
taken first.
"""

from __future__ import annotations

import dataclasses
import os
import platform
from importlib.metadata import PackageNotFoundError, version

import pytest
import sqlalchemy
from fix_observer import Observer, observer_of
from fix_suite import WORDS
from sqlalchemy.dialects.postgresql.psycopg import AsyncAdapt_psycopg_connection
from sqlalchemy.engine import URL

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._run.owned_servers import OwnedServers
from pytest_asyncdb._run.stash import RUN
from pytest_asyncdb._run.worker_channel import ChannelServers
from pytest_asyncdb.abc import BackendSpec, Server, Sourced
from pytest_asyncdb.errors import AsyncdbError

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
    programs = {"browser", "pgbouncer"}  # those of test_page.py and fix_pooler.py
    parts = (word.partition("-") for word in words if word not in programs)
    pairs = [(backend, provider) for backend, _, provider in parts]
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
        allow = f"--asyncdb-allow-hosts={self.server.host}" if self.server else ""
        where = [f"--asyncdb-url={self.url}", allow] if self.server else []
        return [f"--asyncdb={self.word}", *where]


class Servers:
    """The servers of this run, each started when the first test needs it."""

    def __init__(self, source: OwnedServers | ChannelServers) -> None:
        self._source = source
        self._servers: dict[str, Server | AsyncdbError] = {}
        self._required = required()
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
        try:
            self._registry.provider(provider).find(
                _spec(backend), self._registry.backend(backend), None
            )
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

    def arguments(self, *words: str) -> list[str]:
        """Of a run on several backends, with the URLs of their servers."""
        targets = [self.target(word) for word in words]
        hosts = ",".join(sorted({str(t.server.host) for t in targets if t.server}))
        urls = [f"--asyncdb-url={t.backend}={t.url}" for t in targets if t.server]
        allow = [f"--asyncdb-allow-hosts={hosts}"] if hosts else []
        return [f"--asyncdb={','.join(words)}", *urls, *allow]

    def two_phase_target(self, word: str) -> Target:
        """The same for PostgreSQL, whose server may not allow prepared transactions: else skip."""
        target = self.target(word)
        skip_without_two_phase(target)
        if target.observer.query("SHOW max_prepared_transactions") == [("0",)]:
            pytest.skip("this server allows no prepared transactions")
        return target

    def _obtain(self, name: str) -> Server | AsyncdbError:
        try:
            return self._source.get(_spec(name))
        except AsyncdbError as error:
            return error


#: On psycopg this SQLAlchemy prepares a transaction by the driver's calls, not by a statement.
PREPARES_BY_CALL = hasattr(AsyncAdapt_psycopg_connection, "tpc_begin")


def skip_without_two_phase(target: Target) -> None:
    """Skip the test if this SQLAlchemy cannot prepare a transaction on *target*."""
    if target.driver == "asyncpg" and sqlalchemy.__version__ < "2.0.51":
        pytest.skip("before 2.0.51 SQLAlchemy prepares no transaction on asyncpg")


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Servers:
    """The servers of this run of the suite. Scope: session."""
    return Servers(pytestconfig.stash[RUN].servers)


@pytest.fixture(params=WORDS, ids=lambda word: word.replace("+", "-"))
def target(request: pytest.FixtureRequest, servers: Servers) -> Target:
    """Each backend with each driver, on a server that is up; see ``fix_suite``."""
    return servers.target(request.param)


#: The provider ``local``, without what users get first under that name: ``embedded``.
_LOCAL_ONLY = "local-only"


def pytest_asyncdb_register(registry: Registry) -> None:
    registry.add_provider(_LOCAL_ONLY, "pytest_asyncdb.servers.local:LocalProvider")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the outer run's providers, before the plugin reads its settings.

    xdist's workers ask their controller.
    """
    if not hasattr(config, "workerinput"):
        chosen = {name: word for name in PREFERRED if (word := _choose(name))}
        config.option.asyncdb_server = ",".join(
            f"{name}={_LOCAL_ONLY if word == 'local' else word}" for name, word in chosen.items()
        )


def _choose(name: str) -> str | None:
    """The first provider that is required, else the first that can give the backend."""
    for backend, provider in required():
        if backend == name:
            return provider
    registry = Registry()
    variable = f"ASYNCDB_{name.upper()}_URL"
    written = os.environ.get(variable)
    for provider in PREFERRED[name]:
        url = Sourced(written, variable) if written and provider == "url" else None
        try:
            registry.provider(provider).find(_spec(name), registry.backend(name), url)
        except AsyncdbError:
            continue
        return provider
    return None


def _spec(backend: str) -> BackendSpec:
    return BackendSpec(backend, written=backend, source="the test suite")


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
    owned = config.stash[RUN].owned
    for future in owned._futures.values() if owned is not None else ():
        if future.done() and future.exception() is None:
            server = future.result()
            terminalreporter.write_line(
                f"server: {server.backend} {server.version} from {server.provider}"
            )
