"""Data folders of local servers as their programs have filled them, kept for later runs.

A copy takes a fraction of the time that filling a folder takes. What is kept was never served
from. It is complete or absent: made beside its place and put there by renaming. Whatever is wrong
with the cache, the run goes on without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

from pytest_asyncdb._system.cache_dir import cache_folder, private_folder

#: https://man7.org/linux/man-pages/man2/ioctl_ficlone.2.html
_FICLONE = 0x40049409
#: Bytes that are copied at once.
_CHUNK = 1024 * 1024
#: Free bytes that are left on the disk of the cache.
_ENOUGH = 1024**3
#: Seconds after which what is not used, and what was never completed, is removed.
_UNUSED, _UNFINISHED = 30 * 86400.0, 600.0
#: So many, of 40 to 150 MB, are kept beside the newest one.
_OTHERS = 7


class DataDirCache:
    """One kept data folder, which need not be there.

    Args:
        name: Of the server program.
        words: Everything that decides what the folder holds.
    """

    def __init__(self, name: str, words: Sequence[str]) -> None:
        self._name = name
        self._key = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]

    @property
    def entry(self) -> Path:
        """Where it is.

        Raises:
            RuntimeError: There is no home.
        """
        return cache_folder() / "data" / f"{self._name}-{self._key}"

    def take(self, target: str) -> str | None:
        """Copy it to *target*, which does not exist yet.

        Returns:
            What it was kept with; None: there is none, or it was damaged and is removed.
        """
        with contextlib.suppress(RuntimeError):
            entry = self.entry
            try:
                _check_ours(entry)
                kept = json.loads((entry / "kept.json").read_text("utf-8"))
                if _copy(entry / "data", Path(target)) == kept["stamps"]:
                    os.utime(entry)
                    return str(kept["secret"])
            except (OSError, ValueError, KeyError, TypeError):
                pass
            shutil.rmtree(target, ignore_errors=True)
            _discard(entry)
        return None

    def keep(self, source: str, secret: str) -> None:
        """Keep a copy of *source*, which nobody writes to, and remove what is out of use.

        Args:
            secret: What :meth:`take` gives with it; only this user can read it.
        """
        with contextlib.suppress(OSError, RuntimeError):
            entry = self.entry
            folder = private_folder("data")
            _sweep(folder)
            if shutil.disk_usage(folder).free < _ENOUGH:
                return
            made = entry.with_name(f"{entry.name}.{secrets.token_hex(4)}")
            try:
                made.mkdir(mode=0o700)
                kept = {"secret": secret, "stamps": _copy(Path(source), made / "data")}
                (made / "kept.json").write_text(json.dumps(kept), encoding="utf-8")
                made.rename(entry)  # fails where another run was faster
            finally:
                shutil.rmtree(made, ignore_errors=True)


def _check_ours(entry: Path) -> None:
    """Whoever can write to a data folder decides what the server that runs on it does.

    Raises:
        PermissionError: Somebody else can.
    """
    status = entry.lstat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(f"{entry} belongs to somebody else, too")


def _copy(source: Path, target: Path) -> dict[str, list[int]]:
    """Copy a folder; the size and the checksum of every file as it was read, and every folder.

    The latter, because servers miss even the empty ones.
    """

    def fail(error: OSError) -> None:
        raise error

    stamps: dict[str, list[int]] = {}
    for place, _, names in os.walk(source, onerror=fail):
        folder = os.path.relpath(place, source)
        (target / folder).mkdir()
        shutil.copymode(place, target / folder)
        stamps[folder] = []
        for name in names:
            file = f"{folder}/{name}"
            stamps[file] = _copy_file(f"{source}/{file}", f"{target}/{file}")
    return stamps


def _copy_file(source: str, target: str) -> list[int]:
    """Copy one file, sharing its blocks where the file system can; its size and checksum."""
    size = checksum = 0
    with open(source, "rb", 0) as old, open(target, "xb") as new:  # noqa: PTH123  # a thousand
        os.fchmod(new.fileno(), os.fstat(old.fileno()).st_mode & 0o777)
        shared = _clone(old.fileno(), new.fileno())
        while data := old.read(_CHUNK):
            size += len(data)
            checksum = zlib.crc32(data, checksum)
            if not shared:
                new.write(data)
    return [size, checksum]


def _clone(old: int, new: int) -> bool:
    import fcntl

    try:
        fcntl.ioctl(new, _FICLONE, old)
    except OSError:  # another file system, or one that cannot
        return False
    return True


def _discard(entry: Path) -> None:
    """Nobody finds it any more from the first moment on."""
    away = entry.with_name(f"{entry.name}.{secrets.token_hex(4)}")
    with contextlib.suppress(OSError):  # another run has done it
        entry.rename(away)
        shutil.rmtree(away, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what no run has used for long, or is too much, and what runs left that were killed."""
    aged = sorted((time.time() - path.stat().st_mtime, path) for path in folder.iterdir())
    whole = [path for _, path in aged if "." not in path.name]
    for age, path in aged:
        if age > (_UNFINISHED if "." in path.name else _UNUSED) or path in whole[_OTHERS:]:
            _discard(path)
