"""A cache of data folders for local servers, as ``initdb`` and similar programs filled them.

A copy takes a fraction of the time that filling a folder takes. No server has used an entry. An
entry is complete or absent, because it is made under another name and then renamed. If the cache
cannot be used, a run fills its own folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_asyncdb._system.cache_dir import key_of, private_folder
from pytest_asyncdb.errors import AsyncdbError

#: Seconds after which an unused entry is removed, and one that was never completed.
_UNUSED, _UNFINISHED = 30 * 86400.0, 600.0
#: What a cache that cannot be used raises.
_NO_CACHE = (OSError, RuntimeError, ValueError, KeyError, AsyncdbError)


class DataDirCache:
    """The entry for one kind of data folder. It need not exist.

    Args:
        program: The name of the server program.
        inputs: Everything that decides what the folder holds.
    """

    def __init__(self, program: str, inputs: Sequence[str]) -> None:
        self._name = f"{program}-{key_of(inputs)}"

    def password(self) -> str | None:
        """Return the password that the entry was filled with; None if there is no entry."""
        with contextlib.suppress(*_NO_CACHE):
            return str(self._read()["password"])
        return None

    def copy_to(self, target: str) -> bool:
        """Copy the entry to *target*, which does not exist yet. Return False if no entry is
        complete."""
        with contextlib.suppress(*_NO_CACHE):
            entry = private_folder("data") / self._name
            try:
                shutil.copytree(entry / "data", target, copy_function=shutil.copy)
                whole = _contents(Path(target)) == self._read()["contents"]
            except _NO_CACHE:
                whole = False
            if whole:
                os.utime(entry)
                return True
            shutil.rmtree(target, ignore_errors=True)
            shutil.rmtree(entry, ignore_errors=True)
        return False

    def keep(self, source: str, password: str) -> None:
        """Copy *source*, which no server uses, into the cache, and remove unused entries."""
        with contextlib.suppress(*_NO_CACHE):
            data = private_folder("data")
            for entry in data.iterdir():
                limit = _UNFINISHED if "." in entry.name else _UNUSED
                if time.time() - entry.stat().st_mtime > limit:
                    shutil.rmtree(entry)
            new = data / f"{self._name}.{secrets.token_hex(4)}"
            try:
                new.mkdir(mode=0o700)
                shutil.copytree(source, new / "data", copy_function=shutil.copy)
                values = {"password": password, "contents": _contents(new / "data")}
                (new / "entry.json").write_text(json.dumps(values), encoding="utf-8")
                new.rename(data / self._name)  # fails if another run was faster
            finally:
                shutil.rmtree(new, ignore_errors=True)

    def _read(self) -> dict[str, Any]:
        path = private_folder("data") / self._name / "entry.json"
        return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def _contents(folder: Path) -> list[int]:
    """Return the number of files and folders, and the number of bytes in the files."""
    paths = list(folder.rglob("*"))
    return [len(paths), sum(path.stat().st_size for path in paths if path.is_file())]
