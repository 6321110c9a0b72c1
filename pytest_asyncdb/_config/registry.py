"""The names of backends, drivers, server providers and strategies. Classes are imported on use.

Third parties add names in the hook ``pytest_asyncdb_register``.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pytest_asyncdb import errors
from pytest_asyncdb.values import BackendSpec

if TYPE_CHECKING:
    from pytest_asyncdb import abc


class Registry:
    """Backends, server providers and strategies by name, as ``module:Class``."""

    def __init__(self) -> None:
        #: ``module:Class`` by name, in the order in which they are listed.
        self.backends = {
            "sqlite": "pytest_asyncdb.backends.sqlite:SQLite",
            "postgres": "pytest_asyncdb.backends.postgres:Postgres",
            "mysql": "pytest_asyncdb.backends.mysql:MySQL",
            "mariadb": "pytest_asyncdb.backends.mysql:MariaDB",
        }
        #: ``module:Class`` by name, in the order in which ``auto`` tries them.
        self.providers = {
            "memory": "pytest_asyncdb.servers.memory:MemoryProvider",
            "url": "pytest_asyncdb.servers.url:UrlProvider",
            "embedded": "pytest_asyncdb.servers.embedded:EmbeddedProvider",
            "container": "pytest_asyncdb.servers.container:ContainerProvider",
            "local": "pytest_asyncdb.servers.local:LocalProvider",
        }
        self._isolations = {
            "rollback": "pytest_asyncdb.isolation.rollback:Rollback",
            "reset": "pytest_asyncdb.isolation.reset:Reset",
            "copy": "pytest_asyncdb.isolation.copy:Copy",
        }
        self._load: Callable[[str], Any] = functools.cache(lambda target: _object(target)())

    def add_backend(self, name: str, target: str) -> None:
        """Add a backend.

        Args:
            name: The word for ``--asyncdb``.
            target: ``module:Class`` of a :class:`~pytest_asyncdb.abc.Backend`.
        """
        self.backends[name] = target

    def add_provider(self, name: str, target: str) -> None:
        """Add a server provider. ``auto`` tries it after the others.

        Args:
            name: The word for ``--asyncdb-server``.
            target: ``module:Class`` of a :class:`~pytest_asyncdb.abc.ServerProvider`.
        """
        self.providers[name] = target

    def name_of(self, word: str) -> str:
        """Return the name of the backend with that name or alias. A backend is loaded only for
        aliases.

        Raises:
            KeyError: There is no such backend.
        """
        if word in self.backends:
            return word
        return {one: name for name in self.backends for one in self.backend(name).aliases}[word]

    def backend(self, word: str) -> abc.Backend:
        """Return the backend with that name or alias.

        Raises:
            KeyError: There is no such backend.
        """
        return self._load(self.backends[self.name_of(word)])  # type: ignore[no-any-return]

    def provider(self, name: str) -> abc.ServerProvider:
        """Return the server provider called *name*."""
        return self._load(self.providers[name])  # type: ignore[no-any-return]

    def isolation(self, name: str) -> type[abc.Isolation]:
        """Return the isolation strategy called *name*."""
        return _object(self._isolations[name])  # type: ignore[no-any-return]

    def driver(self, spec: BackendSpec, preferred: str | None = None) -> abc.Driver:
        """Return the driver that *spec* names, else *preferred*, else the first installed one.

        Raises:
            DriverMissing: That driver, or every driver of the backend, is not installed.
        """
        backend = self.backend(spec.backend)
        wanted = spec.driver or preferred
        for driver in backend.drivers:
            if wanted in (None, driver.name) and importlib.util.find_spec(driver.module):
                return driver()
        named = next((d for d in backend.drivers if d.name == wanted), backend.drivers[0])
        install = f'pip install "pytest-asyncdb[{named.extra}]"'
        raise errors.DriverMissing(
            f"the driver {named.name} for {backend.label} is not installed ({spec.source})",
            [],
            [install if named.extra else f"install the package with the module {named.module}"],
        )


def _object(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
