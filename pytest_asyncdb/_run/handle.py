"""The values of the fixtures ``asyncdb_backend`` and ``asyncdb``."""

# ruff: noqa: A002  # count(max=2) reads as it should

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Any

from sqlalchemy.engine import URL, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker

from pytest_asyncdb import errors
from pytest_asyncdb._databases.migrations import require_alembic
from pytest_asyncdb._databases.plan import as_metadata, by_database, unknown_database
from pytest_asyncdb._databases.seeds import unpickled
from pytest_asyncdb._record import row_changes
from pytest_asyncdb._record.row_changes import TableChanges
from pytest_asyncdb._record.statement_count import Count
from pytest_asyncdb._record.statement_log import Statement
from pytest_asyncdb._run import messages
from pytest_asyncdb._run.open_views import NOT_GIVEN
from pytest_asyncdb._run.run import Run
from pytest_asyncdb.abc import Capabilities, View
from pytest_asyncdb.values import BackendSpec


class AsyncdbBackend:
    """The backend on which a test runs; the value of the fixture ``asyncdb_backend``."""

    def __init__(self, run: Run, spec: BackendSpec | Callable[[], BackendSpec]) -> None:
        self._run = run
        self._spec = spec

    @property
    def spec(self) -> BackendSpec:
        """The backend as it was named. If the test is not parametrised: the backend of the running
        test."""
        return self._spec() if callable(self._spec) else self._spec

    @property
    def name(self) -> str:
        """``sqlite``, ``postgres``, ``mysql``, ``mariadb`` or a third party's word."""
        return self.spec.backend

    @property
    def driver(self) -> str:
        """The driver in use, such as ``asyncpg``."""
        return self._run.driver(self.spec).name

    @property
    def version(self) -> str:
        """The server's version, such as ``17.11``. Waits until the server has started."""
        return self._run.server(self.spec).version

    @property
    def capabilities(self) -> Capabilities:
        """The backend's capabilities."""
        return self._run.backend(self.spec).capabilities

    def __str__(self) -> str:
        return str(self.spec)

    def __repr__(self) -> str:
        return f"<AsyncdbBackend {self.spec}>"


@dataclasses.dataclass(repr=False, eq=False)
class Asyncdb:
    """The handle of a test's database; the value of the fixture ``asyncdb``."""

    _run: Run
    backend: AsyncdbBackend
    _test: str
    _views: Mapping[str, View]
    _metadata: Any
    _session_options: Mapping[str, Any]
    #: The rows of a database that no test has changed; None before they are read.
    _before: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self._name, self._view = next(iter(self._views.items()))

    def database(self, name: str) -> Asyncdb:
        """Return the handle of another database of the test, which ``asyncdb_metadata`` names.

        Raises:
            ConfigError: There is no database of that name.
        """
        if name not in self._views:
            raise unknown_database(name, self._views, "asyncdb.database()")
        found = copy.copy(self)
        found._name, found._view, found._before = name, self._views[name], None
        if (own := self._run.settings.databases.get(name)) is not None:
            found.backend = AsyncdbBackend(self._run, own)
        return found

    @property
    def sessionmaker(self) -> async_sessionmaker[AsyncSession]:
        """An ``async_sessionmaker`` on the database, like ``asyncdb_sessionmaker``."""
        return async_sessionmaker(self._view.engine, **self._session_options)

    @property
    def sync_engine(self) -> Engine:
        """An ``Engine`` for sync code, like ``asyncdb_sync_engine``."""
        return self._view.sync_engine

    @property
    def engine(self) -> AsyncEngine:
        """The engine of the test's database, like ``asyncdb_engine``."""
        return self._view.engine

    @property
    def url(self) -> URL:
        """The URL of the test's database."""
        self._view.watch()
        return self._view.url

    @property
    def seeded(self) -> Any:
        """What ``asyncdb_seed`` has returned; each test gets its own copy.

        It can be ids, dataclasses or mapped objects, which are detached; or a dict or list of
        these. Every process gets the values that belong to the rows of its database. If there are
        several seeds, the value is one dict if each of them returns a dict, else a list.

        Raises:
            SchemaError: It cannot be pickled.
        """
        return unpickled(self._view.seeded)

    @property
    def statements(self) -> list[Statement]:
        """The statements that the test has run so far, in order. If there are more than 10,000: the
        last ones.

        The plugin's own statements, BEGIN, COMMIT and ROLLBACK are left out.
        """
        return self._view.log.statements

    def count(
        self, max: int | None = None, min: int | None = None
    ) -> contextlib.AbstractContextManager[Count]:
        """Count the statements of a block: ``with asyncdb.count(max=2):``.

        The value of ``with`` has ``statements`` and a length, in the block and after it.

        Args:
            max: The largest number of statements that the block may run.
            min: The smallest number.

        Raises:
            AssertionError: At the end of the block, if the number is not within these limits. The
                error shows the statements, equal ones together.
        """
        return Count(self._view.log, max, min)

    @contextlib.asynccontextmanager
    async def connections(
        self, number: int, *, lock_timeout: float = 3.0
    ) -> AsyncIterator[tuple[AsyncConnection, ...]]:
        """Open *number* connections with separate transactions, for tests of concurrency.

        Not available in the ``rollback`` strategy.

        Args:
            lock_timeout: Seconds that each connection waits for a lock, so that a deadlock fails
                instead of hanging. MySQL and MariaDB round to whole seconds.

        Raises:
            IsolationConflict: The strategy is ``rollback``.
        """
        if not self._view.independent:
            raise messages.needs_independent("asyncdb.connections()", self._test)
        statements = self._run.backend(self.backend.spec).lock_timeout(lock_timeout)
        async with contextlib.AsyncExitStack() as stack:
            found = []
            for _ in range(number):
                connection = await stack.enter_async_context(self.engine.connect())
                for statement in statements:
                    await connection.exec_driver_sql(statement)
                await connection.commit()
                found.append(connection)
            yield tuple(found)

    @contextlib.asynccontextmanager
    async def checkpoint(self) -> AsyncIterator[None]:
        """Undo all changes of the block at its end.

        Use it for the rounds of a loop, or for the examples of hypothesis. Transactions that are
        open at the end are rolled back. In ``reset`` and ``copy`` the test must not commit before
        the block.

        Raises:
            IsolationConflict: A transaction is open (``rollback``), or the test has committed
                before (``reset``, ``copy``).
        """
        with self._view.checkpoint():
            yield

    async def changes(self) -> dict[str, TableChanges]:
        """Return the rows that the test has inserted, updated and deleted so far, by table.

        Changes that other transactions have not committed are left out. This reads every table, so
        it is not for millions of rows. Values that the driver cannot read, such as the date
        ``infinity`` with psycopg, are shown as in JSON.

        A table that cannot be read, for example because row security hides rows from the role, is
        in the result as well: asking for its rows raises ``AsyncdbError`` with the reason.
        """
        if self._before is None:
            reading = row_changes.read_untouched(self._view.reference(), row_changes.read_tables)
            self._before = self._run.host.run(reading)
        async with self.engine.connect() as connection:
            after = await connection.run_sync(row_changes.read_tables)
        found = row_changes.differences(self._before, after)
        for table, why in row_changes.left_out(self._before, after).items():
            text = f"asyncdb.changes() could not read the table {table}"
            other = "or connect with a role that may read all its rows"
            error = errors.AsyncdbError(text, [why], ["query the table in the test", other])
            found[table] = row_changes.LeftOut(error)
        return found

    async def schema_differences(self, *, ignore: Collection[str] = ()) -> list[str]:
        """Return the differences between the models and the test's database, one per line.

        Alembic compares ``asyncdb_metadata`` with the schema that the migrations have built:
        tables, columns, types, NULL, server defaults, indexes and constraints, if the backend
        reports them. Alembic's own table ``alembic_version`` is left out.

        Args:
            ignore: Names of tables to leave out.

        Raises:
            ConfigError: Alembic is not installed.
            MetadataError: There is no ``asyncdb_metadata``.
        """
        require_alembic("asyncdb.schema_differences()")
        from pytest_asyncdb._databases.schema_diff import differences

        given = by_database(self._metadata, self._views, "asyncdb_metadata")[self._name]
        given = None if given is NOT_GIVEN else given
        metadata = as_metadata(given, "the fixture asyncdb_metadata")
        if not metadata:
            raise errors.MetadataError(
                "asyncdb.schema_differences() compares the models with the database, "
                "and asyncdb_metadata is not set",
                remedies=["add to the ini file: asyncdb_metadata = app.models:Base"],
            )
        async with self.engine.connect() as connection:
            return await connection.run_sync(differences, metadata, ignore)
