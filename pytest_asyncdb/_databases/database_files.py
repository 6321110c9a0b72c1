"""SQLite databases in files, for tests with several connections.

In memory, a transaction that writes locks readers out. In a file, readers see what was there before
it. The folder has a record of its process, so that a later run removes it if this one is killed.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from pytest_asyncdb._system.process_identity import Owner
from pytest_asyncdb.servers.server_folders import make_folder, remove_dead_folders


class DatabaseFiles:
    """The database files of one process and backend. The folder is created for the first file.

    Args:
        run: Identifies the run in the record.
        suffix: The suffix of the files' names.
    """

    def __init__(self, run: str, suffix: str) -> None:
        self._run = run
        self._suffix = suffix
        self._folder: Path | None = None

    def path(self, name: str) -> str:
        """Return the path of the database *name*. The file need not exist."""
        if self._folder is None:
            remove_dead_folders()  # else a run without a server would look for none
            self._folder = make_folder(Owner.current(self._run, "databases in files"))
        return str(self._folder / f"{name}{self._suffix}")

    def remove(self, name: str) -> None:
        """Remove a database if it is a file, and the files that SQLite puts beside it."""
        if self._folder is not None:
            for file in self._folder.glob(f"{name}{self._suffix}*"):
                with contextlib.suppress(OSError):  # on Windows, if a connection is still open
                    file.unlink()

    def close(self) -> None:
        """Remove all files. May be called twice."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
