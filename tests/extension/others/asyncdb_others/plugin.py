"""Registers the backends, a server provider, and the dialect for those who have not installed the package."""

from typing import Any

from sqlalchemy.dialects import registry as dialects


def pytest_asyncdb_register(registry: Any) -> None:
    dialects.register("pgschema.asyncpg", "asyncdb_others.dialect", "PgSchemaDialect")
    registry.add_backend("pgschema", "asyncdb_others.pgschema:PgSchema")
    registry.add_backend("files", "asyncdb_others.files:Files")
    registry.add_provider("lent", "asyncdb_others.lent:LentProvider")
