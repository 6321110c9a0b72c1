"""pytest-asyncdb: database tests of async SQLAlchemy code, on every backend, undone."""

from __future__ import annotations

from pytest_asyncdb._engines import build_engine
from pytest_asyncdb._handle import Asyncdb, AsyncdbBackend
from pytest_asyncdb._types import BackendSpec, Capabilities, Server
from pytest_asyncdb.errors import (
    AsyncdbError,
    ConfigError,
    DriverMissing,
    IsolationBreach,
    IsolationConflict,
    LoopError,
    MarkerError,
    MetadataError,
    ProviderUnavailable,
    SchemaError,
    ServerStartError,
    ServerUnavailable,
    StatementBlocked,
)

__all__ = [
    "Asyncdb",
    "AsyncdbBackend",
    "AsyncdbError",
    "BackendSpec",
    "Capabilities",
    "ConfigError",
    "DriverMissing",
    "IsolationBreach",
    "IsolationConflict",
    "LoopError",
    "MarkerError",
    "MetadataError",
    "ProviderUnavailable",
    "SchemaError",
    "Server",
    "ServerStartError",
    "ServerUnavailable",
    "StatementBlocked",
    "build_engine",
]
