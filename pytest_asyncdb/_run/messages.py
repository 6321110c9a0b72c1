"""Texts of errors of a test run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_asyncdb import errors

if TYPE_CHECKING:
    from pytest_asyncdb.abc import Server


def server_lost(label: str, server: Server, seen: str, kept: bool = False) -> errors.AsyncdbError:
    """Return the error for a server that does not answer any more.

    Args:
        seen: What the last attempt has shown.
        kept: True if the server was kept for later runs.
    """
    remedy = "see what has ended it (the memory of the machine, the disk), then run the tests again"
    if server.provider == "url":
        remedy = "see that the server runs and can be reached, then run the tests again"
    elif kept:
        remedy = "python -m pytest_asyncdb reap, then run the tests again"
    what = "that was kept for later runs does not answer" if kept else "is gone"
    where = f"provider {server.provider}, {server.host}:{server.port}"
    return errors.AsyncdbError(f"the {label} server {what} ({where})", [seen], [remedy], "Seen:")


def not_through_pooler(isolation: str, label: str, server: Server) -> errors.ServerUnavailable:
    """Return the error for a strategy that needs lasting sessions, behind a connection pooler."""
    return errors.ServerUnavailable(
        f"{isolation!r} does not work through a connection pooler ({server.reason})",
        [
            "a pooler such as PgBouncer may run each transaction in another session of the server",
            f"it reaches the {label} server at {server.behind_pooler}",
        ],
        [
            f"give the server's own URL instead of the pooler's ({server.reason})",
            "use 'rollback', which works through it: --asyncdb-isolation=rollback",
        ],
        "Seen:",
    )


def one_connection(server: Server, seconds: float) -> errors.ServerUnavailable:
    """Return the error for a pooler that gives no second connection while one is in a
    transaction."""
    return errors.ServerUnavailable(
        f"the pooler gives one connection at a time ({server.reason})",
        [f"waited {seconds:g} s for a second one to the database {server.maintenance!r}"],
        [
            "raise default_pool_size in pgbouncer.ini, or pool_size of the entry",
            f"give the server's own URL instead of the pooler's ({server.reason})",
        ],
        "Seen:",
    )


def needs_independent(what: str, test: str) -> errors.IsolationConflict:
    """Return the error for a call that needs more than one connection.

    Args:
        what: The call, as the test wrote it.
    """
    return errors.IsolationConflict(
        f"{what} needs connections of their own, which 'rollback' does not have",
        [f"test: {test}"],
        ['mark the test @pytest.mark.asyncdb(isolation="reset")'],
    )


def not_an_app_engine(
    word: str, source: str, found: str, paths: Sequence[str]
) -> errors.ConfigError:
    """Return the error for an entry of ``asyncdb_app_engines`` that cannot be redirected.

    Args:
        found: The object's type.
        paths: Words that lead to the engines in its attributes.
    """
    remedies = [f"name what is in it: {' or '.join(paths)}"] if paths else []
    return errors.ConfigError(
        f"asyncdb_app_engines={word!r} is not an engine but {found} ({source})",
        ["Only engines of SQLAlchemy can be redirected."],
        [
            *remedies,
            "name an AsyncEngine, an Engine, a sessionmaker, or a function that returns one; "
            "or leave it out",
        ],
    )


def spare_fixture(fixture: str | None) -> list[str]:
    """Return the remedy for a fixture that prepares the database, as most projects have one."""
    why = "if it only creates or drops tables: the plugin does that"
    return [f"delete the fixture {fixture}, {why}"] if fixture else []


def used_outside(word: str, url: str, where: str, fixture: str | None) -> errors.IsolationBreach:
    """Return the error for a named engine that connects while no test's database is open.

    Args:
        where: The running test, or the last one.
        fixture: The fixture that is being set up.
    """
    return errors.IsolationBreach(
        f"the application's engine connects outside of a database test ({word})",
        [where, *([f"fixture: {fixture}"] if fixture else []), f"Nothing was sent to {url}."],
        [
            "let the fixture that starts the application use asyncdb_engine: "
            "def client(asyncdb_engine)",
            "for every test, write in the ini file: usefixtures = asyncdb_engine",
            "mark the function, class or module: @pytest.mark.asyncdb",
            "give a fixture of a wider scope the scope of a function, "
            "or fill the database with asyncdb_seed",
            *spare_fixture(fixture),
        ],
    )


def used_in_building(word: str, url: str) -> errors.IsolationBreach:
    """Return the error for a named engine that connects in a migration or a seed."""
    return errors.IsolationBreach(
        f"the application's engine connects while the schema is built ({word})",
        [f"Nothing was sent to {url}."],
        ["use what the function gets: asyncdb_seed a session, asyncdb_migrate a connection"],
    )


def no_metadata() -> errors.ConfigError:
    """Return the error for a database test without tables."""
    return errors.ConfigError(
        "no tables are named for database tests (asyncdb_metadata is not set)",
        remedies=[
            "add to the ini file: asyncdb_metadata = app.models:Base",
            "or, with Alembic: asyncdb_migrations = alembic.ini",
            "override the fixture asyncdb_metadata or asyncdb_migrate in a conftest.py",
            "ask for an empty database: @pytest.mark.asyncdb(schema=False)",
        ],
    )


def on_trio(test: str, source: str, remedy: str) -> errors.LoopError:
    """Return the error for a test that runs on trio."""
    return errors.LoopError(
        f"the test runs on trio, which no async SQLAlchemy driver supports ({source})",
        [f"test: {test}"],
        [f"keep database tests on asyncio: {remedy}"],
    )
