"""Databases of failed tests that stay after the run (``--asyncdb-keep``), and their records.

Each has a file in the user's cache, by which the end of the run lets its server live, and by which
``reap`` finds it; where a client needs a password, another one that the client reads. Both are for
this user only, and go with the database.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_asyncdb._system.cache_dir import private_folder, write_private
from pytest_asyncdb._system.process_identity import Owner
from pytest_asyncdb.abc import DatabaseRef, Server

if TYPE_CHECKING:
    from pytest_asyncdb.abc import Backend

#: How their names begin; no run's databases are called so.
PREFIX = "asyncdb_kept_"
#: So many of each process of a run are kept.
MOST = 10


@dataclasses.dataclass(frozen=True)
class Record:
    """A database that was kept.

    Args:
        name: The database's.
        test: Its test's node id.
        server: Where it is.
        driver: The name of the driver that has reached it.
        file: The database, where it is a file.
        owner: The process that has kept it.
    """

    name: str
    test: str
    server: Server
    driver: str
    file: str | None
    owner: Owner

    @property
    def running(self) -> bool:
        """Has the run that made it not ended yet?"""
        return self.owner.alive()

    def forget(self) -> None:
        """Remove what is left of it in the cache."""
        for path in kept_folder().glob(f"{self.name}.*"):
            path.unlink(missing_ok=True)


def kept_name(prefix: str, number: int) -> str:
    """The name of a database that is kept.

    Args:
        prefix: How the names of the process's databases begin.
    """
    return f"{PREFIX}{prefix.removeprefix('asyncdb_')}_{number}"


def kept_folder() -> Path:
    """Where records are, and databases that are files.

    Raises:
        OSError: It cannot be made.
        RuntimeError: There is no home.
    """
    return private_folder("kept")


def record(
    copied: DatabaseRef, test: str, run: str, server: Server, backend: Backend, driver: str
) -> str:
    """Write down that a database was kept.

    Returns:
        The command that opens it.

    Raises:
        OSError: Its file cannot be written.
    """
    place = kept_folder() / copied.name
    file = None if server.maintenance is not None else copied.url.database
    command, text = backend.client(server, file or f"{place}.client", copied.name)
    if text:
        write_private(Path(f"{place}.client"), text)
    owner = Owner.current(run, "a database that was kept")
    values = dataclasses.asdict(Record(copied.name, test, server, driver, file, owner))
    write_private(Path(f"{place}.json"), json.dumps(values))
    if server.kept is not None:
        keep_server(server.kept)
    return shlex.join(command)


def records() -> Iterator[Record]:
    """Everything that this user has kept."""
    with contextlib.suppress(OSError, RuntimeError):
        for path in sorted(kept_folder().glob("*.json")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                yield _read(json.loads(path.read_text(encoding="utf-8")))


def keeps(run: str, server: Server) -> bool:
    """Has *run* kept a database on *server*?"""
    return any(
        (one.owner.run, one.server.host, one.server.port) == (run, server.host, server.port)
        for one in records()
    )


def keep_server(folder: str) -> None:
    """Let a server that stays do so for longer.

    Args:
        folder: The server's.
    """
    Path(folder, "keep").touch()


def _read(values: dict[str, Any]) -> Record:
    server = Server.from_message(values.pop("server"))
    owner = Owner.from_json(json.dumps(values.pop("owner")))
    return Record(**values, server=server, owner=owner)
