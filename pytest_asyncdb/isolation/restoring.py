"""Restoring a database: how the strategies use a backend's restorer."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from pytest_asyncdb._engines.host_loop import HostLoop
from pytest_asyncdb._record.text import error_text, masked, shorten, without_literals
from pytest_asyncdb.abc import IDS, LEFT_OPEN, LEFT_TEXT, Database, DatabaseRef, Isolation, Restorer
from pytest_asyncdb.errors import AsyncdbError
from pytest_asyncdb.isolation import messages
from pytest_asyncdb.isolation.connector import PATIENCE


class Restoration:
    """A database that can be restored to the state of its template. Blocks.

    Args:
        ref: A database of ``Database.copy``; None: the kept database.
    """

    def __init__(self, database: Database, host: HostLoop, ref: DatabaseRef | None = None) -> None:
        self.ref = ref
        self._database = database
        self._host = host
        self._stack = contextlib.ExitStack()
        self._remembered: Restorer | None = None

    def remember(self) -> Restorer:
        """Remember the state of the database. May be called twice.

        Call it before the first change, while the database equals its template.
        """
        if self._remembered is None:
            self._remembered = self._stack.enter_context(self._database.restorer(self.ref))
        return self._remembered

    @property
    def unseen(self) -> Sequence[str]:
        """See ``Restorer.unseen``; empty before :meth:`remember`."""
        return () if self._remembered is None else self._remembered.unseen

    def changed(self, sequences: bool = True) -> Sequence[str]:
        """Return what differs from the template, in words.

        Args:
            sequences: True if moved sequences count as changes.
        """
        found = self._host.run(self.remember().changed(), PATIENCE)
        return [word for word in found if sequences or not word.startswith(IDS)]

    def put_back(self, sequences: bool = True) -> tuple[Sequence[str], bool]:
        """Restore the database. Return what had changed, and whether it could be restored.

        It cannot be restored if the account cannot see what changed.

        Args:
            sequences: True if moved sequences count as changes.
        """
        changed = self.changed(sequences)
        return changed, not self.unseen and (not changed or self._restore(changed))

    def reset_sequences(self) -> None:
        """Make sequences and AUTO_INCREMENT start where the template's do."""
        if moved := [word for word in self.changed() if word.startswith(IDS)]:
            self._restore(moved)

    def _restore(self, changed: Sequence[str]) -> bool:
        return self._host.run(self.remember().restore(changed), PATIENCE)

    def close(self) -> None:
        """Release the restorer. May be called twice."""
        self._stack.close()


class SharedDatabaseStrategy(Isolation):
    """A strategy that keeps one database for many tests."""

    def __init__(self, database: Database, host: HostLoop) -> None:
        self._database = database
        self._host = host
        self._restoration: Restoration | None = None

    @property
    def restoration(self) -> Restoration:
        """Restores the database. Ask for it first while the database equals its template."""
        if self._restoration is None:
            self._restoration = Restoration(self._database, self._host)
            self._restoration.remember()
        return self._restoration

    def put_back(self, test: str, sequences: bool = True) -> tuple[list[str], list[BaseException]]:
        """Restore the database to the state of its template. Blocks; never raises.

        Returns:
            What had changed, and what broke the isolation.
        """
        breaches: list[BaseException] = []
        changed: Sequence[str] = []
        try:
            changed, restored = self.restoration.put_back(sequences)
        except Exception as error:
            restored = False
            breaches.append(teardown_stuck(test, error))
        if left := [shorten(_shown(word)) for word in changed if word.startswith(LEFT_OPEN)]:
            breaches.append(messages.LEFT_CONNECTED.of(test, left))
        if not restored:
            breaches += self.forget(test)
        return [word for word in changed if not word.startswith(LEFT_OPEN)], breaches

    def keep(self) -> DatabaseRef | Exception:
        """Keep a copy of the database after the run, or return why not. Blocks.

        Call :meth:`forget` afterwards.
        """
        self.close()
        return self._database.keep()

    def forget(self, test: str) -> list[BaseException]:
        """Replace the database, because it holds what it should not. Blocks; never raises.

        Returns:
            Why the old database is still there; empty if it was dropped.
        """
        name = self._database.url.database or ""
        try:
            self.close()
            self._database.discard()
        except Exception as error:
            return [messages.NOT_DROPPED.of(test, f"database: {name}", error_text(error))]
        return []

    def close(self) -> None:
        restoration, self._restoration = self._restoration, None
        if restoration is not None:
            restoration.close()


def teardown_stuck(test: str, error: Exception) -> AsyncdbError:
    """Return the error for a rollback or a restoration that failed or did not end in time."""
    return messages.TEARDOWN_STUCK.of(test, f"waited at most {PATIENCE:g} s; {error_text(error)}")


def _shown(word: str) -> str:
    """Return a connection with its last statement, without literal values, for an error."""
    return without_literals(word) if len(word) >= LEFT_TEXT else masked(word)[0]
