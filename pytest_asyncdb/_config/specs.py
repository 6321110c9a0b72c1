"""The only parser of ``backend[+driver][@version]``, for options, URLs and the marker."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_asyncdb import errors
from pytest_asyncdb._config import messages
from pytest_asyncdb.abc import BackendSpec, Sourced

if TYPE_CHECKING:
    from pytest_asyncdb._config.registry import Registry


def parse_spec(
    word: str,
    source: str,
    registry: Registry,
    kind: type[errors.AsyncdbError] = errors.ConfigError,
    extra: Sequence[str] = (),
) -> BackendSpec:
    """Parse one word, such as ``postgres+psycopg@17``.

    Args:
        kind: The class of the error for an unknown word.
        extra: Words that the caller accepts besides backends, for the error.

    Raises:
        AsyncdbError: The backend or driver is unknown.
        ConfigError: The word has a character that a test id cannot have.
    """
    rest, _, version = word.partition("@")
    name, _, driver = rest.partition("+")
    try:
        backend = registry.backend(name)
    except KeyError:
        known = [*extra, *registry.backends]
        raise messages.unknown_word("backend", name, source, known, kind=kind) from None
    drivers = [one.name for one in backend.drivers]
    if driver and driver not in drivers:
        what = f"driver for {backend.label}"
        raise messages.unknown_word(what, driver, source, drivers, kind=kind)
    if re.search(r"[^\w.+@-]", word):
        raise errors.ConfigError(
            f"the backend {word!r} has a character that a test id cannot have ({source})",
            [],
            ["write backend[+driver][@version] with letters, digits, '.', '_' and '-'"],
        )
    return BackendSpec(backend.name, driver or None, version or None, word, source)


def parse_specs(written: Sourced[str], registry: Registry) -> tuple[BackendSpec, ...]:
    """Parse words that are separated by commas; ``all`` stands for every backend.

    Raises:
        ConfigError: A backend or driver is unknown, or there is no word.
    """
    words: list[str] = []
    for word in filter(None, map(str.strip, re.split(r"[,\n]", written.value))):
        words += registry.backends if word == "all" else [word]
    if not words:
        raise errors.ConfigError(
            f"no backend is named ({written.source})", [], ["name one, such as --asyncdb=sqlite"]
        )
    specs = [parse_spec(word, written.source, registry, extra=("all",)) for word in words]
    return tuple(dict.fromkeys(specs))


def matches(wanted: BackendSpec, spec: BackendSpec, registry: Registry) -> bool:
    """Is *spec* of the backend, driver and version that *wanted* names?"""
    return (
        wanted.backend == spec.backend
        and wanted.version in (None, spec.version)
        and (wanted.driver is None or wanted.driver == registry.driver(spec).name)
    )
