"""Texts of errors of a test run."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_asyncdb import errors
from pytest_asyncdb._config.messages import refused_host
from pytest_asyncdb._record.text import error_text


def not_to_be_reaped(host: str, source: str, allowed: Sequence[str]) -> errors.ConfigError:
    """The same where what dead runs have left is to be removed."""
    return refused_host(
        host,
        source,
        "Databases that dead runs have left would be dropped there.",
        [
            f"if it is for tests, say so: --allow-hosts={','.join([*allowed, host])}",
            f"or export ASYNCDB_ALLOW_HOSTS={','.join([*allowed, host])}",
        ],
    )


def out_of_reach(
    label: str, example: str, source: str, why: str, host: str
) -> errors.ServerUnavailable:
    """A worker of xdist on another host would need a server that is here only.

    Args:
        example: A URL as it would help.
        why: Why the server is here only.
        host: Where the worker runs.
    """
    return errors.ServerUnavailable(
        f"a worker on another host cannot reach the {label} server ({source})",
        [f"worker on: {host}", f"controller: {why}"],
        [
            f"give the URL of a server that all hosts reach: --asyncdb-url={example}",
            "or run all workers on the controller's host: -n",
        ],
        "Seen:",
    )


def server_unavailable(
    label: str, source: str, tried: Sequence[tuple[str, str]], remedies: Sequence[str]
) -> errors.ServerUnavailable:
    """No provider could give the server.

    Args:
        tried: Provider and reason, in the order of trying.
    """
    return errors.ServerUnavailable(
        f"no {label} server is available ({source})",
        [f"{provider}: {reason}" for provider, reason in tried],
        [*remedies, "or skip these tests: --asyncdb-missing=skip"],
        "Tried, in this order:",
    )


def server_lost(label: str, provider: str, where: str, said: str) -> errors.AsyncdbError:
    """A server does not answer any more.

    Args:
        said: What the last try said.
    """
    started = provider != "url"
    return errors.AsyncdbError(
        f"the {label} server is gone (provider {provider}, {where})",
        [said],
        [
            "see what has ended it (the memory of the machine, the disk), then run the tests again"
            if started
            else "see that the server runs and can be reached, then run the tests again"
        ],
        "Seen:",
    )


def kept_lost(label: str, where: str, error: BaseException) -> errors.ServerStartError:
    """A server that was kept for later runs does not let a run in."""
    return errors.ServerStartError(
        f"the {label} server that was kept for later runs does not answer",
        [where, error_text(error)],
        ["python -m pytest_asyncdb reap, then run the tests again"],
        "Seen:",
    )


def needs_independent(what: str, test: str) -> errors.IsolationConflict:
    """Something that one connection cannot give.

    Args:
        what: The call, as the test wrote it.
    """
    return errors.IsolationConflict(
        f"{what} needs connections of their own, which 'rollback' does not have",
        [f"test: {test}"],
        ['mark the test @pytest.mark.asyncdb(isolation="reset")'],
    )


def not_an_app_engine(word: str, source: str, found: str, sync: bool) -> errors.ConfigError:
    """``asyncdb_app_engines`` leads to something that cannot be redirected.

    Args:
        found: The type of what was found.
        sync: It is of SQLAlchemy's sync API.
    """
    return errors.ConfigError(
        f"asyncdb_app_engines={word!r} is not an AsyncEngine but {found} ({source})",
        ["Only engines of sqlalchemy.ext.asyncio can be redirected."] if sync else [],
        [
            "name an AsyncEngine, an async_sessionmaker, or a function that returns one; "
            "or leave it out"
        ],
    )


def app_engine_failed(word: str, source: str, error: BaseException) -> errors.ConfigError:
    """A function that ``asyncdb_app_engines`` names raised."""
    return errors.ConfigError(
        f"asyncdb_app_engines={word!r}: calling it failed ({source})",
        [f"{type(error).__name__}: {error}"],
        ["name a function that needs no arguments and returns the application's own engine"],
    )


def used_outside(word: str, url: str, where: str) -> errors.IsolationBreach:
    """An engine that should be redirected connects where there is no test's database.

    Args:
        where: The test that runs, or what else is known.
    """
    return errors.IsolationBreach(
        f"the application's engine connects outside of a database test ({word})",
        [where, f"Nothing was sent to {url}."],
        [
            "make it a database test: @pytest.mark.asyncdb on the function, class or module",
            "in a fixture of a wider scope: give it the scope of a function",
        ],
    )


def no_metadata() -> errors.ConfigError:
    """A database test, and nothing says what its tables are."""
    return errors.ConfigError(
        "no tables are named for database tests (asyncdb_metadata is not set)",
        [],
        [
            "add to the ini file: asyncdb_metadata = app.models:Base",
            "or, with Alembic: asyncdb_migrations = alembic.ini",
            "override the fixture asyncdb_metadata or asyncdb_migrate in a conftest.py",
            "ask for an empty database: @pytest.mark.asyncdb(schema=False)",
        ],
    )


def nothing_to_compare() -> errors.MetadataError:
    """The schema was to be compared, and nothing says what the models are."""
    return errors.MetadataError(
        "asyncdb.schema_differences() compares the models with the database, "
        "and asyncdb_metadata is not set",
        [],
        ["add to the ini file: asyncdb_metadata = app.models:Base"],
    )


def no_backend_parameter(test: str, words: Sequence[str]) -> errors.ConfigError:
    """A fixture was asked for by ``getfixturevalue``, so the test was not parametrised."""
    return errors.ConfigError(
        "a database fixture was requested while the test ran, on several backends",
        [f"test: {test}", f"The run's backends: {', '.join(words)}."],
        ['name it before: @pytest.mark.usefixtures("asyncdb_backend") on the test'],
    )


def trio_backend(test: str) -> errors.LoopError:
    """anyio runs the test on trio."""
    return errors.LoopError(
        "the test runs on trio, which no async SQLAlchemy driver knows (anyio_backend)",
        [f"test: {test}"],
        ["keep database tests on asyncio: override anyio_backend to return 'asyncio'"],
    )
