"""Counts the statements of a block: ``with asyncdb.count(max=2):``."""

from __future__ import annotations

import collections
from typing import Self

from pytest_asyncdb._record.sql_text import only_queries
from pytest_asyncdb._record.statement_log import Place, Statement, StatementLog, line_of
from pytest_asyncdb._record.text import counted, cut, masked, wrap

#: From this number on, equal queries from one line of code look like one query per row.
_MANY = 3
#: 80 columns without the prefix that pytest writes before the lines of an error.
_WIDTH = 72
_INDENT = " " * 7


class Count:
    """Counts the statements of a block, and checks the number at its end unless the block failed.

    It is a class, not a generator, so that pytest shows the user's line for the error.

    Args:
        most: If there are more statements, the end raises AssertionError.
        least: If there are fewer statements, it does, too.
    """

    def __init__(self, log: StatementLog, most: int | None, least: int | None) -> None:
        self._log = log
        self._most = most
        self._least = least
        self._first = log.number
        self._after: int | None = None

    @property
    def statements(self) -> list[Statement]:
        """The statements so far, or until the block's end; at most the last 10,000 of the test."""
        return self._log.between(self._first, self._first + len(self))

    def __len__(self) -> int:
        return (self._log.number if self._after is None else self._after) - self._first

    def __enter__(self) -> Self:
        self._first = self._log.number
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._after = self._log.number
        number, most, least = len(self), self._most, self._least
        too_many = most is not None and number > most
        if kind is None and (too_many or (least is not None and number < least)):
            allowed = f"at most {most}" if too_many else f"at least {least}"
            first = f"{counted(number, 'statement')}, {allowed} expected"
            raise AssertionError("\n".join([first, *_grouped(self)]))


def _grouped(count: Count) -> list[str]:
    """Return lines about the statements, equal ones in one entry, the most frequent first."""
    kept = count.statements
    groups: collections.Counter[tuple[str, Place | None]] = collections.Counter(
        (masked(s.sql)[0], s.places[0] if s.places else None) for s in kept
    )
    missing = len(count) - len(kept)
    lines = [f"{missing:>4} before these, which are not kept"] if missing else []
    for (sql, place), number in groups.most_common():
        lines += wrap(f"{number:>4} × {cut(sql, 200)}", "", _INDENT, _WIDTH)
        if place is not None:
            lines.append(_INDENT + line_of(place))
        if number >= _MANY and only_queries(sql):
            advice = (
                "one for each row? load them with the rows: "
                "selectinload() for a collection, joinedload() for a single object"
            )
            lines += wrap(advice, _INDENT, width=_WIDTH)
    return lines
