"""The hook for plugins that add backends and server providers."""

from __future__ import annotations

import pytest

from pytest_asyncdb._config.registry import Registry


@pytest.hookspec
def pytest_asyncdb_register(registry: Registry) -> None:
    """Add backends and server providers. Called before the options are read.

    Example, in a plugin or the root ``conftest.py``::

        def pytest_asyncdb_register(registry):
            registry.add_backend("cockroach", "our_plugin.backend:Cockroach")
            registry.add_provider("kubernetes", "our_plugin.provider:KubernetesProvider")

    Args:
        registry: Its targets are ``module:Class``, and are imported on use.
    """
