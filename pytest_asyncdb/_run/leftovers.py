"""What killed runs have left on this machine: server folders with their processes, containers.

Only what carries a record of its owner counts (``_system/process_identity.py``), and only what
belongs to this user: a folder or record that is a symbolic link, or that another user could have
written, is ignored. ``reap.py`` prints and removes on request what every run removes by itself;
databases on servers by URL are in ``run_lock.py``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytest_asyncdb._system.process_identity import FILE, Owner
from pytest_asyncdb.servers.reusable import end_idle
from pytest_asyncdb.servers.supervised import MEMORY, PREFIX

if TYPE_CHECKING:
    import psutil

#: Seconds for killed processes to end.
_END = 10.0
_FOLDER = re.compile(rf"{PREFIX}[0-9a-f]{{12}}")


class Leftover(NamedTuple):
    """Something that outlives a killed run.

    Args:
        name: The folder's or the container's name; empty for other things.
        text: What it is and whose, for a message.
        in_use: A run uses it.
        remove: Removes it and ends what runs in it; blocks. False: it is still there.
    """

    name: str
    text: str
    in_use: bool
    remove: Callable[[], bool]


def reap_in_thread() -> threading.Thread:
    """Remove what is left on this machine, in the background; containers only if they are idle.

    A run that starts a container removes those of killed runs before.
    """
    thread = threading.Thread(target=_reap_quietly, name="asyncdb-reap", daemon=True)
    thread.start()
    return thread


def _reap_quietly() -> None:
    # The user did not ask for this; the next run tries again.
    with contextlib.suppress(Exception):
        end_idle()
        for folder in server_folders():
            if not folder.in_use:
                folder.remove()


def server_folders() -> Iterator[Leftover]:
    """The folders of this user's servers, in memory and in the folder for temporary files.

    As root, also those of servers that root has started as another user.
    """
    for place in {MEMORY, tempfile.gettempdir()} if os.name == "posix" else ():
        with contextlib.suppress(OSError):
            for folder in sorted(Path(place).resolve(strict=True).iterdir()):
                if _FOLDER.fullmatch(folder.name):
                    with contextlib.suppress(OSError, ValueError):
                        uid, owner = _owner_in(folder)
                        text, remove = f"folder {folder}, {owner}", partial(_remove, folder, uid)
                        yield Leftover(folder.name, text, owner.alive(), remove)


def _owner_in(folder: Path) -> tuple[int, Owner]:
    """The user that a folder belongs to, and the record in it.

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
        return uid, Owner.from_json(file.read())


def _remove(folder: Path, uid: int) -> bool:
    """Kill the processes in a folder and remove it.

    Args:
        uid: The user that the folder belongs to; processes of other users are not touched.
    """
    import psutil

    until = time.monotonic() + _END
    while (processes := list(_processes_in(folder, uid))) or os.path.lexists(folder):
        if time.monotonic() > until:
            return False
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()  # not if another process has got its pid meanwhile
        if not processes:
            shutil.rmtree(folder, ignore_errors=True)  # follows no links
        time.sleep(0.01)
    return True


def _processes_in(folder: Path, uid: int) -> Iterator[psutil.Process]:
    """Processes of a user that work in a folder.

    Servers have no terminal. A shell in which a person looks at the folder has one.
    """
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            inside = Path(process.cwd()).is_relative_to(folder)
            if inside and process.uids().real == uid and process.terminal() is None:
                yield process


def containers() -> Iterator[Leftover]:
    """The containers that carry the plugin's label, also those of other machines.

    None if no engine answers.
    """
    from pytest_asyncdb.servers import docker_api
    from pytest_asyncdb.servers.docker_labels import labelled

    if docker_api.ping(docker_api.engine_address()) is None:
        for one, owner, in_use in labelled():
            text = f"container {one.name} ({one.attrs['Config']['Image']}), {owner}"
            yield Leftover(one.name, text, in_use, partial(docker_api.remove, one))
