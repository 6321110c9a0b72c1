"""What dead runs have left on this machine: server folders with their processes, containers.

Only what a record tells to be of an owner who is dead is a trace. Server folders are looked for
where they are made: in ``/dev/shm`` and in the folder for temporary files.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from pytest_asyncdb._system.process_identity import FILE, Owner
from pytest_asyncdb.servers.docker_api import remove_container
from pytest_asyncdb.servers.docker_labels import Labelled, our_containers
from pytest_asyncdb.servers.reusable import may_be_kept
from pytest_asyncdb.servers.supervised import MEMORY, PREFIX

#: Seconds for what was killed to end.
_END = 10.0
#: Seconds in which whoever makes a folder has written the record.
_YOUNG = 60.0
_FOLDER = re.compile(rf"{PREFIX}[0-9a-f]{{12}}")


class Trace(abc.ABC):
    """Something that an owner has left, or still uses."""

    #: Whose it is; None where the record is missing or cannot be read.
    owner: Owner | None

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """A server's folder and the container that is watched in it have the same."""

    @property
    @abc.abstractmethod
    def abandoned(self) -> bool:
        """Is its owner dead?"""

    @abc.abstractmethod
    def remove(self) -> bool:
        """End and remove it; blocks. False: it is still there."""


@dataclasses.dataclass(frozen=True)
class Folder(Trace):
    """A server's folder, and the processes that run in it."""

    path: Path
    owner: Owner | None
    age: float

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def abandoned(self) -> bool:
        return self.age > _YOUNG if self.owner is None else not self.owner.alive()

    def remove(self) -> bool:
        until = time.monotonic() + _END
        while (processes := list(_processes_in(self.path))) and time.monotonic() < until:
            for process in processes:
                with contextlib.suppress(OSError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.01)
        while self.path.exists() and time.monotonic() < until:
            shutil.rmtree(self.path, ignore_errors=True)
        return not self.path.exists()

    def __str__(self) -> str:
        return f"folder {self.path}"


@dataclasses.dataclass(frozen=True)
class Container(Trace):
    """A container that bears our label."""

    labelled: Labelled

    @property
    def owner(self) -> Owner | None:  # type: ignore[override]
        return self.labelled.owner

    @property
    def name(self) -> str:
        return self.labelled.name

    @property
    def abandoned(self) -> bool:
        if self.labelled.ends_by_itself:  # when it has removed what others than us have made
            return False
        if may_be_kept(self.name, self.labelled.record):
            return False
        return self.owner is not None and not self.owner.alive()

    def remove(self) -> bool:
        return remove_container(self.labelled.id)

    def __str__(self) -> str:
        return f"container {self.name} ({self.labelled.image})"


def traces() -> Iterator[Trace]:
    """Everything of ours on this machine, of the living and the dead; nothing is changed."""
    places = {MEMORY, tempfile.gettempdir()}
    for path in _folders(places):
        with contextlib.suppress(OSError):
            status = path.stat()
            if os.geteuid() in (0, status.st_uid):
                yield Folder(path, _owner_in(path), time.time() - status.st_mtime)
    for labelled in our_containers():
        yield Container(labelled)


def _folders(places: Iterable[str]) -> Iterator[Path]:
    for place in places:
        with contextlib.suppress(OSError):
            with os.scandir(place) as entries:
                names = [e.name for e in entries if _FOLDER.fullmatch(e.name)]
            yield from (Path(place, name) for name in names)


def _owner_in(folder: Path) -> Owner | None:
    try:
        return Owner.from_json((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _processes_in(folder: Path) -> Iterator[int]:
    """Processes that work in the folder, where there is a ``/proc``.

    All of ours have no terminal; somebody who has a look at the folder does.
    """
    with contextlib.suppress(OSError):
        folder = folder.resolve()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError, IndexError):
                place = os.readlink(entry / "cwd")  # noqa: PTH115  # " (deleted)" is no path
                if f"{place}/".startswith((f"{folder}/", f"{folder} (deleted)/")):
                    # "pid (name) state ppid group session terminal …"
                    text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
                    state, _, _, _, terminal, *_ = text.rpartition(")")[2].split()
                    if terminal == "0" and state not in "ZX":
                        yield int(entry.name)
