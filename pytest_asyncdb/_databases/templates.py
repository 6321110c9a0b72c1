"""Decides which process builds a template: the first that asks. The others wait until it is done.

``TemplateBook`` holds the templates of one run, in the process that owns the servers; xdist's
workers ask it over their channel. ``KeptTemplates`` holds the templates that stay on a server for
later runs, in files that all runs share. This module knows neither databases nor pytest.
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

#: The prefix of the names of kept templates. The databases of a run have other names.
KEPT_PREFIX = "asyncdb_template_"
#: The number of kept templates that stay although no process uses them.
_RETENTION = 8
#: The first bytes in the file of a kept template that is complete. What its seeds have returned
#: follows.
_COMPLETE = b"complete"


class Claim(NamedTuple):
    """The answer to a process that asks for a template.

    Args:
        name: The template database's name.
        mine: True if the template does not exist, so that the process that asked has to build it.
        seeded: What the builder has passed to ``settle``.
    """

    name: str
    mine: bool
    seeded: bytes = b""


class Claims(Protocol):
    """Hands out templates, so that each one is built once."""

    def claim(self, key: str) -> Claim:
        """Return the template for *key*. Waits while another process builds it."""

    def settle(self, key: str, error: str | None, seeded: bytes = b"") -> None:
        """End a claim: the template is complete, or building it failed with *error*.

        Args:
            error: None: the template is complete. Empty: the building was interrupted, and the next
                process that asks builds it.
            seeded: What the seeds have returned, for the next processes that claim the template.
        """


class TemplateBook:
    """The templates of a run.

    Args:
        prefix: The prefix of their names.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        #: For each template its name, its builder, and what it was settled with: None if the
        #: builder has died, a SchemaError if the building failed.
        self._entries: dict[Any, tuple[str, Any, concurrent.futures.Future[bytes | None]]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def claim(self, key: Any, builder: Any = None) -> Claim:
        """Return the template for *key*. Waits while another builder builds it.

        Args:
            builder: Stands for the process that asks; None: the process that has the book.

        Raises:
            SchemaError: The building has failed before.
        """
        while True:
            with self._lock:
                if key not in self._entries:
                    name = f"{self._prefix}t{next(self._numbers)}"
                    self._entries[key] = name, builder, concurrent.futures.Future()
                    return Claim(name, mine=True)
                name, its_builder, complete = self._entries[key]
                if its_builder is builder and not complete.done():
                    return Claim(name, mine=True)  # interrupted before it got the answer
            if (seeded := complete.result()) is not None:
                return Claim(name, mine=False, seeded=seeded)

    def settle(self, key: Any, error: str | None, seeded: bytes = b"") -> None:
        """Note that the builder of *key* is done, or has failed with *error*; see
        :class:`Claims`."""
        _, builder, complete = self._entries[key]
        if error is None:
            complete.set_result(seeded)
        elif not error:
            self.abandon(builder)
        else:
            complete.set_exception(errors.SchemaError(error))

    def abandon(self, builder: Any) -> None:
        """Let the next process that asks build what *builder* has not completed, because it has
        died or was interrupted."""
        with self._lock:
            for key, (_, its_builder, complete) in list(self._entries.items()):
                if its_builder is builder and not complete.done():
                    del self._entries[key]
                    complete.set_result(None)


class KeptTemplates:
    """The templates that stay on one server, as one process sees them.

    Each has a file in the server's folder. A process that builds the template holds an exclusive
    lock on the file, a process that uses it holds a shared lock. The kernel releases the locks of a
    process that dies. The file says whether the template is complete.

    Args:
        folder: The server's folder.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder, "templates")
        #: The files that this process has locked, by fingerprint.
        self._locks: dict[str, int] = {}

    def claim(self, key: str) -> Claim:
        """Claim a template, see :class:`Claims`. It stays until :meth:`close`."""
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
        """End a claim, see :class:`Claims`. Afterwards the template must be claimed again."""
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
    """Yield the kept templates on a server that can be dropped.

    These are incomplete, or no process uses them and they are not among the last ones used. No
    other process can begin to use a template before the caller asks for the next name. The caller
    must drop it before that.

    Args:
        folder: The server's folder.
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
