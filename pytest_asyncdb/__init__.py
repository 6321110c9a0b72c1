"""pytest-asyncdb: test async SQLAlchemy code on every backend, with a clean database each time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from pytest_asyncdb._engines.build_engine import build_engine
    from pytest_asyncdb._run.handle import Asyncdb, AsyncdbBackend
    from pytest_asyncdb.abc import Capabilities, Server
    from pytest_asyncdb.values import BackendSpec

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

#: Modules of names that are imported on use, because every pytest run imports this package.
_LAZY = {
    "Asyncdb": "_run.handle",
    "AsyncdbBackend": "_run.handle",
    "BackendSpec": "abc",
    "Capabilities": "abc",
    "Server": "abc",
    "build_engine": "_engines.build_engine",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
