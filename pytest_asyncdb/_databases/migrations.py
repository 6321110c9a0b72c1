"""Builds the schema with Alembic (the ini option ``asyncdb_migrations``).

An ``env.py`` runs unchanged, sync or async, on async drivers. It runs in a thread without a running
loop, so that it may call ``asyncio.run()``. It runs in a greenlet, so that a sync ``Engine`` on an
async driver may await. While it runs, no engine can connect to another database, and the logging
configuration of pytest and the application stays in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.util
import io
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_asyncdb import errors
from pytest_asyncdb._databases import messages
from pytest_asyncdb._databases.fingerprint import files_in
from pytest_asyncdb._engines.build_engine import OURS
from pytest_asyncdb._engines.host_loop import HostLoop
from pytest_asyncdb._engines.sqlalchemy_internals import watch_checkouts

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy.engine import URL, Engine


@dataclasses.dataclass(frozen=True)
class AlembicMigration:
    """A function for ``asyncdb_migrate`` that upgrades the database to all heads.

    Args:
        path: The absolute path of an ``alembic.ini`` or a ``pyproject.toml``.
        source: The option that names it, for errors.
    """

    path: Path
    source: str

    def check(self) -> None:
        """Read the configuration and every revision.

        Raises:
            ConfigError: Alembic is not installed or cannot read them, or there is no revision.
        """
        require_alembic(self.source)
        from alembic.script import ScriptDirectory

        name = self.path.name
        with _restored():
            try:
                script = ScriptDirectory.from_config(self._config())
                heads = script.get_heads()
            except Exception as error:
                place = _place(error, self.path.parent)
                said = f"{type(error).__name__}: {str(error).strip()}"
                raise errors.ConfigError(
                    f"Alembic cannot read the migrations of {name!r} ({self.source})",
                    [said, *([f"at {place}"] if place else [])],
                    [f"make this work first: alembic -c {name} history"],
                ) from error
        if not heads:
            raise errors.ConfigError(
                f"the migrations of {name!r} have no revision ({self.source})",
                [f"Looked in {script.dir}."],
                [
                    f'write one: alembic -c {name} revision --autogenerate -m "first"',
                    "leave asyncdb_migrations out: create_all builds the tables",
                ],
            )

    def input_files(self) -> Iterator[Path]:
        """Yield the files that decide what the migration does: the configuration and the
        scripts."""
        from alembic.script import ScriptDirectory

        with _restored():
            config = self._config()
            folders = [ScriptDirectory.from_config(config).dir]
            folders += config.get_version_locations_list() or []
        paths = (self.path.parent / folder for folder in folders)
        yield from files_in([self.path, *(path for path in paths if path.is_dir())])

    def __call__(self, url: URL, engine: Engine) -> None:
        """Migrate. Must be called in a thread without a running event loop.

        Args:
            engine: A sync engine on an async driver, without a pool.
        """
        host = HostLoop()
        try:
            with _restored(), contextlib.closing(_Refusal(url, self.source)) as refusal:
                try:
                    host.call(self._upgrade, url, engine, refusal, host.loop, as_running=False)
                except Exception as error:
                    refusal.raise_first(error)
                    if place := _place(error, self.path.parent):
                        error.add_note(f"at {place}")
                    raise
                refusal.raise_first(None)
        finally:
            asyncio.set_event_loop(None)
            host.close()

    def _upgrade(
        self, url: URL, engine: Engine, refusal: _Refusal, loop: asyncio.AbstractEventLoop
    ) -> None:
        from alembic import command

        config = self._config()
        written = url.render_as_string(hide_password=False)
        config.set_main_option("sqlalchemy.url", _escaped(written))
        # SQLAlchemy's adapters ask for the thread's loop, and asyncio.run() leaves none.
        asyncio.set_event_loop(loop)
        with engine.connect() as connection:
            # For an env.py that expects an engine here, as pytest-alembic passes one.
            connection.connect = lambda: contextlib.nullcontext(connection)  # type: ignore[attr-defined]
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "heads")
                if connection.in_transaction():
                    connection.commit()
            finally:
                asyncio.set_event_loop(loop)
                refusal.dispose()

    def _config(self) -> Config:
        """Return the configuration that the ``alembic`` program reads, relative to the file's
        folder."""
        from alembic.config import Config

        folder = self.path.parent
        is_toml = self.path.suffix == ".toml"
        ini = folder / "alembic.ini" if is_toml else self.path
        toml = self.path if is_toml else folder / "pyproject.toml"
        config = Config(
            ini if ini.is_file() else None,
            toml_file=toml if toml.is_file() else None,
            stdout=io.StringIO(),
        )
        location = config.get_alembic_option("script_location")
        # Alembic searches below the current folder, but pytest may be started in another one.
        if location and (folder / location).is_dir():
            config.set_main_option("script_location", _escaped(str(folder / location)))
        versions = config.get_version_locations_list() or []
        found = [str(folder / p) if (folder / p).is_dir() else p for p in versions]
        config.get_version_locations_list = lambda: found or None  # type: ignore[method-assign]
        sys.path[:0] = [str(folder / path) for path in config.get_prepend_sys_paths_list() or ()]
        return config


class _Refusal:
    """Refuses every connection to another database until it is closed, of sync and async engines.

    Threads that existed before the migration are not affected.
    """

    def __init__(self, url: URL, source: str) -> None:
        self._url = url
        self._source = source
        self._refused: list[errors.ConfigError] = []
        self._used: dict[Engine, None] = {}
        self._others = set(threading.enumerate()) - {threading.current_thread()}
        self.close = watch_checkouts(self._connecting)

    def raise_first(self, cause: BaseException | None) -> None:
        """Raise the first refusal, because ``env.py`` may have caught it."""
        if self._refused:
            raise self._refused[0] from cause

    def dispose(self) -> None:
        """Close the pooled connections of sync engines."""
        for engine in self._used:
            engine.dispose()

    def _connecting(self, engine: Engine) -> None:
        # The plugin's engines may connect in new threads, when another server of the run starts.
        if threading.current_thread() in self._others or OURS in engine.get_execution_options():
            return
        url, own = engine.url, self._url
        if (url.host, url.port, url.database) != (own.host, own.port, own.database):
            error = messages.foreign_database(url, own, self._source)
            self._refused.append(error)
            raise error
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._used[engine] = None


def require_alembic(source: str) -> None:
    """Check that Alembic is installed, which is an extra.

    Raises:
        ConfigError: It is not installed.
    """
    if importlib.util.find_spec("alembic") is None:
        remedy = 'pip install "pytest-asyncdb[alembic]"'
        raise errors.ConfigError(f"the package alembic is not installed ({source})", [], [remedy])


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """Undo what Alembic does to the process.

    ``prepend_sys_path`` must not affect tests. ``fileConfig``, which Alembic's standard ``env.py``
    calls, would remove pytest's handlers and disable loggers, so it does nothing here.
    """
    import logging.config

    path, file_config = list(sys.path), logging.config.fileConfig
    logging.config.fileConfig = lambda *args, **kwargs: None
    try:
        yield
    finally:
        sys.path[:], logging.config.fileConfig = path, file_config


def _escaped(value: str) -> str:
    return value.replace("%", "%%")


def _place(error: BaseException, folder: Path) -> str | None:
    """Return the innermost line of ``env.py`` or a revision in the traceback of *error*, or
    None."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(folder) and "site-packages" not in path.parts:
            return f"{path.relative_to(folder)}:{frame.lineno}"
    return None
