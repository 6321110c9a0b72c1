"""The databases of failed tests that stay after the run (``--asyncdb-keep``).

Each has a record in the user's cache. Because of the record, the end of the run does not stop the
server, and ``reap`` finds the database. If the client program needs a password, a second file holds
it. Only this user can read these files. They are removed together with the database.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

from pytest_asyncdb._system.cache_dir import private_folder, write_private
from pytest_asyncdb._system.process_identity import Owner
from pytest_asyncdb.abc import Backend, DatabaseRef, Server

#: The largest number of databases that one process of a run keeps.
MOST = 10


@dataclasses.dataclass(frozen=True)
class Record:
    """A database that was kept.

    Args:
        name: The database's name.
        test: The node id of its test.
        server: The server that holds it.
        driver: The name of the driver that the test used.
        owner: The process that kept it.
    """

    name: str
    test: str
    server: Server
    driver: str
    owner: Owner

    def forget(self) -> None:
        """Remove the files of this database from the cache."""
        for path in kept_folder().glob(f"{self.name}.*"):
            path.unlink(missing_ok=True)


def kept_folder() -> Path:
    """Return the folder of the records, and of kept databases that are files.

    Raises:
        OSError: It cannot be created.
        RuntimeError: The user has no home folder.
    """
    return private_folder("kept")


def record(
    database: DatabaseRef, test: str, run: str, server: Server, backend: Backend, driver: str
) -> str:
    """Write the record of a kept database.

    Returns:
        The command that opens the database.

    Raises:
        OSError: The record cannot be written.
    """
    path = kept_folder() / database.name
    file = None if server.maintenance is not None else database.url.database
    command, secret = backend.client_command(server, file or f"{path}.client", database.name)
    if secret:
        write_private(Path(f"{path}.client"), secret)
    owner = Owner.current(run, "a kept database")
    values = dataclasses.asdict(Record(database.name, test, server, driver, owner))
    write_private(Path(f"{path}.json"), json.dumps(values))
    if server.kept is not None:
        Path(server.kept, "keep").touch()  # the server must stay longer, too
    return shlex.join(command)


def records() -> Iterator[Record]:
    """Yield the records of all databases that this user has kept."""
    with contextlib.suppress(OSError, RuntimeError):
        for path in sorted(kept_folder().glob("*.json")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                values = json.loads(path.read_text(encoding="utf-8"))
                values["server"] = Server.from_message(values["server"])
                values["owner"] = Owner.from_json(json.dumps(values["owner"]))
                yield Record(**values)


def keeps(run: str, server: Server) -> bool:
    """Return whether *run* has kept a database on *server*."""
    return any(
        (one.owner.run, one.server.host, one.server.port) == (run, server.host, server.port)
        for one in records()
    )
