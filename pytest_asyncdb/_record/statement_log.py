"""The statements of one test, in order, as they were run. Reads, never acts.

It is on the path of every statement: what costs time, such as a place in words, is made when
somebody wants to see it.
"""

from __future__ import annotations

import collections
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

#: Of so many statements, the last ones, the parameters are kept.
_KEPT = 50
#: So many statements and ends of transactions are kept, of so many characters together.
_MOST, _CHARACTERS = 10_000, 10_000_000
#: Of the others it is known how often each text ran: of so many texts, each cut. The empty one
#: stands for all further ones.
_TEXTS, _TEXT = 100, 600
#: A line of code, not yet in words: the file, the line's number, the function.
Place = tuple[str, int, str]
#: What changes the depth of a transaction, with the savepoint's name.
_SAVEPOINT = re.compile(
    r"\s*(savepoint|release|rollback(?=.*\sto\b))\s(?:.*\s)?(\S+?)\s*;?\s*$",
    re.IGNORECASE | re.DOTALL,
)


def line_of(place: Place) -> str:
    """As a user would write it: from the current folder, if the file is below."""
    path, number, name = place
    here = os.getcwd() + os.sep  # noqa: PTH109  # a string is all that is needed
    return f"{path.removeprefix(here)}:{number} in {name}"


class Statement(NamedTuple):
    """A statement that the application has run.

    Args:
        sql: Its text as the driver got it.
        rows: How many rows it gave or changed, as far as the driver tells at once; else None.
        seconds: From the call to the driver until its answer; waiting for a turn included.
        many: It ran once for each of several sets of parameters.
        error: The name of the class of what the driver raised.
        places: Lines of the user's code that led to it, the innermost first.
        checkout: The number of the connection in whose transaction it ran; None: in none.
    """

    sql: str
    rows: int | None
    seconds: float
    many: bool = False
    error: str | None = None
    places: Sequence[Place] = ()
    checkout: int | None = None


class End(NamedTuple):
    """The end of a transaction: ``COMMIT`` or ``ROLLBACK``, of the checkout with that number."""

    how: str
    checkout: int


class Step(NamedTuple):
    """A line of what a test has run.

    Args:
        number: The statement's, from 1; 0 for what is none.
        entry: The statement, or ``BEGIN``, ``COMMIT``, ``ROLLBACK``.
        depth: In how many transactions and savepoints of its connection it stands.
        checkout: The connection's number; None: in no transaction.
        parameters: The statement's, as far as they are kept.
    """

    number: int
    entry: Statement | str
    depth: int
    checkout: int | None
    parameters: Any = None


class StatementLog:
    """What the engines of one test have run: the last ones in full, the others counted.

    Args:
        hidden: Values are not to be shown: the engine's ``hide_parameters``.
    """

    def __init__(self, hidden: bool = False) -> None:
        self.hidden = hidden
        #: What was seen where a statement did not get its lock in time; see ``lock_waits.py``.
        self.waits: list[str] = []
        #: How many statements there were.
        self.number = 0
        #: How often those ran that are not kept, by the beginnings of their texts.
        self.forgotten: collections.Counter[str] = collections.Counter()
        self._entries: collections.deque[Statement | End] = collections.deque()
        self._characters = 0
        self._seconds = 0.0
        self._parameters: collections.deque[tuple[int, Any]] = collections.deque(maxlen=_KEPT)
        #: The savepoints of transactions that are open before the first entry, by checkout.
        self._open: dict[int, list[str]] = {}

    @property
    def statements(self) -> list[Statement]:
        """The statements that are kept, without the ends of transactions."""
        return [entry for entry in self._entries if isinstance(entry, Statement)]

    @property
    def seconds(self) -> float:
        """What all statements took together."""
        return self._seconds + sum(statement.seconds for statement in self.statements)

    def between(self, first: int, last: int) -> list[Statement]:
        """The statements after the number *first*, up to *last*, as far as they are kept."""
        kept = self.statements
        gone = self.number - len(kept)
        return kept[max(0, first - gone) : max(0, last - gone)]

    def add(self, statement: Statement, parameters: Any) -> None:
        self.number += 1
        self._parameters.append((self.number, parameters))
        self._entries.append(statement)
        self._characters += len(statement.sql)
        entries = self._entries
        while (len(entries) > _MOST or self._characters > _CHARACTERS) and len(entries) > 1:
            self._forget(entries.popleft())

    def ended(self, how: str, checkout: int) -> None:
        """A transaction has ended: ``COMMIT`` or ``ROLLBACK``. Nothing may have run in it."""
        end = End(how, checkout)
        last = self._entries[-1] if self._entries else end
        if isinstance(last, Statement) or last.checkout != checkout:
            self._entries.append(end)

    def steps(self) -> list[Step]:
        """What is kept, in order, with the beginnings and depths of transactions."""
        entries, steps = list(self._entries), []
        open_ = {checkout: list(names) for checkout, names in self._open.items()}
        parameters = dict(self._parameters)
        number = self.number - sum(isinstance(entry, Statement) for entry in entries)
        for entry in entries:
            checkout = entry.checkout
            if isinstance(entry, End):
                if entry.checkout in open_:
                    steps.append(Step(0, entry.how, 0, checkout))
                _follow(open_, entry)
                continue
            number += 1
            depth = 0
            if checkout is None:
                pass
            elif checkout not in open_:
                steps.append(Step(0, "BEGIN", 0, checkout))
            else:
                depth = 1 + len(open_[checkout])
            _follow(open_, entry)
            if checkout is not None:  # SAVEPOINT and what ends it stand outside of it
                depth = min(depth or 1, 1 + len(open_[checkout]))
            steps.append(Step(number, entry, depth, checkout, parameters.get(number)))
        return steps

    def running(self, checkout: int | None) -> list[Step]:
        """The statements of a connection's open transaction; None: all that are kept."""
        found: list[Step] = []
        for step in self.steps():
            if checkout is not None and step.checkout != checkout:
                continue
            if step.number:
                found.append(step)
            elif checkout is not None and step.entry != "BEGIN":
                found.clear()
        return found

    def _forget(self, entry: Statement | End) -> None:
        _follow(self._open, entry)
        if isinstance(entry, Statement):
            self._seconds += entry.seconds
            self._characters -= len(entry.sql)
            text = entry.sql[:_TEXT]
            if text not in self.forgotten and len(self.forgotten) >= _TEXTS:
                text = ""  # any other
            self.forgotten[text] += 1


def _follow(open_: dict[int, list[str]], entry: Statement | End) -> None:
    """Keep the savepoints of open transactions, by checkout, up to date."""
    if isinstance(entry, End):
        open_.pop(entry.checkout, None)
        return
    if entry.checkout is None:
        return
    names = open_.setdefault(entry.checkout, [])
    match = _SAVEPOINT.match(entry.sql) if entry.error is None else None
    if match is None:
        return
    word, name = match[1].lower(), match[2]
    if word == "savepoint":
        names.append(name)
    elif name in names:
        # SQLAlchemy is done with a savepoint that it rolls back to; SQL is not.
        kept = word == "rollback" and "sa_savepoint_" not in name
        del names[names.index(name) + kept :]
