"""The folder of this user's cache that runs keep things in which outlive them."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """It need not exist; nothing in it is needed, all of it may be removed at any time.

    Raises:
        RuntimeError: There is no home.
    """
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "pytest-asyncdb"


def private_folder(name: str) -> Path:
    """A folder in there, made if it is not there, of this user only.

    Raises:
        OSError: It cannot be made.
        RuntimeError: There is no home.
    """
    folder = cache_folder() / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def write_private(path: Path, text: str) -> None:
    """Write a new file that only this user can read.

    Raises:
        OSError: There is one, or it cannot be written.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
