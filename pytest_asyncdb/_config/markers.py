"""The marker ``asyncdb``: its check, its merging, and which backends it leaves.

``@pytest.mark.asyncdb(*backends, exclude=…, isolation=…, requires=…, schema=…,
reset_sequences=…, reason=…)`` on a function, class, module or parameter; the closest wins, key
by key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pytest_asyncdb import errors
from pytest_asyncdb._config.options import ISOLATIONS
from pytest_asyncdb._system import messages
from pytest_asyncdb.abc import BackendSpec, Capabilities

if TYPE_CHECKING:
    import pytest

    from pytest_asyncdb._config.registry import Registry

_KEYS = ("exclude", "isolation", "requires", "schema", "reset_sequences", "reason")
_CAPABILITIES = Capabilities._fields


@dataclasses.dataclass(frozen=True)
class MarkerOptions:
    """What a test's markers say together.

    Args:
        backends: The words that the test is for; none: all.
        exclude: The words that it is not for.
        requires: Capabilities that a backend must have.
        isolation: The strategy, where the markers name one.
        schema: False for an empty database.
        reset_sequences: Ids start anew; None: as the strategy does by itself.
        reason: Why, for the skip.
    """

    backends: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    isolation: str | None = None
    schema: bool = True
    reset_sequences: bool | None = None
    reason: str = ""

    def allows(self, spec: BackendSpec, registry: Registry) -> bool:
        """May the test run on *spec*?"""
        capabilities = registry.backend(spec.backend).capabilities
        return (
            (not self.backends or any(_matches(word, spec, registry) for word in self.backends))
            and not any(_matches(word, spec, registry) for word in self.exclude)
            and all(getattr(capabilities, name) for name in self.requires)
        )

    def why_not(self, specs: Sequence[BackendSpec]) -> str:
        """The reason of a skip: names both sets."""
        parts = []
        if self.backends:
            parts.append(f"only {', '.join(self.backends)}")
        if self.exclude:
            parts.append(f"not {', '.join(self.exclude)}")
        if self.requires:
            parts.append(f"requires {', '.join(self.requires)}")
        run = ", ".join(map(str, specs))
        reason = f": {self.reason}" if self.reason else ""
        return f"marked {'; '.join(parts)}{reason}; this run has {run} ({specs[0].source})"


def read_markers(marks: Iterable[pytest.Mark], where: str, registry: Registry) -> MarkerOptions:
    """Merge *marks*, closest first.

    Args:
        where: The test's file and name, for errors.

    Raises:
        MarkerError: An unknown word or key.
    """
    merged: dict[str, Any] = {}
    for mark in marks:
        for key, value in _check(mark, where, registry).items():
            merged.setdefault(key, value)
    return MarkerOptions(**merged)


def _check(mark: pytest.Mark, where: str, registry: Registry) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key in mark.kwargs:
        if key not in _KEYS:
            raise _mistake("argument", key, _KEYS, where)
    if mark.args:
        values["backends"] = _words(mark.args, where, registry)
    if "exclude" in mark.kwargs:
        values["exclude"] = _words(_as_tuple(mark.kwargs["exclude"]), where, registry)
    if "requires" in mark.kwargs:
        values["requires"] = _as_tuple(mark.kwargs["requires"])
        for name in values["requires"]:
            if name not in _CAPABILITIES:
                raise _mistake("capability", name, _CAPABILITIES, where)
    if "isolation" in mark.kwargs:
        name = mark.kwargs["isolation"]
        if name not in ISOLATIONS:
            raise _mistake("isolation strategy", name, ISOLATIONS, where)
        values["isolation"] = name
    for key in ("schema", "reset_sequences", "reason"):
        if key in mark.kwargs:
            values[key] = mark.kwargs[key]
    return values


def _words(words: Sequence[Any], where: str, registry: Registry) -> tuple[str, ...]:
    for word in words:
        name, _, driver = str(word).partition("@")[0].partition("+")
        try:
            backend = registry.backend(name)
        except KeyError:
            raise _mistake("backend", str(word), registry.backends, where) from None
        drivers = [d.name for d in backend.drivers]
        if driver and driver not in drivers:
            raise _mistake(f"driver for {backend.label}", driver, drivers, where)
    return tuple(words)


def _as_tuple(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _matches(word: str, spec: BackendSpec, registry: Registry) -> bool:
    rest, _, version = word.partition("@")
    name, _, driver = rest.partition("+")
    if registry.backend(name).name != spec.backend:
        return False
    if version and version != spec.version:
        return False
    return not driver or driver == registry.driver(spec).name


def _mistake(what: str, word: Any, allowed: Sequence[str], where: str) -> errors.MarkerError:
    return errors.MarkerError(
        f"@pytest.mark.asyncdb: unknown {what} {word!r}{messages.near_miss(str(word), allowed)}",
        [f"at {where}", f"Known: {', '.join(allowed)}."],
        ["use one of the known words in the marker"],
    )
