"""Putting a database back: how the strategies use a backend's restorer."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_asyncdb._record.redaction import masked, without_literals
from pytest_asyncdb.abc import IDS, LEFT_OPEN, LEFT_TEXT, Isolation
from pytest_asyncdb.isolation import messages
from pytest_asyncdb.isolation.backing_connection import PATIENCE

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from pytest_asyncdb._engines.host_loop import HostLoop
    from pytest_asyncdb.abc import Database, DatabaseRef, Restorer


class Restoration:
    """A database that can be put back to its template, which it equals now. Blocks.

    Args:
        copied: A database of its own; None: the kept one.
    """

    def __init__(
        self, database: Database, host: HostLoop, copied: DatabaseRef | None = None
    ) -> None:
        self._host = host
        self._stack = contextlib.ExitStack()
        self._restorer: Restorer = self._stack.enter_context(database.restorer(copied))

    def changed(self, ids: bool = True) -> Sequence[str]:
        """What differs from the template, in words.

        Args:
            ids: Moved counters count as changes.
        """
        found = self._host.run(self._restorer.changed(), PATIENCE)
        return [word for word in found if ids or not word.startswith(IDS)]

    def put_back(self, ids: bool = True) -> tuple[Sequence[str], bool]:
        """What had changed, and whether it could be put back.

        Args:
            ids: Moved counters count as changes.
        """
        return self._host.run(self._restorer.put_back(ids), PATIENCE)

    def restart_ids(self) -> None:
        """Let ids begin anew."""
        self._host.run(self._restorer.restart_ids(), PATIENCE)

    def close(self) -> None:
        """May be called twice."""
        self._stack.close()


def _shown(word: str) -> str:
    """A connection with its last statement, as :meth:`Restorer.changed` tells it."""
    return without_literals(word) if len(word) >= LEFT_TEXT else masked(word)[0]


class SharedDatabaseStrategy(Isolation):
    """A strategy that keeps one database for many tests."""

    def __init__(self, database: Database, host: HostLoop) -> None:
        self._database = database
        self._host = host
        self._restoration: Restoration | None = None

    @property
    def restoration(self) -> Restoration:
        """What puts the database back; to be asked for while that equals its template."""
        if self._restoration is None:
            self._restoration = Restoration(self._database, self._host)
        return self._restoration

    def reference(self) -> URL:
        """The URL of an untouched database."""
        return self._database.reference()

    def put_back(self, test: str, ids: bool = True) -> tuple[list[str], list[BaseException]]:
        """Make the database what its template is. Blocks; never raises.

        Returns:
            What had changed, and what broke the isolation.
        """
        try:
            changed, restored = self.restoration.put_back(ids)
        except Exception as error:
            restored, changed = False, []
            breaches: list[BaseException] = [messages.teardown_stuck(test, PATIENCE, error)]
        else:
            left = [_shown(word) for word in changed if word.startswith(LEFT_OPEN)]
            breaches = [messages.left_connected(test, left)] if left else []
        if not restored:
            breaches += self.forget(test)
        return [word for word in changed if not word.startswith(LEFT_OPEN)], breaches

    def keep(self) -> DatabaseRef | Exception:
        """Let a copy of the database outlive the run, or say why not. Blocks; it must be
        forgotten afterwards."""
        self.close()
        return self._database.keep()

    def forget(self, test: str) -> list[BaseException]:
        """The database holds what it should not: the next test gets a new one. Blocks; never
        raises, but returns why the old one is still there."""
        name = self._database.url.database or ""
        try:
            self.close()
            self._database.discard()
        except Exception as error:
            return [messages.not_dropped(test, name, error)]
        return []

    def close(self) -> None:
        restoration, self._restoration = self._restoration, None
        if restoration is not None:
            restoration.close()
