"""Databases that are files: SQLite's, where a test has several connections.

In memory a transaction that writes locks readers out; in a file they see what was there before it.
The folder has a record of its process, so a later run removes it if this one is killed.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from pytest_asyncdb._system.process_identity import Owner
from pytest_asyncdb.servers.server_folders import make_folder, remove_dead_folders


class DatabaseFiles:
    """The files of one process and backend; the folder is made for the first one.

    Args:
        run: For the record, whose they are.
        suffix: How their names end.
    """

    def __init__(self, run: str, suffix: str) -> None:
        self._run = run
        self._suffix = suffix
        self._folder: Path | None = None

    def path(self, name: str) -> str:
        """Where the database called *name* is, or will be."""
        if self._folder is None:
            remove_dead_folders()  # else a run without a server would look for none
            self._folder = make_folder(Owner.current(self._run, "databases in files"))
        return str(self._folder / f"{name}{self._suffix}")

    def remove(self, name: str) -> None:
        """Remove a database if it is a file, with the files that SQLite puts beside it."""
        if self._folder is not None:
            for file in self._folder.glob(f"{name}{self._suffix}*"):
                with contextlib.suppress(OSError):  # on Windows, if a connection is still open
                    file.unlink()

    def close(self) -> None:
        """Remove them all. May be called twice."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
