"""What a failed test has changed: rows inserted, updated and deleted, by table."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_asyncdb import errors
from pytest_asyncdb._record import row_changes
from pytest_asyncdb._record.redaction import SECRET
from pytest_asyncdb.reports.sections import value_of, wrap

if TYPE_CHECKING:
    from pytest_asyncdb._record.row_changes import Row, TableChanges
    from pytest_asyncdb._run.run import Run
    from pytest_asyncdb.abc import View

#: So many rows of a table are shown.
_SHOWN = 10
#: A table with more rows is not compared, nor are those that come after so many seconds.
_MOST, _SECONDS = 5000, 5.0


def of_failure(view: View, run: Run) -> Iterator[tuple[str, str]]:
    """Title and text of the section; nothing for a test that has only read."""
    ran = [statement.sql for statement in view.journal.statements]
    if not any(_may_write(sql) for sql in (*ran, *view.journal.forgotten)):
        return
    try:
        text = _look(view, run)
    except errors.AsyncdbError:
        return  # there is no untouched database, or no room for another connection
    except Exception as error:
        words = str(error).partition("\n")[0]
        text = "\n".join(wrap(f"they could not be read: {type(error).__name__}: {words}", ""))
    if text:
        yield "asyncdb: changed rows", text


def _look(view: View, run: Run) -> str:
    read = functools.partial(
        row_changes.read_small_tables, most=_MOST, until=time.monotonic() + _SECONDS
    )
    after = view.read(read)
    if after is None:
        return ""
    reference = view.reference()
    if reference not in run.untouched:
        run.untouched[reference] = run.host.run(row_changes.read_untouched(reference, read))
    before = run.untouched[reference]
    both = [
        name
        for name in {*before, *after}
        if None not in (before.get(name, ()), after.get(name, ()))
    ]
    left_out = sorted({*before, *after}.difference(both))
    found = row_changes.differences(
        {name: before[name] for name in both if name in before},
        {name: after[name] or {} for name in both if name in after},
    )
    seen = "committed " if view.independent else ""
    return render(found, left_out, seen, 0 if view.journal.hidden else _SHOWN)


def render(
    changes: Mapping[str, TableChanges], left_out: Sequence[str], seen: str, shown: int
) -> str:
    """The text of the section.

    Args:
        left_out: Tables that were not compared.
        seen: Which rows: ``committed``, or all.
        shown: So many rows of a table are shown; 0: they are only counted.
    """
    lines = []
    for table, of_table in changes.items():
        counts = (
            ("inserted", of_table.inserted),
            ("updated", of_table.updated),
            ("deleted", of_table.deleted),
        )
        lines.append(f"{table}: {', '.join(f'{len(r)} {word}' for word, r in counts if r)}")
        rows = [
            *(("  + ", _row(row)) for row in of_table.inserted),
            *(("  ~ ", _update(*rows)) for rows in of_table.updated),
            *(("  - ", _row(row)) for row in of_table.deleted),
        ]
        for before, text in rows[:shown]:
            lines += wrap(text, before)
        if len(rows) > shown > 0:
            lines.append(f"  and {len(rows) - shown} more")
    if not lines:
        lines.append(f"no {seen}row differs from an untouched database")
    if left_out:
        lines += wrap(f"not compared, too large or too many: {', '.join(left_out)}", "")
    return "\n".join(lines)


def _row(row: Row) -> str:
    return ", ".join(f"{name}={_value(name, value)}" for name, value in row.items())


def _update(before: Row, after: Row) -> str:
    """The first column, which tells the row, and those that differ."""
    words = []
    for number, (name, value) in enumerate(after.items()):
        if before.get(name) != value:
            was = _value(name, before.get(name))
            words.append(f"{name}={was} -> {_value(name, value)}")
        elif number == 0:
            words.append(f"{name}={_value(name, value)}")
    return ", ".join(words)


def _value(name: str, value: Any) -> str:
    return value_of(value, SECRET.search(name) is not None)


def _may_write(sql: str) -> bool:
    return not sql.lstrip("( \n\t").upper().startswith("SELECT")
