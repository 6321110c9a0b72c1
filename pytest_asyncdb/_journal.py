"""The statements of one test, in order, as they were run. Reads, never acts.

It is on the path of every statement: what costs time, such as a place in words, is made when
somebody wants to see it.
"""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any

#: Of so many statements, the last ones, the parameters are kept.
_KEPT = 50
#: A line of code, not yet in words: the file, the line's number, the function.
Place = tuple[str, int, str]


def line_of(place: Place) -> str:
    """As a user would write it: from the current folder, if the file is below."""
    path, number, name = place
    here = os.getcwd() + os.sep  # noqa: PTH109  # a string is all that is needed
    return f"{path.removeprefix(here)}:{number} in {name}"


@dataclasses.dataclass(frozen=True, slots=True)
class Statement:
    """A statement that the application has run.

    Args:
        sql: Its text as the driver got it.
        rows: How many rows it gave or changed, as far as the driver tells at once; else None.
        seconds: From the call to the driver until its answer; waiting for a turn included.
        many: It ran once for each of several sets of parameters.
        error: The name of the class of what the driver raised.
        places: Lines of the user's code that led to it, the innermost first.
    """

    sql: str
    rows: int | None
    seconds: float
    many: bool = False
    error: str | None = None
    places: Sequence[Place] = ()


class Journal:
    """What the engines of one test have run."""

    def __init__(self) -> None:
        #: All of them; a text stands for the end of a transaction.
        self.entries: list[Statement | str] = []
        self._parameters: collections.deque[tuple[int, Any]] = collections.deque(maxlen=_KEPT)

    @property
    def statements(self) -> list[Statement]:
        """The statements, without the ends of transactions."""
        return [entry for entry in self.entries if isinstance(entry, Statement)]

    def add(self, statement: Statement, parameters: Any) -> None:
        self._parameters.append((len(self.entries), parameters))
        self.entries.append(statement)

    def ended(self, how: str) -> None:
        """A transaction has ended: ``COMMIT`` or ``ROLLBACK``; unless nothing ran in it."""
        if self.entries and isinstance(self.entries[-1], Statement):
            self.entries.append(how)

    def latest(self, number: int) -> Iterator[tuple[int, Statement | str, Any]]:
        """The last so many entries, each with its number and its parameters."""
        parameters = dict(self._parameters)
        first = max(0, len(self.entries) - number)
        for index in range(first, len(self.entries)):
            yield index + 1, self.entries[index], parameters.get(index)
