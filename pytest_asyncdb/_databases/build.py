"""Builds a template: its schema, by ``create_all`` or a migration, and its seeds.

Everything runs on the plugin's loop, on an engine without a pool that is disposed of afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema

from pytest_asyncdb import errors
from pytest_asyncdb._databases import messages
from pytest_asyncdb._databases.plan import SchemaPlan, mapped, refuse_equal_tables
from pytest_asyncdb._databases.seeds import pickled, take_again
from pytest_asyncdb._engines.build_engine import build_engine, without_pool
from pytest_asyncdb._record.sql_text import several_statements
from pytest_asyncdb.abc import Backend, Driver


def building_engine(
    url: URL, options: Mapping[str, Any], connect_args: Mapping[str, Any] = {}
) -> AsyncEngine:
    """Return an engine for building, with the user's options except those of the pool.

    Args:
        connect_args: Arguments that the server needs. The user's take precedence.

    Raises:
        ConfigError: SQLAlchemy does not accept the options, or the backend lacks the isolation
            level.
    """
    left = without_pool(options)
    level = left.pop("isolation_level", None)
    try:
        left["connect_args"] = {**connect_args, **left.get("connect_args", {})}
        engine = build_engine(url, poolclass=NullPool, **left)
        for one in (level, engine.get_execution_options().get("isolation_level")):
            with contextlib.suppress(NotImplementedError):  # the dialect has no list of levels
                _check_isolation_level(engine.dialect, one)
        if not isinstance(pool := options.get("poolclass") or NullPool, type):
            raise TypeError(f"poolclass={pool!r} is not a class")
    except Exception as error:
        raise messages.wrong_engine_options(error) from error
    return engine


async def try_options(engine: AsyncEngine) -> None:
    """Connect once, to check the options.

    Raises:
        ConfigError: The driver or the server does not accept the user's ``connect_args``.
    """
    try:
        async with engine.connect():
            pass
    except Exception as error:
        raise messages.wrong_engine_options(getattr(error, "orig", None) or error) from error


def take_scripts(engine: AsyncEngine, driver: Driver) -> None:
    """Let *engine* run texts of several statements, without parameters.

    Some drivers refuse such texts, some hide the errors of all statements but the first, and some
    take a percent sign for a parameter.
    """

    def execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        if parameters or not several_statements(statement):
            return False
        if context.dialect.paramstyle in ("format", "pyformat"):
            with contextlib.suppress(TypeError, ValueError):  # the text has single percent signs
                statement %= ()
        adapted = context.root_connection.connection.dbapi_connection
        first = adapted.cursor()
        first.execute("SELECT 1")  # begins the transaction
        first.close()
        adapted.run_async(lambda connection: driver.run(connection, driver.split(statement)))
        return True

    event.listen(engine.sync_engine, "do_execute", execute)


async def build_schema(engine: AsyncEngine, backend: Backend, plan: SchemaPlan) -> None:
    """Build the schema in an empty database.

    Raises:
        MetadataError: Two tables have the same name.
        SchemaError: The server or the migration raised an error, or a table is in another database.
    """
    if plan.migrate is None:
        refuse_equal_tables(plan.metadata)
    options = engine.get_execution_options()
    tables = [table for metadata in plan.metadata for table in metadata.tables.values()]
    schemas = {name: table for table in tables if (name := mapped(table.schema, options))}
    try:
        if schemas and backend.schemas_are_databases:
            raise messages.in_another_database(backend.label, *sorted(schemas.items())[0])
        if plan.migrate is not None:
            await _migrate(engine, plan.migrate)
        else:
            async with engine.begin() as connection:
                for schema in sorted(schemas) if backend.capabilities.schemas else ():
                    await connection.execute(CreateSchema(schema, if_not_exists=True))
                for metadata in plan.metadata:
                    await connection.run_sync(metadata.create_all)
    except Exception as error:
        what = "the migration" if plan.migrate else "create_all"
        raise messages.schema_failed(backend.label, what, error) from error


async def fill(
    engine: AsyncEngine,
    backend: Backend,
    seeds: Sequence[Callable[..., Any]],
    session_options: Mapping[str, Any],
) -> list[bytes]:
    """Run the user's seeds, each in its own session and transaction.

    Returns:
        What each seed has returned, pickled.

    Raises:
        SchemaError: A seed raised an error.
    """
    sessions = async_sessionmaker(engine, **{"expire_on_commit": False, **session_options})
    returned = []

    for seed in seeds:
        try:
            async with sessions() as session:
                take_again(session.sync_session, backend.label)
                result = seed(session)
                if inspect.isawaitable(result):
                    result = await result
                await session.commit()
                returned.append(await pickled(session, result))
        except Exception as error:
            raise messages.seed_failed(backend.label, error) from error
    return returned


async def _migrate(engine: AsyncEngine, migrate: Callable[..., Any]) -> None:
    """Call the user's function. The names of its parameters say which values it gets."""
    names = list(inspect.signature(migrate).parameters)
    if unknown := [name for name in names if name not in ("connection", "engine", "url")]:
        raise errors.ConfigError(
            f"asyncdb_migrate: a function with the unknown parameter {unknown[0]!r}",
            ["Known: connection, engine, url."],
            ["name its parameters after what it needs"],
        )
    is_async = inspect.iscoroutinefunction(migrate)
    values = {"url": engine.url, "engine": engine if is_async else engine.sync_engine}
    given: dict[str, Any] = {name: values[name] for name in names if name in values}
    if "connection" in names:
        async with engine.begin() as connection:
            if is_async:
                await migrate(connection=connection, **given)
            else:
                await connection.run_sync(lambda sync: migrate(connection=sync, **given))
    elif is_async:
        await migrate(**given)
    else:
        # A sync function may run its own event loop (Alembic's async env.py does).
        await asyncio.to_thread(migrate, **given)


def _check_isolation_level(dialect: Dialect, level: str | None) -> None:
    """Refuse a level that *dialect* does not know, as SQLAlchemy does at the first connection.

    Raises:
        ArgumentError: It does not know the level.
    """
    levels: Any = dialect.get_isolation_level_values(None)  # type: ignore[arg-type]
    if level is not None and str(level).replace("_", " ").upper() not in levels:
        raise ArgumentError(
            f"Invalid value {level!r} for isolation_level. "
            f"Valid isolation levels for {dialect.name!r} are {', '.join(levels)}"
        )
