"""Texts of errors in making databases."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_asyncdb import errors
from pytest_asyncdb._record.text import error_text, shorten


def may_not_create(
    label: str, user: str | None, source: str, error: BaseException, grant: str
) -> errors.ServerUnavailable:
    """The account of a URL has no right to make databases.

    Args:
        grant: What gives it that right.
    """
    return errors.ServerUnavailable(
        f"the account {user!r} may not create databases ({source})",
        [error_text(error)],
        [
            f"let an administrator of the {label} server run: {grant}",
            "use only the database in the URL, one that is empty: add asyncdb_database=only to "
            "the URL's parameters",
            f"or leave {source} out and let a server be started",
        ],
    )


def single_in_use(name: str, source: str) -> errors.ServerUnavailable:
    """Another run has the one database that may be used."""
    return errors.ServerUnavailable(
        f"another run uses the database {name!r} ({source})",
        ["The URL says asyncdb_database=only, so the two cannot be kept apart."],
        ["wait for the other run to end, or give each run a database of its own"],
    )


def single_not_empty(
    name: str, source: str, things: Sequence[str], shown: int
) -> errors.ServerUnavailable:
    """The one database that may be used holds what may be somebody's.

    Args:
        things: What it holds.
        shown: How many of them are told.
    """
    more = [f"and {len(things) - shown} more"] if len(things) > shown else []
    return errors.ServerUnavailable(
        f"the database {name!r} is not empty ({source})",
        [*things[:shown], *more],
        [
            "drop what is in it, or give another one in the URL",
            "or give it a name that begins with asyncdb_: what such a database holds is ours to "
            "drop",
        ],
        "It holds, and nothing of it was touched:",
    )


def single_not_emptied(name: str, source: str, error: BaseException) -> errors.SchemaError:
    """What is in the one database that may be used could not be dropped."""
    return errors.SchemaError(
        f"the database {name!r} could not be emptied ({source})",
        [error_text(error)],
        ["look for what the account does not own, and for a connection that holds locks"],
    )


def needs_databases(what: str, source: str) -> errors.ConfigError:
    """Something that one database cannot give.

    Args:
        what: An option, a call, or the run itself.
    """
    return errors.ConfigError(
        f"{what} needs several databases ({source})",
        ["The URL says asyncdb_database=only."],
        [
            "leave it out, or run without xdist's workers",
            "or use an account that may create databases, without asyncdb_database=only",
        ],
    )


def no_room_for_workers(
    label: str, source: str, room: int, workers: int, minimum: int
) -> errors.ServerUnavailable:
    """A server has too few connections for the run's workers.

    Args:
        room: How many it has room for.
        minimum: What each worker needs.
    """
    most = room // minimum
    fewer = f"run fewer workers: -n {most}" if most > 1 else "run without xdist's workers"
    return errors.ServerUnavailable(
        f"{label} has room for {room} connections, {workers} workers need "
        f"{workers * minimum} ({source})",
        [
            f"Each worker needs {minimum}. Counted when the run began, without what others use "
            "and what is kept for administrators."
        ],
        [
            *([fewer] if workers > 1 else []),
            "raise max_connections of the server, or the limit of the account",
        ],
    )


def no_room_for_connection(
    label: str, source: str, used: int, room: int, workers: int
) -> errors.IsolationConflict:
    """A test wants more connections than its worker may have.

    Args:
        used: How many this process has open, all of them in use.
        room: How many the server has room for.
    """
    return errors.IsolationConflict(
        f"a connection too many for this worker's share of {label} ({source})",
        [
            f"The server has room for {room} connections, {workers} "
            f"worker{'s' * (workers > 1)}: {room // workers} each.",
            f"In use here: {used}, and 1 to spare. What was kept for later tests is closed.",
        ],
        [
            "open fewer at once in this test",
            "run fewer workers, or raise max_connections of the server",
        ],
    )


def not_reached(
    label: str, source: str, address: str, host: str, said: str
) -> errors.ServerUnavailable:
    """The server answers the controller, but not a worker on another host.

    Args:
        address: Host and port.
        host: Where the worker runs.
        said: What the driver said there.
    """
    return errors.ServerUnavailable(
        f"a worker on another host does not reach the {label} server ({source})",
        [f"worker on: {host}", f"tried: {address}", shorten(said, 200)],
        [
            "let that host's connections through to it, or give a name or address that means "
            "the same everywhere",
            "or run all workers on the controller's host: -n",
        ],
        "Seen:",
    )


def schema_failed(label: str, what: str, error: BaseException) -> errors.SchemaError:
    """The schema could not be built on a backend.

    Args:
        what: ``create_all`` or ``the migration``.
    """
    if isinstance(error, errors.AsyncdbError):
        return errors.SchemaError(str(error))
    cure = f"make the models portable to {label}"
    if what == "the migration":
        cure = f"make the migrations run on {label}"
    return errors.SchemaError(
        f"{what} failed on {label}",
        [f"{type(error).__name__}: {str(error).strip()}", *getattr(error, "__notes__", ())],
        [f"{cure}, or keep their tests off it: @pytest.mark.asyncdb(exclude=…)"],
    )


def alembic_missing(source: str) -> errors.ConfigError:
    """Alembic is wanted and not installed."""
    return errors.ConfigError(
        f"the package alembic is not installed ({source})",
        [],
        ['pip install "pytest-asyncdb[alembic]"'],
    )


def alembic_unreadable(
    name: str, source: str, error: BaseException, place: str | None
) -> errors.ConfigError:
    """Alembic cannot make anything of its configuration or of a revision.

    Args:
        place: The line of the user's own code that raised, if it was one.
    """
    return errors.ConfigError(
        f"Alembic cannot read the migrations of {name!r} ({source})",
        [
            f"{type(error).__name__}: {str(error).strip()}",
            *([f"at {place}"] if place else []),
        ],
        [f"make this work first: alembic -c {name} history"],
    )


def no_revisions(name: str, source: str, where: str) -> errors.ConfigError:
    """There is nothing to migrate to."""
    return errors.ConfigError(
        f"the migrations of {name!r} have no revision ({source})",
        [f"Looked in {where}."],
        [
            f'write one: alembic -c {name} revision --autogenerate -m "first"',
            "leave asyncdb_migrations out: create_all builds the tables",
        ],
    )


def foreign_database(url: str, ours: str, source: str) -> errors.ConfigError:
    """``env.py`` would have migrated another database than the test's.

    Args:
        url: Where an engine was about to connect, without its password.
        ours: Where it should have.
    """
    return errors.ConfigError(
        f"refused: env.py connects to another database ({source})",
        [f"Nothing was sent to {url}.", f"The tests' database is {ours}."],
        [
            'take the URL that is set: config.get_main_option("sqlalchemy.url")',
            'take the connection that is given: config.attributes["connection"]',
            'set the URL only where none is given: if "connection" not in config.attributes: '
            'config.set_main_option("sqlalchemy.url", …)',
        ],
    )


def template_in_use(label: str, sessions: Sequence[tuple[object, ...]]) -> errors.SchemaError:
    """Somebody is connected to the template, which then cannot be copied.

    Args:
        sessions: Number, user and application of each.
    """
    return errors.SchemaError(
        f"the schema cannot be copied: connections to its database are open on {label}",
        [f"session {', '.join(str(word) for word in words if word)}" for words in sessions],
        [
            "close what asyncdb_migrate and asyncdb_seed open: await connection.close() and "
            "await engine.dispose()"
        ],
        "Connected:",
    )


def seed_failed(label: str, error: BaseException) -> errors.SchemaError:
    """``asyncdb_seed`` raised."""
    return errors.SchemaError(
        f"asyncdb_seed failed on {label}",
        [f"{type(error).__name__}: {str(error).strip()}"],
        [f"make the seed run on {label}; it gets a session on tables without rows"],
    )


def seed_reuses_object(label: str, model: str) -> errors.SchemaError:
    """``asyncdb_seed`` adds an object that another database has stored already.

    Args:
        model: The object's class.
    """
    return errors.SchemaError(
        f"asyncdb_seed adds the same {model} object to a second database, {label}",
        ["SQLAlchemy takes it for stored already, so it would be missing there."],
        ["create new objects in each call of the seed, not at import"],
    )
