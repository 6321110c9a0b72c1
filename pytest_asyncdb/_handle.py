"""The public objects that fixtures give besides SQLAlchemy's own: backend and handle."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from pytest_asyncdb import errors

if TYPE_CHECKING:
    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncEngine

    from pytest_asyncdb._run import Run
    from pytest_asyncdb._types import BackendSpec, Capabilities
    from pytest_asyncdb.abc import View


class AsyncdbBackend:
    """Which backend a test runs on; the value of the fixture ``asyncdb_backend``."""

    def __init__(self, run: Run, spec: BackendSpec) -> None:
        self._run = run
        self.spec = spec

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
        """The version that the server reports, such as ``17.11``; waits for the server."""
        return self._run.server(self.spec).version

    @property
    def capabilities(self) -> Capabilities:
        """What the backend can do."""
        return self._run.backend(self.spec).capabilities

    def __str__(self) -> str:
        return str(self.spec)

    def __repr__(self) -> str:
        return f"<AsyncdbBackend {self.spec}>"


class Asyncdb:
    """The handle of a test's database; the value of the fixture ``asyncdb``."""

    def __init__(self, backend: AsyncdbBackend, view: View, metadata: Any = None) -> None:
        self.backend = backend
        self._view = view
        self._metadata = metadata

    @property
    def engine(self) -> AsyncEngine:
        """The engine on the test's database."""
        return self._view.engine

    @property
    def url(self) -> URL:
        """The URL of the test's database."""
        return self._view.url

    async def schema_differences(self, *, ignore: Collection[str] = ()) -> list[str]:
        """Where the models and the test's database differ, each a line; none: they agree.

        Alembic compares ``asyncdb_metadata`` with what the migrations have built: tables,
        columns, types, NULL, server defaults, indexes and constraints. Its own table
        ``alembic_version`` is left out. What a backend cannot say is not compared.

        Args:
            ignore: Names of tables to leave out.

        Raises:
            ConfigError: Alembic is not installed.
            MetadataError: There is no ``asyncdb_metadata``.
        """
        from pytest_asyncdb._differences import differences
        from pytest_asyncdb._migrations import require_alembic
        from pytest_asyncdb._provision import as_metadata

        require_alembic("asyncdb.schema_differences()")
        metadata = as_metadata(self._metadata, "the fixture asyncdb_metadata")
        if not metadata:
            raise errors.nothing_to_compare()
        async with self.engine.connect() as connection:
            return await connection.run_sync(differences, metadata, ignore)
