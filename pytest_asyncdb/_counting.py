"""How many statements a block runs: ``with asyncdb.count(max=2):``."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterator

from pytest_asyncdb import errors
from pytest_asyncdb._journal import Journal, Place, Statement

#: So many equal statements from one line are taken for a load per row.
_MANY = 3


class Count:
    """What ``asyncdb.count()`` gives: the statements since it was entered."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._first = len(journal.statements)
        self._after: int | None = None

    @property
    def statements(self) -> list[Statement]:
        """The statements so far, or until the block's end."""
        return self._journal.statements[self._first : self._after]

    def __len__(self) -> int:
        return len(self.statements)

    def end(self) -> None:
        """What comes from now on does not count."""
        self._after = len(self._journal.statements)


@contextlib.contextmanager
def counting(journal: Journal, most: int | None, least: int | None) -> Iterator[Count]:
    """Count, and compare at the end, unless the block failed.

    Raises:
        AssertionError: There were more than *most*, or fewer than *least*.
    """
    count = Count(journal)
    try:
        yield count
    finally:
        count.end()
    number = len(count)
    if (most is not None and number > most) or (least is not None and number < least):
        raise AssertionError(errors.statement_count(number, most, least, _grouped(count)))


def _grouped(count: Count) -> list[str]:
    """The statements, equal ones in one line, the most frequent first."""
    groups: collections.Counter[tuple[str, Place | None]] = collections.Counter(
        (" ".join(s.sql.split()), s.places[0] if s.places else None) for s in count.statements
    )
    lines = []
    for (sql, place), number in groups.most_common():
        lines.append(f"{number:>4} × {_short(sql)}")
        if place is not None:
            lines.append(f"       {place[0].rpartition('/')[2]}:{place[1]} in {place[2]}")
        if number >= _MANY and sql.lstrip("( ").upper().startswith("SELECT"):
            lines.append("       one for each row? load them with the rows: selectinload() for a")
            lines.append("       collection, joinedload() for a single object")
    return lines


def _short(sql: str) -> str:
    return sql if len(sql) <= 200 else f"{sql[:200]}…"
