"""Texts of errors in the configuration."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_asyncdb import errors
from pytest_asyncdb._system.messages import near_miss


def unknown_word(
    what: str,
    word: str,
    source: str,
    allowed: Sequence[str],
    hint: str = "",
    kind: type[errors.AsyncdbError] = errors.ConfigError,
) -> errors.AsyncdbError:
    """An unknown word in an option or a marker.

    Args:
        what: What the word should have been, such as ``backend``.
        hint: The remedy, if it is not one of the known words.
        kind: The error's class.
    """
    return kind(
        f"unknown {what} {word!r}{near_miss(word, allowed)} ({source})",
        [f"Known: {', '.join(allowed)}."],
        [hint or f"use one of the known words in {source}"],
    )


def not_a_test_server(
    host: str, source: str, allowed: Sequence[str], flag: str
) -> errors.ConfigError:
    """A URL leads to a server that may hold real data.

    Args:
        host: The host, or a word for it, as the user would allow it.
        allowed: Hosts and patterns that are allowed already.
        flag: The option that allows more.
    """
    hosts = ",".join([*allowed, host])
    return errors.ConfigError(
        f"{host} is not known as a test server ({source})",
        [
            "Nothing was sent to it. The plugin creates and drops databases on such a server.",
            "Known are this machine and names without a dot, such as postgres or db.",
        ],
        [
            f"if it is for tests, say so: {flag}={hosts}",
            f"or in the environment: ASYNCDB_ALLOW_HOSTS={hosts}",
            f"or leave out {source}",
        ],
    )


def no_migrations_file(name: str, path: object, source: str) -> errors.ConfigError:
    """``asyncdb_migrations`` names a file that does not exist."""
    return errors.ConfigError(
        f"there is no file {name!r} ({source})",
        [f"Looked for {path}."],
        ["name an alembic.ini or pyproject.toml, relative to the ini file's folder"],
    )
