"""The texts of errors that occur while databases are created."""

from __future__ import annotations

from sqlalchemy import URL, Table

from pytest_asyncdb import errors
from pytest_asyncdb._record.call_sites import lines_of, places_of_error
from pytest_asyncdb._record.text import error_text, in_short
from pytest_asyncdb.abc import Server


def wrong_engine_options(error: BaseException) -> errors.ConfigError:
    """Return the error for engine options that SQLAlchemy or the driver does not accept."""
    return errors.ConfigError(
        "the options of the engine do not work (the fixture asyncdb_engine_options)",
        [in_short(error)],
        [
            "return arguments that create_async_engine() accepts on this backend",
            "for other arguments on each backend, let the fixture request asyncdb_backend",
        ],
    )


#: For PostgreSQL's "type … does not exist".
_EXTENSION = ("if an extension has it, name that in the ini file: asyncdb_extensions = NAME",)


def schema_failed(label: str, what: str, error: BaseException) -> errors.SchemaError:
    """Return the error for a schema that could not be built on a backend.

    Args:
        what: ``create_all`` or ``the migration``.
    """
    if isinstance(error, errors.AsyncdbError):
        return errors.SchemaError(str(error))
    original = getattr(error, "orig", None)
    portable = any(cls.__name__ == "CompileError" for cls in type(error).__mro__)
    subject = what if what == "create_all" else "the migrations"
    cure = "make the models portable to" if portable else f"make {subject} run on"
    return errors.SchemaError(
        f"{what} failed on {label}",
        [f"{type(error).__name__}: {str(error).strip()}", *getattr(error, "__notes__", ())],
        [
            *(_EXTENSION if getattr(original, "sqlstate", None) == "42704" else ()),
            f"{cure} {label}, or keep their tests off it: @pytest.mark.asyncdb(exclude=…)",
        ],
    )


def in_another_database(label: str, schema: str, table: Table) -> errors.SchemaError:
    """Return the error for a table with a schema, on a backend where a schema is another
    database."""
    options = {"execution_options": {"schema_translate_map": {table.schema: None}}}
    return errors.SchemaError(
        f"the table {schema}.{table.name} is not in the test's database ({label})",
        [f"On {label}, schema={schema!r} names another database. Tests use only their own."],
        [
            f"lead the schema to the test's database: let asyncdb_engine_options return {options}",
            f"keep the tests off {label}: @pytest.mark.asyncdb(exclude=…)",
        ],
    )


def foreign_database(url: URL, own: URL, source: str) -> errors.ConfigError:
    """Return the error for an ``env.py`` that would have migrated another database than the test's.

    Args:
        url: The URL to which an engine was about to connect; its password is not shown.
        own: The URL of the test's database.
    """
    return errors.ConfigError(
        f"refused: env.py connects to another database ({source})",
        [f"Nothing was sent to {url!r}.", f"The tests' database is {own!r}."],
        [
            'take the URL that is set: config.get_main_option("sqlalchemy.url")',
            'take the connection that is given: config.attributes["connection"]',
            'set the URL only where none is given: if "connection" not in config.attributes: '
            'config.set_main_option("sqlalchemy.url", …)',
        ],
    )


def template_in_use(label: str, error: BaseException) -> errors.SchemaError:
    """Return the error for a template that cannot be copied because sessions are connected to
    it."""
    return errors.SchemaError(
        f"the schema cannot be copied: connections to its database are open on {label}",
        [error_text(error)],
        [
            "close what asyncdb_migrate and asyncdb_seed open: await connection.close() and "
            "await engine.dispose()"
        ],
    )


def not_routed(server: Server, error: BaseException) -> errors.ServerUnavailable:
    """Return the error for a connection pooler that does not lead to new databases."""
    return errors.ServerUnavailable(
        f"the pooler does not lead to new databases ({server.reason})",
        [error_text(error), f"it reaches the server at {server.behind_pooler}"],
        [
            'name the entry in the section [databases] of pgbouncer.ini "*", or add one',
            f"give the server's own URL instead of the pooler's ({server.reason})",
        ],
        "Seen:",
    )


def seed_failed(label: str, error: BaseException) -> errors.SchemaError:
    """Return the error for an ``asyncdb_seed`` that has raised an error."""
    if isinstance(error, errors.AsyncdbError):
        return errors.SchemaError(str(error))
    return errors.SchemaError(
        f"asyncdb_seed failed on {label}",
        [
            f"{type(error).__name__}: {str(error).strip()}",
            *(f"at {line}" for line in lines_of(places_of_error(error)[:1])),
        ],
        [f"make the seed run on {label}; it gets a session on the new tables"],
    )


def seed_reuses_object(label: str, model: str) -> errors.SchemaError:
    """Return the error for a seed that adds an object which another session has stored or loaded.

    Args:
        model: The object's class.
    """
    return errors.SchemaError(
        f"asyncdb_seed adds a {model} object that another session has stored or loaded ({label})",
        ["SQLAlchemy takes it for stored already, so it would be missing in the test's database."],
        ["create the object in the seed"],
    )


def not_copied(error: Exception) -> errors.SchemaError:
    """Return the error for a value of ``asyncdb_seed`` that cannot be pickled."""
    return errors.SchemaError(
        "asyncdb.seeded: what asyncdb_seed returns cannot be copied for each test",
        [f"pickle said: {type(error).__name__}: {error}"],
        ["return plain values, dataclasses or mapped objects, or a dict or list of these"],
    )
