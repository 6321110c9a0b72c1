"""Which process builds which template: the first that asks; the others wait until it is done.

``TemplateBook`` holds the templates of one run, in the process that owns the servers; xdist's
workers ask it over their channel. ``KeptTemplates`` holds those that stay on a server for later
runs, in files that all runs share. Nothing here knows databases or pytest.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pytest_asyncdb import errors
from pytest_asyncdb._system.file_lock import lock

#: How the names of kept templates begin; the databases of a run have other names.
KEPT_PREFIX = "asyncdb_template_"
#: The number of kept templates that stay although no process uses them.
_RETENTION = 8
#: How the file of a kept template begins when the template is complete; what its seeds returned
#: follows.
_COMPLETE = b"complete"


class Claim(NamedTuple):
    """The answer to a process that asks for a template.

    Args:
        name: The template database's name.
        mine: The template does not exist, and the process that asked has to build it.
        seeded: What its builder has settled it with.
    """

    name: str
    mine: bool
    seeded: bytes = b""


class Claims(Protocol):
    """Gives templates, so that each is built once."""

    def claim(self, key: str) -> Claim:
        """The template for *key*; waits while another process builds it."""

    def settle(self, key: str, error: str | None, seeded: bytes = b"") -> None:
        """End a claim: the template is complete, or building it failed with *error*.

        Args:
            error: Empty: the building was interrupted; the next process that asks builds it.
            seeded: What its seeds returned, for the next ones that claim it.
        """


class TemplateBook:
    """The templates of a run.

    Args:
        prefix: How their names begin.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        #: For each template its name, its builder, and what it was settled with: None if the
        #: builder has died, a SchemaError if building it failed.
        self._entries: dict[Any, tuple[str, Any, concurrent.futures.Future[bytes | None]]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def claim(self, key: Any, builder: Any = None) -> Claim:
        """The template for *key*; waits while another builder builds it.

        Args:
            builder: Stands for the process that asks; None: the one that has the book.

        Raises:
            SchemaError: Building it has failed before.
        """
        while True:
            with self._lock:
                if key not in self._entries:
                    name = f"{self._prefix}t{next(self._numbers)}"
                    self._entries[key] = name, builder, concurrent.futures.Future()
                    return Claim(name, mine=True)
                name, its_builder, complete = self._entries[key]
                if its_builder is builder and not complete.done():
                    return Claim(name, mine=True)  # it was interrupted before it had the answer
            if (seeded := complete.result()) is not None:
                return Claim(name, mine=False, seeded=seeded)

    def settle(self, key: Any, error: str | None, seeded: bytes = b"") -> None:
        """The builder of *key* is done, or has failed with *error*; see :class:`Claims`."""
        _, builder, complete = self._entries[key]
        if error is None:
            complete.set_result(seeded)
        elif not error:
            self.abandon(builder)
        else:
            complete.set_exception(errors.SchemaError(error))

    def abandon(self, builder: Any) -> None:
        """The next process that asks builds what *builder*, which has died or was interrupted, had
        not completed."""
        with self._lock:
            for key, (_, its_builder, complete) in list(self._entries.items()):
                if its_builder is builder and not complete.done():
                    del self._entries[key]
                    complete.set_result(None)


class KeptTemplates:
    """The templates that stay on one server, as one process sees them.

    Each has a file in the server's folder. A process that builds the template holds an
    exclusive lock on the file, a process that uses it a shared one. The kernel releases the
    locks of a process that dies, and the file says whether the template is complete.

    Args:
        folder: The server's.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder, "templates")
        #: The files that this process has locked, by fingerprint.
        self._locks: dict[str, int] = {}

    def claim(self, key: str) -> Claim:
        """See :class:`Claims`; the template stays until :meth:`close`."""
        name = KEPT_PREFIX + key
        path = self._folder / name
        while key not in self._locks:
            using = lock(path, shared=True)
            if _is_complete(using):
                os.utime(using)
                self._locks[key] = using
                break
            os.close(using)
            building = lock(path)
            if not _is_complete(building):  # else another process has built it meanwhile
                self._locks[key] = building
                return Claim(name, mine=True)
            os.close(building)
        return Claim(name, mine=False, seeded=path.read_bytes()[len(_COMPLETE) :])

    def settle(self, key: str, error: str | None, seeded: bytes = b"") -> None:
        """See :class:`Claims`. Afterwards the template must be claimed again."""
        file = self._locks.pop(key)
        if error is None:
            os.pwrite(file, seeded, len(_COMPLETE))
            os.pwrite(file, _COMPLETE, 0)
        os.close(file)

    def close(self) -> None:
        """Release the templates. May be called twice."""
        locks, self._locks = self._locks, {}
        for file in locks.values():
            os.close(file)


def expired_templates(folder: str, databases: Iterable[str]) -> Iterator[str]:
    """The kept templates on a server that are incomplete, or that no process uses and that are
    not among the last ones used.

    Until the caller asks for the next name, no other process can begin to use the template: it
    has to be dropped until then.

    Args:
        folder: The server's.
        databases: The names of all databases on the server.
    """
    place = Path(folder, "templates")
    names = [name for name in databases if name.startswith(KEPT_PREFIX)]
    names.sort(key=lambda name: _last_use(place / name), reverse=True)
    for number, name in enumerate(names):
        try:
            file = lock(place / name, wait=False)
        except BlockingIOError:
            continue
        try:
            if number >= _RETENTION or not _is_complete(file):
                os.truncate(file, 0)
                yield name
        finally:
            os.close(file)


def _is_complete(file: int) -> bool:
    return os.pread(file, len(_COMPLETE), 0) == _COMPLETE


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
