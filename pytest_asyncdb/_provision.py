"""Databases: their names, their schema, their seed, and their end.

Everything runs on our own loop. What a test does in a database is not known here, nor is
pytest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pytest_asyncdb import errors
from pytest_asyncdb._engines import POOL_OPTIONS, build_engine
from pytest_asyncdb._names import Naming
from pytest_asyncdb._types import Server, Sourced
from pytest_asyncdb.abc import Backend, Closing, Database, Driver

if TYPE_CHECKING:
    from sqlalchemy import MetaData
    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from pytest_asyncdb._loops import HostLoop

#: Every database that we make begins with this.
PREFIX = "asyncdb_"

METADATA = Naming(
    "asyncdb_metadata",
    "app.models:Base",
    "a MetaData or a declarative base",
    errors.MetadataError,
)

#: Seconds for the statements that make and drop databases.
PATIENCE = 60.0


@dataclasses.dataclass(frozen=True)
class SchemaPlan:
    """What shapes a database; equal plans share one.

    Args:
        metadata: What ``create_all`` builds.
        migrate: Builds the schema instead, if given.
        seed: Fills the tables, if given.
        empty: Nothing is built at all (``schema=False``).
    """

    metadata: tuple[MetaData, ...] = ()
    migrate: Callable[..., Any] | None = None
    seed: Callable[..., Any] | None = None
    empty: bool = False


class WorkerDatabase(Database):
    """A worker's database on a server: made at first use, dropped when discarded.

    Args:
        prefix: How its name begins: run and worker.
    """

    _numbers = itertools.count(1)

    def __init__(
        self,
        server: Server,
        backend: Backend,
        driver: Driver,
        plan: SchemaPlan,
        engine_options: Mapping[str, Any],
        prefix: str,
        host: HostLoop,
    ) -> None:
        self.server = server
        self.backend = backend
        self.driver = driver
        self.engine_options = engine_options
        self._plan = plan
        self._prefix = prefix
        self._host = host
        self._url: URL | None = None
        self._name = ""
        self._keeper: Closing | None = None
        self._failure: errors.AsyncdbError | None = None

    @property
    def url(self) -> URL:
        if self._failure is not None:
            raise self._failure
        if self._url is None:
            self._name = f"{self._prefix}_{next(self._numbers)}"
            self._maintain(create, self._name)
            url = self.backend.url(self.server, self.driver.name, self._name)
            self._keeper = self.backend.hold(url)
            try:
                self._host.run(self._build(url))
            except errors.AsyncdbError as error:
                self._failure = error  # for the next tests too, without another try
                self.discard()
                raise
            self._url = url
        return self._url

    def close(self) -> None:
        """Let go of the database; the end of the run drops it. May be called twice."""
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None

    def discard(self) -> None:
        self._url = None
        self.close()
        if self._name:
            self._maintain(drop, self._name)
            self._name = ""

    def _maintain(self, work: Callable[..., Any], name: str) -> None:
        """Run *work* on the maintenance database, where the server has one."""

        async def maintain() -> None:
            async with _maintenance(self.server, self.backend, self.driver) as connection:
                await work(connection, self.backend, self.server, name)

        if self.server.maintenance is not None:
            self._host.run(maintain(), PATIENCE)

    async def _build(self, url: URL) -> None:
        from sqlalchemy.pool import NullPool

        options = {k: v for k, v in self.engine_options.items() if k not in POOL_OPTIONS}
        options.pop("isolation_level", None)
        engine = build_engine(url, poolclass=NullPool, **options)
        try:
            if not self._plan.empty:
                await self._build_schema(engine)
            if self._plan.seed is not None:
                await self._fill(engine, self._plan.seed)
        finally:
            await engine.dispose()

    async def _build_schema(self, engine: AsyncEngine) -> None:
        try:
            if self._plan.migrate is not None:
                await _migrate(engine, self._plan.migrate)
            else:
                async with engine.begin() as connection:
                    await self._create_schemas(connection)
                    for metadata in self._plan.metadata:
                        await connection.run_sync(metadata.create_all)
        except Exception as error:
            what = "the migration" if self._plan.migrate else "create_all"
            raise errors.schema_failed(self.backend.label, what, error) from error

    async def _create_schemas(self, connection: AsyncConnection) -> None:
        if not self.backend.capabilities.schemas:
            return
        from sqlalchemy.schema import CreateSchema

        tables = itertools.chain.from_iterable(m.tables.values() for m in self._plan.metadata)
        for schema in sorted({table.schema for table in tables if table.schema}):
            await connection.execute(CreateSchema(schema, if_not_exists=True))

    async def _fill(self, engine: AsyncEngine, seed: Callable[..., Any]) -> None:
        from sqlalchemy import event
        from sqlalchemy.ext.asyncio import AsyncSession

        def refuse(session: object, instance: object) -> None:
            # It would count as stored already, and nothing would be inserted.
            raise errors.seed_reuses_object(self.backend.label, type(instance).__name__)

        try:
            async with AsyncSession(engine, expire_on_commit=False) as session:
                event.listen(session.sync_session, "detached_to_persistent", refuse)
                result = seed(session)
                if inspect.isawaitable(result):
                    await result
                await session.commit()
        except errors.SchemaError:
            raise
        except Exception as error:
            raise errors.seed_failed(self.backend.label, error) from error


async def create(connection: AsyncConnection, backend: Backend, server: Server, name: str) -> None:
    """Make an empty database, over a maintenance connection."""
    for statement in backend.create_database(name):
        await connection.exec_driver_sql(statement)


async def drop(connection: AsyncConnection, backend: Backend, server: Server, name: str) -> None:
    """Drop a database, whoever is connected to it."""
    from sqlalchemy.exc import DBAPIError

    query = backend.end_connections(name)
    if query is not None:
        for statement in (await connection.exec_driver_sql(query)).scalars().all():
            with contextlib.suppress(DBAPIError):  # it has ended meanwhile
                await connection.exec_driver_sql(statement)
    for statement in backend.drop_database(name, server):
        await connection.exec_driver_sql(statement)


async def drop_leftovers(server: Server, backend: Backend, driver: Driver, prefix: str) -> None:
    """Drop every database of a run: those whose names begin with its prefix."""
    async with _maintenance(server, backend, driver) as connection:
        names = (await connection.exec_driver_sql(backend.list_databases())).scalars().all()
        for name in names:
            if name.startswith(prefix):
                await drop(connection, backend, server, name)


@contextlib.asynccontextmanager
async def _maintenance(
    server: Server, backend: Backend, driver: Driver
) -> AsyncIterator[AsyncConnection]:
    """A connection to the maintenance database that commits each statement."""
    from sqlalchemy.pool import NullPool

    engine = build_engine(
        backend.url(server, driver.name, None),
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args=dict(driver.connect_args()),
    )
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


async def _migrate(engine: AsyncEngine, migrate: Callable[..., Any]) -> None:
    """Call the user's function with what its parameters are named after."""
    names = list(inspect.signature(migrate).parameters)
    unknown = [name for name in names if name not in ("connection", "engine", "url")]
    if unknown:
        raise errors.ConfigError(
            f"asyncdb_migrate: a function with the unknown parameter {unknown[0]!r}",
            ["Known: connection, engine, url."],
            ["name its parameters after what it needs"],
        )
    given: dict[str, Any] = {}
    if "url" in names:
        given["url"] = engine.url
    is_async = inspect.iscoroutinefunction(migrate)
    if "engine" in names:
        given["engine"] = engine if is_async else engine.sync_engine
    if "connection" in names:
        async with engine.begin() as connection:
            if is_async:
                await migrate(connection=connection, **given)
            else:
                await connection.run_sync(lambda sync: migrate(connection=sync, **given))
    elif is_async:
        await migrate(**given)
    else:
        # A sync function may run a loop of its own (Alembic's async env.py does).
        import asyncio

        await asyncio.to_thread(migrate, **given)


def load_metadata(written: Sourced[str]) -> tuple[MetaData, ...]:
    """Import the metadata that the ini file names: ``module:attribute``, comma-separated.

    Raises:
        MetadataError: It cannot be imported, or has no tables.
    """
    words = [word for word in written.value.replace(",", " ").split() if word]
    return tuple(_load_one(word, written.source) for word in words)


def as_metadata(value: Any, source: str) -> tuple[MetaData, ...]:
    """What a user's ``asyncdb_metadata`` fixture returned, as MetaData objects.

    Args:
        value: A ``MetaData``, something with a ``.metadata``, ``module:attribute``, a list
            of these, or None for no tables.

    Raises:
        MetadataError: It is none of these.
    """
    from sqlalchemy import MetaData

    if value is None:
        return ()
    if isinstance(value, str):
        return load_metadata(Sourced(value, source))
    if isinstance(value, MetaData):
        return (value,)
    if isinstance(getattr(value, "metadata", None), MetaData):
        return (value.metadata,)
    if isinstance(value, Iterable):
        return tuple(m for one in value for m in as_metadata(one, source))
    raise errors.MetadataError(
        f"asyncdb_metadata is not a MetaData but {type(value).__name__} ({source})",
        [],
        ["give a MetaData, a declarative base, or a list of these"],
    )


def _load_one(word: str, source: str) -> MetaData:
    from sqlalchemy import MetaData

    value = METADATA.load(word, source)
    metadata = value if isinstance(value, MetaData) else getattr(value, "metadata", None)
    if not isinstance(metadata, MetaData):
        raise errors.MetadataError(
            f"asyncdb_metadata={word!r} is not a MetaData but {type(value).__name__} ({source})",
            [],
            ["name a MetaData or a declarative base"],
        )
    if not metadata.tables:
        raise errors.MetadataError(
            f"asyncdb_metadata={word!r} has no tables ({source})",
            [
                f"{word.partition(':')[0]} was imported, "
                "and no model of it is defined in what it imports."
            ],
            ["name a module that imports all models, or several: app.users:Base, app.orders:Base"],
        )
    return metadata
