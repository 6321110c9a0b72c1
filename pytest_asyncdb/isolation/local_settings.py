"""Settings that end with a transaction (``SET LOCAL``), if the transaction is a savepoint.

The release of a savepoint would keep them. So the plugin keeps the former value on the server and
restores it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pytest_asyncdb.abc import Backend
from pytest_asyncdb.isolation.unit import Unit


def watch(backend: Backend, unit: Unit, statement: str, parameters: Any) -> list[str]:
    """Return statements to send before *statement*, so that the settings that it makes for its
    transaction end with *unit*."""
    if statement[:3].lower() == "set" and statement.rstrip("; ").upper() in backend.read_only:
        unit.read_only = True
    return _keep(backend, unit, backend.local_settings(statement, parameters))


def begin(backend: Backend, unit: Unit, hidden: Mapping[str, Unit]) -> list[str]:
    """Return statements for the begin of *unit*.

    Args:
        hidden: Settings of the units below. *unit* would not see them on a connection of its own.
    """
    keep = _keep(backend, unit, hidden)
    before = [_put_back(backend, one, name) for name, one in hidden.items()]
    return [*keep, *before, *(backend.read_only if unit.read_only else ())]


def put_back(backend: Backend, unit: Unit) -> list[str]:
    """Return statements to send after the release of *unit*."""
    return [_put_back(backend, unit, name) for name in unit.settings]


def _keep(backend: Backend, unit: Unit, names: Iterable[str]) -> list[str]:
    statements = []
    for name in names:
        if name not in unit.settings:
            unit.settings[name] = f"{unit.savepoint}_{len(unit.settings)}"
            statements.append(backend.keep_setting(name, unit.settings[name])[0])
    return statements


def _put_back(backend: Backend, unit: Unit, name: str) -> str:
    return backend.keep_setting(name, unit.settings[name])[1]
