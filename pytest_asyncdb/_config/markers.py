"""The marker ``asyncdb``: checks its arguments, merges markers, and selects backends.

``@pytest.mark.asyncdb(*backends, exclude=…, isolation=…, requires=…, schema=…, reset_sequences=…,
reason=…)`` is for a function, class, module or parameter. For each argument, the closest marker has
precedence.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from pytest_asyncdb import errors
from pytest_asyncdb._config.option_table import ISOLATIONS
from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._config.specs import matches, parse_spec, unknown_word
from pytest_asyncdb.abc import Capabilities
from pytest_asyncdb.values import BackendSpec

_KEYS = ("exclude", "isolation", "requires", "schema", "reset_sequences", "reason")
_CAPABILITIES = Capabilities._fields


@dataclasses.dataclass(frozen=True)
class MarkerOptions:
    """The merged arguments of a test's markers.

    Args:
        backends: The backends that the test is for; empty: all.
        exclude: The backends that it is not for.
        requires: Capabilities that a backend must have.
        isolation: The strategy, or None for the run's.
        schema: False for an empty database.
        reset_sequences: True restarts sequences; None leaves it to the strategy.
        reason: The reason of a skip.
    """

    backends: tuple[BackendSpec, ...] = ()
    exclude: tuple[BackendSpec, ...] = ()
    requires: tuple[str, ...] = ()
    isolation: str | None = None
    schema: bool = True
    reset_sequences: bool | None = None
    reason: str = ""

    def allows(self, spec: BackendSpec, registry: Registry) -> bool:
        """Return whether the test may run on *spec*."""
        capabilities = registry.backend(spec.backend).capabilities
        return (
            (not self.backends or any(matches(one, spec, registry) for one in self.backends))
            and not any(matches(one, spec, registry) for one in self.exclude)
            and all(getattr(capabilities, name) for name in self.requires)
        )

    def why_not(self, specs: Sequence[BackendSpec]) -> str:
        """Return the reason of a skip: what the marker says, and the run's backends."""
        sets = {"only": self.backends, "not": self.exclude, "requires": self.requires}
        parts = [f"{word} {', '.join(map(str, them))}" for word, them in sets.items() if them]
        run = ", ".join(map(str, specs))
        reason = f": {self.reason}" if self.reason else ""
        return f"marked {'; '.join(parts)}{reason}; this run has {run} ({specs[0].source})"


def read_markers(item: pytest.Item, registry: Registry) -> MarkerOptions:
    """Merge the markers of a test.

    Raises:
        MarkerError: A word or key is unknown.
    """
    path, line, name = item.location
    where = f"@pytest.mark.asyncdb of {name} at {path}:{(line or 0) + 1}"
    merged: dict[str, Any] = {}
    # The closest marker comes first. pytest puts the markers of a parameter behind those of its
    # function.
    of_parameter = getattr(getattr(item, "callspec", None), "marks", ())
    for mark in (
        *(mark for mark in of_parameter if mark.name == "asyncdb"),
        *item.iter_markers("asyncdb"),
    ):
        try:
            checked = _check(mark, where, registry)
        except errors.ConfigError as error:
            raise errors.MarkerError(*error.args) from None
        merged = {**checked, **merged}
    return MarkerOptions(**merged)


def _check(mark: pytest.Mark, where: str, registry: Registry) -> dict[str, Any]:
    for key in mark.kwargs:
        if key not in _KEYS:
            raise unknown_word("argument", key, where, _KEYS)
    values = dict(mark.kwargs)
    if mark.args:
        values["backends"] = mark.args
    for key in ("exclude", "requires"):
        if isinstance(values.get(key), str):
            values[key] = (values[key],)
    for key in values.keys() & {"backends", "exclude"}:
        values[key] = tuple(parse_spec(str(word), where, registry) for word in values[key])
    for name in values.get("requires", ()):
        if name not in _CAPABILITIES:
            raise unknown_word("capability", name, where, _CAPABILITIES)
    if values.get("isolation", ISOLATIONS[0]) not in ISOLATIONS:
        raise unknown_word("isolation strategy", str(values["isolation"]), where, ISOLATIONS)
    return values
