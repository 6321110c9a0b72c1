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
