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


def write_private(path: Path, text: str) -> None:
    """Write a new file that only this user can read.

    Raises:
        OSError: There is one, or it cannot be written.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
