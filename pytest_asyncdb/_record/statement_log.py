"""The statements of one test, in the order in which they ran.

Every statement passes through here. So anything that costs time, such as the text of a place in the
code, is made only when a report needs it.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from pytest_asyncdb._record.sql_text import savepoint

#: Number of statements with parameters that are kept: the last ones.
_PARAMETERS = 50
#: Number of statements and ends of transactions that are kept: the last ones.
_MOST = 10_000
#: A line of code: the file, the line's number, the function.
Place = tuple[str, int, str]


def line_of(place: Place) -> str:
    """Return ``file:line in function``. The file is relative to the current folder if it is below
    it."""
    path, number, name = place
    here = os.getcwd() + os.sep  # noqa: PTH109  # a string is all that is needed
    return f"{path.removeprefix(here)}:{number} in {name}"


class Statement(NamedTuple):
    """A statement that the application has run.

    Args:
        sql: Its text as passed to the driver.
        rows: Number of rows returned or changed; None: the driver did not report it.
        seconds: From the call to the driver until its answer, including the wait for a turn.
        many: True if it ran once for each of several sets of parameters (``executemany``).
        error: The name of the class of the driver's exception.
        places: Lines of the user's code that led to it, the innermost first.
        checkout: The number of the connection that had the transaction; None: it ran in autocommit.
    """

    sql: str
    rows: int | None
    seconds: float
    many: bool = False
    error: str | None = None
    places: Sequence[Place] = ()
    checkout: int | None = None


class End(NamedTuple):
    """The end of a transaction: ``COMMIT`` or ``ROLLBACK`` on the checkout with that number."""

    how: str
    checkout: int


class Step(NamedTuple):
    """An entry of the log as reports show it.

    Args:
        number: The statement's number, from 1; 0 if the entry is no statement.
        entry: The statement, or ``BEGIN``, ``COMMIT``, ``ROLLBACK``.
        depth: Number of open transactions and savepoints of its connection around it.
        checkout: The connection's number; None: it ran in autocommit.
        parameters: The statement's parameters, if they are kept.
    """

    number: int
    entry: Statement | str
    depth: int
    checkout: int | None
    parameters: Any = None


class StatementLog:
    """The statements of all engines of one test. If there are very many: the last ones.

    Args:
        hidden: True: do not show values (the engine's ``hide_parameters``).
    """

    def __init__(self, hidden: bool = False) -> None:
        self.hidden = hidden
        #: Explanations of lock timeouts; see ``isolation/lock_waits.py``.
        self.waits: list[str] = []
        #: Number of statements so far.
        self.number = 0
        #: Total time of all statements.
        self.seconds = 0.0
        self._entries: collections.deque[Statement | End] = collections.deque(maxlen=_MOST)
        self._parameters: collections.deque[tuple[int, Any]] = collections.deque(maxlen=_PARAMETERS)

    @property
    def statements(self) -> list[Statement]:
        """The statements that are kept, without the ends of transactions."""
        return [entry for entry in self._entries if isinstance(entry, Statement)]

    def between(self, first: int, last: int) -> list[Statement]:
        """Return the kept statements after number *first*, up to number *last*."""
        kept = self.statements
        gone = self.number - len(kept)
        return kept[max(0, first - gone) : max(0, last - gone)]

    def add(self, statement: Statement, parameters: Any) -> None:
        self.number += 1
        self.seconds += statement.seconds
        self._parameters.append((self.number, parameters))
        self._entries.append(statement)

    def ended(self, how: str, checkout: int) -> None:
        """Note the end of a transaction, even of an empty one.

        Args:
            how: ``COMMIT`` or ``ROLLBACK``.
        """
        self._entries.append(End(how, checkout))

    def steps(self) -> list[Step]:
        """Return the kept entries in order, with the beginnings and depths of transactions."""
        entries, steps = list(self._entries), []
        open_: dict[int, list[str]] = {}
        parameters = dict(self._parameters)
        number = self.number - sum(isinstance(entry, Statement) for entry in entries)
        for entry in entries:
            checkout = entry.checkout
            if isinstance(entry, End):
                if open_.pop(entry.checkout, None) is not None:
                    steps.append(Step(0, entry.how, 0, checkout))
                continue
            number += 1
            depth = 0
            if checkout is not None:
                if checkout not in open_:
                    steps.append(Step(0, "BEGIN", 0, checkout))
                names = open_.setdefault(checkout, [])
                before = len(names)
                _follow(names, entry)
                depth = 1 + min(before, len(names))  # SAVEPOINT and its end are not inside of it
            steps.append(Step(number, entry, depth, checkout, parameters.get(number)))
        return steps

    def running(self, checkout: int) -> list[Step]:
        """Return the statements of a connection's open transaction, by the number of its
        checkout."""
        found: list[Step] = []
        for step in self.steps():
            if step.checkout == checkout and step.number:
                found.append(step)
            elif step.checkout == checkout and step.entry != "BEGIN":
                found.clear()
        return found


def _follow(names: list[str], statement: Statement) -> None:
    """Update the open savepoints of a transaction after *statement*."""
    found = savepoint(statement.sql) if statement.error is None else None
    if found is None:
        return
    verb, name = found
    if verb == "savepoint":
        names.append(name)
    elif name in names:
        # SQLAlchemy does not use a savepoint again after a rollback to it; SQL can.
        kept = verb == "rollback" and "sa_savepoint_" not in name
        del names[names.index(name) + kept :]
