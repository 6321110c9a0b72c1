"""SQLite databases in files of the temporary folder: a backend that runs in this process."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy.engine import URL

from pytest_asyncdb.abc import Backend, Capabilities, Closing, DatabaseRef, Restorer, Server, Sql
from pytest_asyncdb.backends.sqlite import Aiosqlite, SQLiteRestorer


class File:
    """A database; its file is removed when this is closed."""

    def __init__(self, path: Path, source: Path | None) -> None:
        self._path = path
        if source is not None:
            shutil.copy(source, path)
        self.connection = sqlite3.connect(path, check_same_thread=False)

    def close(self) -> None:
        self.connection.close()
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # there are others
            self._path.parent.rmdir()


class Files(Backend):
    name = "files"
    label = "SQLite files"
    dialect = "sqlite"
    schemes = ("files",)
    drivers = (Aiosqlite,)
    in_process = True
    restores_whole = True
    begin_at_write = "BEGIN IMMEDIATE"
    lock_timeout_codes = frozenset({5, 6})
    capabilities = Capabilities(
        transactional_ddl=True,
        several_connections=False,
        sequences_roll_back=True,
        schemas=False,
    )

    def __init__(self) -> None:
        self._folder = Path(tempfile.gettempdir(), f"asyncdb_files_{id(self):x}")

    def url(self, server: Server, driver: str, database: str | None) -> URL:
        path = str(self._folder / database) if database else None
        return URL.create(f"sqlite+{driver}", database=path)

    def hold(self, url: URL, source: URL | None = None) -> Closing | None:
        self._folder.mkdir(exist_ok=True)
        return File(
            Path(url.database or ""), None if source is None else Path(source.database or "")
        )

    def restorer(self, sql: Sql, database: DatabaseRef, template: DatabaseRef) -> Restorer:
        return SQLiteRestorer(database.keeper.connection, template.keeper.connection)

    def save(self, database: DatabaseRef, path: str) -> None:
        shutil.copy(database.url.database or "", path)

    def client_command(self, server: Server, file: str, database: str) -> tuple[Sequence[str], str]:
        return ("sqlite3", file), ""

    def create_database(self, name: str) -> Sequence[str]:
        return ()

    def drop_database(self, name: str, server: Server) -> Sequence[str]:
        return ()

    def lock_timeout(self, seconds: float) -> Sequence[str]:
        return (f"PRAGMA busy_timeout = {round(seconds * 1000)}",)

    def list_databases(self) -> str:
        return "SELECT name FROM pragma_database_list WHERE false"

    def library_version(self) -> str:
        return sqlite3.sqlite_version

    def version_query(self) -> str:
        return "SELECT sqlite_version()"
