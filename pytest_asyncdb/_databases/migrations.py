"""Alembic builds the schema: what the ini option ``asyncdb_migrations`` stands for.

An ``env.py`` runs as it is, sync or async, on async drivers. It runs in a thread without a
running loop, so that it may call ``asyncio.run()``, and in a greenlet in which a sync
``Engine`` on an async driver may await, on a private loop. While it runs, no engine
reaches any other database, and logging stays as pytest and the application have it.
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
from pytest_asyncdb._engines.build_engine import OURS
from pytest_asyncdb._engines.host_loop import HostLoop

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy.engine import URL, Engine
    from sqlalchemy.pool import PoolProxiedConnection


@dataclasses.dataclass(frozen=True)
class AlembicMigration:
    """A function for ``asyncdb_migrate`` that upgrades to all heads.

    Args:
        path: The absolute path of an ``alembic.ini`` or a ``pyproject.toml``.
        source: Where it was named, for errors.
    """

    path: Path
    source: str

    def check(self) -> None:
        """Read the configuration and every revision.

        Raises:
            ConfigError: Alembic is not installed, cannot read them, or there are none.
        """
        require_alembic(self.source)
        from alembic.script import ScriptDirectory

        with _kept_path():
            try:
                script = ScriptDirectory.from_config(self._config())
                heads = script.get_heads()
            except Exception as error:
                place = _place(error, self.path.parent)
                raise messages.alembic_unreadable(
                    self.path.name, self.source, error, place
                ) from error
        if not heads:
            raise messages.no_revisions(self.path.name, self.source, script.dir)

    def __call__(self, url: URL, engine: Engine) -> None:
        """Migrate; to be called where no event loop runs.

        Args:
            engine: A sync engine on an async driver, without a pool.
        """
        host = HostLoop()
        try:
            with _kept_path(), _kept_logging(), _Watch(url, self.source) as watch:
                try:
                    host.call(self._upgrade, url, engine, watch, host.loop, as_running=False)
                except Exception as error:
                    watch.raise_refused(error)
                    if place := _place(error, self.path.parent):
                        error.add_note(f"at {place}")
                    raise
                watch.raise_refused(None)
        finally:
            asyncio.set_event_loop(None)
            host.close()

    def _upgrade(
        self, url: URL, engine: Engine, watch: _Watch, loop: asyncio.AbstractEventLoop
    ) -> None:
        from alembic import command

        config = self._config()
        written = url.render_as_string(hide_password=False)
        config.set_main_option("sqlalchemy.url", _escaped(written))
        # SQLAlchemy's adapters ask for the thread's loop, and asyncio.run() leaves none.
        asyncio.set_event_loop(loop)
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "heads")
                if connection.in_transaction():
                    connection.commit()
            finally:
                asyncio.set_event_loop(loop)
                watch.dispose()

    def _config(self) -> Config:
        """What the ``alembic`` program would read, relative to the file's own folder."""
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
        # Alembic itself looks below the current folder, and pytest may be started elsewhere.
        if location and (folder / location).is_dir():
            config.set_main_option("script_location", _escaped(str(folder / location)))
        sys.path[:0] = [str(folder / path) for path in config.get_prepend_sys_paths_list() or ()]
        return config


class _Watch:
    """While a migration runs: every engine that is about to connect elsewhere is refused.

    Each checkout of any engine, sync or async, passes ``Engine.raw_connection``. Threads
    that were there before are other people's business.
    """

    def __init__(self, url: URL, source: str) -> None:
        self._url = url
        self._source = source
        self._refused: list[errors.ConfigError] = []
        self._used: dict[Engine, None] = {}

    def __enter__(self) -> _Watch:
        from sqlalchemy.engine import Engine

        self._others = set(threading.enumerate()) - {threading.current_thread()}
        original = self._original = Engine.raw_connection

        def raw_connection(engine: Engine) -> PoolProxiedConnection:
            # Ours in new threads: another server of the run may be starting.
            own = engine.get_execution_options().get(OURS)
            if threading.current_thread() not in self._others and not own:
                self._connecting(engine)
            return original(engine)

        Engine.raw_connection = raw_connection  # type: ignore[method-assign,assignment]
        return self

    def __exit__(self, *_: object) -> None:
        from sqlalchemy.engine import Engine

        Engine.raw_connection = self._original  # type: ignore[method-assign]

    def raise_refused(self, cause: BaseException | None) -> None:
        """Raise the first refusal, which ``env.py`` may have swallowed."""
        if self._refused:
            raise self._refused[0] from cause

    def dispose(self) -> None:
        """Close what sync engines have kept in their pools."""
        for engine in self._used:
            engine.dispose()

    def _connecting(self, engine: Engine) -> None:
        one, ours = engine.url, self._url
        if (one.host, one.port, one.database) != (ours.host, ours.port, ours.database):
            there, here = (url.render_as_string(hide_password=True) for url in (one, ours))
            error = messages.foreign_database(there, here, self._source)
            self._refused.append(error)
            raise error
        if asyncio._get_running_loop() is None:
            self._used[engine] = None


def require_alembic(source: str) -> None:
    """Alembic is an extra.

    Raises:
        ConfigError: It is not installed.
    """
    if importlib.util.find_spec("alembic") is None:
        raise messages.alembic_missing(source)


@contextlib.contextmanager
def _kept_path() -> Iterator[None]:
    """``prepend_sys_path`` holds while Alembic works: no test should depend on it."""
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before


@contextlib.contextmanager
def _kept_logging() -> Iterator[None]:
    """The templates' ``fileConfig`` would close pytest's handlers and disable loggers."""
    import logging.config

    original = logging.config.fileConfig
    logging.config.fileConfig = lambda *args, **kwargs: None
    try:
        yield
    finally:
        logging.config.fileConfig = original


def _escaped(value: str) -> str:
    return value.replace("%", "%%")


def _place(error: BaseException, folder: Path) -> str | None:
    """The innermost line of ``env.py`` or a revision on the way to *error*."""
    places = traceback.extract_tb(error.__traceback__)
    for frame in reversed(places):
        path = Path(frame.filename)
        if path.is_relative_to(folder) and "site-packages" not in path.parts:
            return f"{path.relative_to(folder)}:{frame.lineno}"
    return None
