"""The folders of servers that run programs of this machine: where they are, and how to remove them.

A folder counts only if it has a record of its owner (``_system/process_identity.py``) and belongs
to this user. A folder or record is ignored if it is a symbolic link, or if another user could have
written it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_asyncdb._system.process_identity import FILE, Owner

if TYPE_CHECKING:
    import psutil

#: The prefix of a folder's name.
PREFIX = "pytest-asyncdb-"
#: A file system in memory that every Linux has.
MEMORY = "/dev/shm"  # noqa: S108  # the folder in it has a random name and mode 0700
#: Free bytes that the file system in memory must have for the data to go there.
_ENOUGH = 512 * 1024 * 1024
#: Seconds within which killed processes must end.
_END = 10.0
_FOLDER = re.compile(rf"{PREFIX}[0-9a-f]{{12}}")


def data_place() -> tuple[str, str]:
    """Return where a new server's folder goes, and that in words."""
    is_there = hasattr(os, "statvfs") and os.path.ismount(MEMORY)
    writable = is_there and os.access(MEMORY, os.W_OK | os.X_OK)
    if writable and shutil.disk_usage(MEMORY).free >= _ENOUGH:
        return MEMORY, "data in memory"
    return tempfile.gettempdir(), "data on disk"


def make_folder(owner: Owner) -> Path:
    """Create a folder for the data of *owner*, who has to remove it."""
    folder = Path(data_place()[0], f"{PREFIX}{secrets.token_hex(6)}")
    folder.mkdir(mode=0o700)
    (folder / FILE).write_text(owner.to_json(), encoding="utf-8")
    return folder


def find() -> Iterator[tuple[Path, Owner]]:
    """Yield the folders of this user's servers, in memory and in the folder for temporary files.

    For root, this includes servers that root has started as another user.
    """
    for place in {MEMORY, tempfile.gettempdir()} if os.name == "posix" else ():
        with contextlib.suppress(OSError):
            for folder in sorted(Path(place).resolve(strict=True).iterdir()):
                if _FOLDER.fullmatch(folder.name):
                    with contextlib.suppress(OSError, ValueError):
                        yield folder, _owner_in(folder)


def remove_dead_folders() -> None:
    """Remove the folders that killed runs have left; the next run tries again what fails."""
    with contextlib.suppress(Exception):
        for folder, owner in find():
            if not owner.holds(folder.name):
                remove_folder(folder)


def _owner_in(folder: Path) -> Owner:
    """Read the record in a folder.

    Raises:
        OSError: It is not a folder of this user with a record that this user has written.
        ValueError: The record cannot be read.
    """
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        uid = os.fstat(opened).st_uid
        record = os.open(FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=opened)
    finally:
        os.close(opened)
    with os.fdopen(record, encoding="utf-8") as file:
        me, status = os.geteuid(), os.fstat(record)
        if me not in (0, uid) or status.st_uid != me or not stat.S_ISREG(status.st_mode):
            raise PermissionError(f"{folder} belongs to another user")
        return Owner.from_json(file.read())


def remove_folder(folder: Path) -> bool:
    """Kill the processes in a folder and remove it. Blocks.

    Processes of other users than the folder's are not touched.

    Returns:
        False if the folder is still there.
    """
    import psutil

    until = time.monotonic() + _END
    while os.path.lexists(folder):
        if time.monotonic() > until:
            return False
        processes = list(_processes_in(folder))
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()  # not if another process has got its pid meanwhile
        if not processes:
            shutil.rmtree(folder, ignore_errors=True)  # follows no links
        time.sleep(0.01)
    return True


def _processes_in(folder: Path) -> Iterator[psutil.Process]:
    """Yield the processes that work in the folder and belong to the folder's user.

    Servers have no terminal. A shell in which a person looks at the folder has one.
    """
    import psutil

    with contextlib.suppress(FileNotFoundError):
        uid = folder.lstat().st_uid
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                inside = Path(process.cwd()).is_relative_to(folder)
                if inside and process.uids().real == uid and process.terminal() is None:
                    yield process
