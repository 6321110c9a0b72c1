"""The rows that a failed test has inserted, updated and deleted, by table."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_asyncdb import errors
from pytest_asyncdb._record import row_changes
from pytest_asyncdb._record.row_changes import Row
from pytest_asyncdb._record.sql_text import only_reads
from pytest_asyncdb._record.statement_text import value_text
from pytest_asyncdb._record.text import has_secret, wrap
from pytest_asyncdb._run.run import Run
from pytest_asyncdb.abc import View

#: Number of rows of a table that are shown.
_SHOWN = 10
#: Tables with more rows are not compared, nor are tables that are reached after this many seconds.
_MOST, _SECONDS = 5000, 5.0


def of_failure(
    view: View, run: Run, room: int | None, told: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    """Yield title and text of the section; nothing for a test that only read.

    Args:
        room: Number of lines; None: no limit.
        told: The number of INSERTs that the report shows, by table. Their rows are only counted.
    """
    log = view.log
    kept = log.statements
    if len(kept) == log.number and all(only_reads(statement.sql) for statement in kept):
        return
    try:
        lines = _look(view, run, told)
    except errors.AsyncdbError:
        return  # no untouched database, or no connection left
    except Exception as error:
        message = str(error).partition("\n")[0]
        lines = wrap(f"they could not be read: {type(error).__name__}: {message}")
    if room is not None and len(lines) > room:
        tables = [line for line in lines if not line.startswith(" ")]
        lines = [*tables[: room - 1], "the rows: --asyncdb-sql=all"]
    if lines:
        yield "asyncdb: changed rows", "\n".join(lines)


def _look(view: View, run: Run, told: Mapping[str, int]) -> list[str]:
    read = functools.partial(row_changes.read_tables, most=_MOST, seconds=_SECONDS)
    after = view.read(read)
    if after is None:
        return []
    reference = view.reference()
    if reference not in run.untouched:
        run.untouched[reference] = run.host.run(row_changes.read_untouched(reference, read))
    before = run.untouched[reference]
    shown = 0 if view.log.hidden else _SHOWN  # else rows are only counted
    lines = []
    for table, rows_of in row_changes.differences(before, after).items():
        counts = {word: len(getattr(rows_of, word)) for word in ("inserted", "updated", "deleted")}
        lines.append(f"{table}: {', '.join(f'{n} {word}' for word, n in counts.items() if n)}")
        known = told.get(table.rpartition(".")[2], 0) >= len(rows_of.inserted)
        rows = [
            *(("  + ", _row(row)) for row in rows_of.inserted if not known),
            *(("  ~ ", _update(*rows)) for rows in rows_of.updated),
            *(("  - ", _row(row)) for row in rows_of.deleted),
        ]
        for sign, text in rows[:shown]:
            lines += wrap(text, sign)
        if len(rows) > shown > 0:
            lines.append(f"  and {len(rows) - shown} more")
    if not lines:
        seen = "committed " if view.independent else ""
        lines.append(f"no {seen}row differs from an untouched database")
    for table, why in row_changes.left_out(before, after).items():
        lines += wrap(f"{table}: not compared: {why}")
    return lines


def _row(row: Row) -> str:
    return ", ".join(f"{name}={_value(name, value)}" for name, value in row.items())


def _update(before: Row, after: Row) -> str:
    """Return the first column, which identifies the row, and the columns that differ."""
    changed = [name for name in after if repr(before.get(name)) != repr(after[name])]
    cells = [f"{n}={_value(n, before.get(n))} -> {_value(n, after[n])}" for n in changed]
    if (first := next(iter(after))) not in changed:
        cells.insert(0, _row({first: after[first]}))
    return ", ".join(cells)


def _value(name: str, value: Any) -> str:
    return value_text(value, has_secret(name))
