"""The user's cache folder, which keeps what outlives a run.

Nothing in it is needed; all of it may be removed at any time. Its records say which processes and
servers belong to the plugin, and contain passwords. So the plugin trusts a folder only if it
belongs to this user alone (:func:`private_folder`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from pytest_asyncdb.errors import AsyncdbError


def cache_folder() -> Path:
    """Return the plugin's folder. It need not exist.

    ``XDG_CACHE_HOME`` applies on every system.

    Raises:
        RuntimeError: The user has no home folder.
    """
    if not (base := os.environ.get("XDG_CACHE_HOME")):
        import platformdirs  # 3 ms

        base = platformdirs.user_cache_dir()
    return (Path(base).expanduser() / "pytest-asyncdb").absolute()


def private_folder(path: str | Path) -> Path:
    """Create a folder that only this user may enter, or check the one that is there.

    The parents up to the cache folder are created and checked in the same way.

    Args:
        path: A path within the cache folder, absolute or relative to it.

    Returns:
        The absolute path.

    Raises:
        AsyncdbError: The folder, or one between it and the cache folder, is a symbolic link,
            belongs to another user, or others may write to it.
        OSError: It cannot be created.
        RuntimeError: The user has no home folder.
    """
    base = cache_folder()
    base.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = base
    _check(folder)
    for part in (base / path).relative_to(base).parts:
        folder /= part
        _check(folder)
    return folder


def _check(folder: Path) -> None:
    """Create the folder with mode 0700, or check the one that exists."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        problem = "it is a symbolic link" if folder.is_symlink() else "it is a file"
    elif os.name != "posix":  # no owner and no mode to check
        return
    elif status.st_uid != os.geteuid():
        problem = f"it belongs to user {status.st_uid}; this process runs as user {os.geteuid()}"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        problem = f"other users may write to it (mode {stat.S_IMODE(status.st_mode):04o})"
    else:
        if stat.S_IMODE(status.st_mode) != 0o700:
            folder.chmod(0o700)  # others could only read, so the files are this user's
        return
    raise AsyncdbError(
        f"the cache folder {folder} is not private",
        [problem, "Its files say which processes may be ended, so nothing in it was read."],
        [f"remove it: rm -r {folder}", "set XDG_CACHE_HOME to a folder of this user"],
        "Seen:",
    )


def key_of(words: Sequence[str]) -> str:
    """Return a name that identifies *words*: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]


def write_private(path: Path, text: str) -> None:
    """Write a new file that only this user can read.

    Raises:
        OSError: The file exists, or cannot be written.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
