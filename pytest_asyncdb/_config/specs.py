"""The only parser of ``backend[+driver][@version]``, for options, URLs and the marker."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pytest_asyncdb import errors
from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb.values import BackendSpec, Sourced


def unknown_word(
    what: str, word: str, source: str, allowed: Sequence[str], hint: str = ""
) -> errors.ConfigError:
    """Return the error for an unknown word in an option or a marker.

    Args:
        what: What the word should have been, such as ``backend``.
        hint: The remedy, if it is not to use a known word.
    """
    from pytest_asyncdb._system.messages import near_miss

    return errors.ConfigError(
        f"unknown {what} {word!r}{near_miss(word, allowed)} ({source})",
        [f"Known: {', '.join(allowed)}."],
        [hint or f"use one of the known words in {source}"],
    )


def split_words(text: str) -> list[str]:
    """Return the words of a value, separated by commas or lines."""
    return [word for part in re.split(r"[,\n]", text) if (word := part.strip())]


def versioned(spec: BackendSpec) -> str:
    """Return the key of a value that the user gives for a backend, or for one version of it."""
    return spec.backend + (f"@{spec.version}" if spec.version else "")


def parse_spec(
    word: str, source: str, registry: Registry, extra: Sequence[str] = ()
) -> BackendSpec:
    """Parse one word, such as ``postgres+psycopg@17``.

    Args:
        extra: Words that the caller accepts besides backends, for the error.

    Raises:
        ConfigError: The backend or driver is unknown.
    """
    match = re.fullmatch(r"([\w.-]+)(?:\+(\w+))?(?:@([\w.-]+))?", word)
    name, driver, version = match.groups() if match is not None else (word, None, None)
    try:
        name = registry.name_of(name)
    except KeyError:
        raise unknown_word("backend", name, source, [*extra, *registry.backends]) from None
    if driver:
        backend = registry.backend(name)
        drivers = [one.name for one in backend.drivers]
        if driver not in drivers:
            raise unknown_word(f"driver for {backend.label}", driver, source, drivers)
    return BackendSpec(name, driver, version, word, source)


def parse_specs(written: Sourced[str], registry: Registry) -> tuple[BackendSpec, ...]:
    """Parse words that are separated by commas; ``all`` stands for every backend.

    Raises:
        ConfigError: A backend or driver is unknown, or there is no word.
    """
    words: list[str] = []
    for word in split_words(written.value):
        words += registry.backends if word == "all" else [word]
    if not words:
        raise errors.ConfigError(
            f"no backend is named ({written.source})", [], ["name one, such as --asyncdb=sqlite"]
        )
    specs = [parse_spec(word, written.source, registry, extra=("all",)) for word in words]
    return tuple(dict.fromkeys(specs))


def parse_databases(written: Sourced[str], registry: Registry) -> dict[str, BackendSpec]:
    """Parse ``NAME=SPEC``, separated by commas: databases with a backend of their own.

    Raises:
        ConfigError: A word has another form, or its backend or driver is unknown.
    """
    databases: dict[str, BackendSpec] = {}
    for word in split_words(written.value):
        name, _, spec = word.rpartition("=")
        if not name:
            raise errors.ConfigError(
                f"{word!r} names no database ({written.source})",
                remedies=[f"write it as NAME=BACKEND: asyncdb_databases = cache={word}"],
            )
        databases[name] = parse_spec(spec, written.source, registry)
    return databases


def matches(wanted: BackendSpec, spec: BackendSpec, registry: Registry) -> bool:
    """Return whether *spec* has the backend, driver and version that *wanted* names."""
    return (
        wanted.backend == spec.backend
        and wanted.version in (None, spec.version)
        and (wanted.driver is None or wanted.driver == registry.driver(spec).name)
    )
