"""Who builds which template: the first one to ask for it; the others wait until it is complete.

Kept by the process that owns the servers; xdist's workers ask for it over their channel.
No database and no pytest here.
"""

from __future__ import annotations

import itertools
import threading
from typing import Any, NamedTuple

from pytest_asyncdb import errors


class Claim(NamedTuple):
    """The answer to who asks for a template.

    Args:
        name: The template database's name.
        mine: It is not there, and whoever asked has to build it.
    """

    name: str
    mine: bool


class _Entry:
    def __init__(self, name: str, builder: Any) -> None:
        self.name = name
        self.builder = builder
        self.complete = False
        self.error: str | None = None


class TemplateBook:
    """The templates of a run, complete or absent.

    Args:
        prefix: How their names begin.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._entries: dict[Any, _Entry] = {}
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()

    def claim(self, key: Any, builder: Any) -> Claim:
        """The template for *key*; waits while another one builds it.

        Raises:
            SchemaError: Building it has failed before.
        """
        with self._changed:
            while True:
                entry = self._entries.get(key)
                if entry is None:
                    name = f"{self._prefix}t{next(self._numbers)}"
                    self._entries[key] = _Entry(name, builder)
                    return Claim(name, mine=True)
                if entry.error is not None:
                    raise errors.SchemaError(entry.error)
                if entry.complete:
                    return Claim(entry.name, mine=False)
                self._changed.wait()

    def settle(self, key: Any, error: str | None) -> None:
        """The builder of *key* is done, or has failed with *error*."""
        with self._changed:
            entry = self._entries[key]
            entry.complete, entry.error = error is None, error
            self._changed.notify_all()

    def abandon(self, builder: Any) -> None:
        """*builder* has gone: what it had not completed is built anew by the next one."""
        with self._changed:
            for key, entry in list(self._entries.items()):
                if entry.builder is builder and not entry.complete and entry.error is None:
                    del self._entries[key]
            self._changed.notify_all()
