"""Texts of errors in what the user asked for."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_asyncdb import errors
from pytest_asyncdb._system.messages import near_miss


def unknown_word(
    what: str, word: str, source: str, allowed: Sequence[str], hint: str = ""
) -> errors.ConfigError:
    """An unknown word for an option.

    Args:
        what: What the word should have been, such as ``backend``.
        hint: What to write instead where the near miss says too little.
    """
    return errors.ConfigError(
        f"unknown {what} {word!r}{near_miss(word, allowed)} ({source})",
        [f"Known: {', '.join(allowed)}."],
        [hint or f"use one of the known words in {source}"],
    )


def driver_missing(driver: str, extra: str, label: str, source: str) -> errors.DriverMissing:
    """The driver that was asked for, or every driver of a backend, is not installed."""
    return errors.DriverMissing(
        f"the driver {driver} for {label} is not installed ({source})",
        [],
        [f'pip install "pytest-asyncdb[{extra}]"'],
    )


def not_a_test_server(host: str, source: str, allowed: Sequence[str]) -> errors.ConfigError:
    """A URL leads to what may be somebody's real server.

    Args:
        host: What it leads to, and what would have to be allowed.
        allowed: What is allowed already.
    """
    return refused_host(
        host,
        source,
        "Databases of a run's own would be made and dropped there.",
        [
            f"if it is for tests, say so: --asyncdb-allow-hosts={','.join([*allowed, host])}",
            f"or in the ini file: asyncdb_allow_hosts = {', '.join([*allowed, host])}",
            f"or leave {source} out and let a server be started",
        ],
    )


def refused_host(
    host: str, source: str, danger: str, remedies: Sequence[str]
) -> errors.ConfigError:
    return errors.ConfigError(
        f"{host} is not known as a test server ({source})",
        [
            f"Nothing was sent to it. {danger}",
            "Known are this machine, names such as postgres, mysql or db without a dot, and "
            "names with the word test or ci.",
        ],
        remedies,
    )


def no_migrations_file(name: str, path: object, source: str) -> errors.ConfigError:
    """``asyncdb_migrations`` names no file."""
    return errors.ConfigError(
        f"there is no file {name!r} ({source})",
        [f"Looked for {path}."],
        ["name an alembic.ini or pyproject.toml, relative to the ini file's folder"],
    )
