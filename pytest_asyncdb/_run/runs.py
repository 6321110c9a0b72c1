"""Runs of pytest: their ids, what their databases are called, which of them live on this machine.

Other versions of the plugin go by the same rules, so they must not change:

- databases of a run are called ``asyncdb_``, its id of eight hexadecimal digits, ``_``, …;
- while it lives, it holds a lock on each server that it did not start, whose name follows from
  its id (``Backend.hold_lock``);
- while it lives, ``runs/ID.json`` in the user's cache folder is the record of its process.
"""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from pytest_asyncdb._system.cache_dir import cache_folder, private_folder

#: Seconds in which whoever makes a record has written it.
_YOUNG = 60.0
_DATABASE = re.compile(r"asyncdb_([0-9a-f]{8})_")


def new_id() -> str:
    """The id of a new run."""
    return uuid.uuid4().hex[:8]


def prefix_of(run: str) -> str:
    """How the names of all databases of a run begin."""
    return f"asyncdb_{run}_"


def run_of(database: str) -> str | None:
    """The id of the run that made a database; None: it is not ours."""
    found = _DATABASE.match(database)
    return found and found.group(1)


@contextlib.contextmanager
def recorded(run: str) -> Iterator[None]:
    """Let other processes of this user see that the run lives.

    A help only, for servers that lose the run's lock: where the folder cannot be written
    to, there is no record.
    """
    from pytest_asyncdb._system.process_identity import Owner

    path = _record(run)
    with contextlib.suppress(OSError, RuntimeError):  # the latter: there is no home
        private_folder("runs")
        record = Owner.current(run, "databases").to_json()
        try:
            path.write_text(record, encoding="utf-8")
        except OSError:  # the disk is full: it is empty
            path.unlink()
    try:
        yield
    finally:
        with contextlib.suppress(OSError, RuntimeError):
            path.unlink()


def is_recorded(run: str) -> bool:
    """Is the run known to live on this machine? The record of a dead one is removed."""
    from pytest_asyncdb._system.process_identity import Owner

    path = _record(run)
    try:
        owner = Owner.from_json(path.read_text(encoding="utf-8"))
    except (OSError, RuntimeError, ValueError):
        return False
    if not owner.alive():
        with contextlib.suppress(OSError):
            path.unlink()
        return False
    return True


def forget_dead() -> None:
    """Remove the records of runs that were killed."""
    with contextlib.suppress(OSError, RuntimeError):
        for path in _record("").parent.iterdir():
            age = time.time() - path.stat().st_mtime
            if not is_recorded(path.stem) and age > _YOUNG:  # one that cannot be read
                path.unlink(missing_ok=True)


def _record(run: str) -> Path:
    return cache_folder() / "runs" / f"{run}.json"
