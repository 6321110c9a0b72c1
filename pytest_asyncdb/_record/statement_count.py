"""How many statements a block runs: ``with asyncdb.count(max=2):``."""

from __future__ import annotations

import collections
import contextlib
import textwrap

from pytest_asyncdb._record import messages
from pytest_asyncdb._record.redaction import masked
from pytest_asyncdb._record.statement_log import Place, Statement, StatementLog

#: So many equal statements from one line are taken for a load per row.
_MANY = 3
#: 80 columns without what pytest writes before the lines of an error.
_WIDTH = 72


class Count:
    """What ``asyncdb.count()`` gives: the statements since it was entered."""

    def __init__(self, journal: StatementLog) -> None:
        self._journal = journal
        self._first = journal.number
        self._after: int | None = None

    @property
    def statements(self) -> list[Statement]:
        """The statements so far, or until the block's end; of very many the last ones."""
        return self._journal.between(self._first, self._last)

    @property
    def _last(self) -> int:
        return self._journal.number if self._after is None else self._after

    def __len__(self) -> int:
        return self._last - self._first

    def end(self) -> None:
        """What comes from now on does not count."""
        self._after = self._journal.number


class Counting(contextlib.AbstractContextManager[Count]):
    """Counts, and compares at the end, unless the block failed.

    Not a generator: pytest shows the user's line for the error then, and not ours.

    Args:
        most: More make the end raise AssertionError.
        least: So do fewer.
    """

    def __init__(self, journal: StatementLog, most: int | None, least: int | None) -> None:
        self._journal = journal
        self._most = most
        self._least = least

    def __enter__(self) -> Count:
        self._count = Count(self._journal)
        return self._count

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        __tracebackhide__ = True
        self._count.end()
        number, most, least = len(self._count), self._most, self._least
        wrong = (most is not None and number > most) or (least is not None and number < least)
        if wrong and kind is None:
            grouped = _grouped(self._count)
            raise AssertionError(messages.statement_count(number, most, least, grouped))


def _grouped(count: Count) -> list[str]:
    """The statements, equal ones in one line, the most frequent first."""
    kept = count.statements
    groups: collections.Counter[tuple[str, Place | None]] = collections.Counter(
        (masked(s.sql)[0], s.places[0] if s.places else None) for s in kept
    )
    left = len(count) - len(kept)
    lines = [f"{left:>4} before these, which are not kept"] if left else []
    for (sql, place), number in groups.most_common():
        lines += textwrap.wrap(
            f"{number:>4} × {_short(sql)}",
            _WIDTH,
            subsequent_indent="       ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        if place is not None:
            lines.append(f"       {place[0].rpartition('/')[2]}:{place[1]} in {place[2]}")
        if number >= _MANY and sql.lstrip("( ").upper().startswith("SELECT"):
            lines.append("       one for each row? load them with the rows: selectinload() for a")
            lines.append("       collection, joinedload() for a single object")
    return lines


def _short(sql: str) -> str:
    return sql if len(sql) <= 200 else f"{sql[:200]}…"
