"""What a failed test's report shows: its statements, in the order in which they ran."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_asyncdb._journal import Journal, Statement, line_of
from pytest_asyncdb.reports import _hints

#: So many entries are shown; how many were before them is said.
_SHOWN = 20
#: Characters of a statement, and of one parameter.
_LONG, _VALUE = 600, 60
_WIDTH = 80
_LITERAL = re.compile(r"'(?:[^']|'')*'")
#: A statement that names one of these may carry a secret among its texts.
_SECRET = re.compile(r"passw|pwd|secret|token|api_?key|credential", re.IGNORECASE)


def of_failure(error: BaseException, ran: tuple[Journal, str] | None) -> Iterator[tuple[str, str]]:
    """Titles and texts of the sections for a failed test.

    Args:
        ran: What it has run, and where; None: it is no database test, or did not get that far.
    """
    if ran is not None and ran[0].entries:
        yield "asyncdb: SQL", statements(*ran)
    if (hint := _hints.find(error)) is not None:
        yield "asyncdb: hint", _hints.render(hint)


def statements(journal: Journal, where: str) -> str:
    """The text of the section.

    Args:
        where: Backend and strategy.
    """
    number = len(journal.statements)
    seconds = sum(statement.seconds for statement in journal.statements)
    left = len(journal.entries) - _SHOWN
    head = f"{where}: {number} statement{'s' * (number != 1)}, {_milliseconds(seconds)}"
    lines = [head + (f"; the last {_SHOWN} of {len(journal.entries)} lines" if left > 0 else "")]
    for index, entry, parameters in journal.latest(_SHOWN):
        lines += _entry(f"{index:>4}  ", entry, parameters)
    return "\n".join(lines)


def _entry(number: str, entry: Statement | str, parameters: Any) -> list[str]:
    if isinstance(entry, str):
        return [number + entry]
    sql = " ".join(entry.sql.split())
    secret = _SECRET.search(sql) is not None
    if secret:
        sql = _LITERAL.sub("'***'", sql)
    lines = _wrap(_cut(sql, _LONG), number)
    if parameters:
        lines += _wrap(_cut(_parameters(parameters, secret, entry.many), _LONG), "      ")
    facts = [_milliseconds(entry.seconds)]
    if entry.rows is not None:
        facts.insert(0, f"{entry.rows} row{'s' * (entry.rows != 1)}")
    if entry.places:
        facts.append(line_of(entry.places[0]))
    lines += _wrap(f"-- {', '.join(facts)}", "      ")
    if entry.error is not None:
        lines += _wrap(f"-- {entry.error}", "      ")
    return lines


def _parameters(parameters: Any, secret: bool, many: bool) -> str:
    if many:
        first = _parameters(parameters[0], secret, many=False) if parameters else ""
        return f"{len(parameters)} × {first}"
    if isinstance(parameters, Mapping):
        named = (
            f"{name}={_value(value, secret or _SECRET.search(str(name)) is not None)}"
            for name, value in parameters.items()
        )
        return f"[{', '.join(named)}]"
    if isinstance(parameters, Sequence):
        return f"[{', '.join(_value(value, secret) for value in parameters)}]"
    return _value(parameters, secret)


def _value(value: Any, secret: bool) -> str:
    if isinstance(value, str | bytes | bytearray) and (secret or _SECRET.search(str(value))):
        return "***"  # a text may be JSON that names one
    try:
        return _cut(repr(value), _VALUE)
    except Exception as error:  # the user's own type
        return f"<{type(value).__name__}: {type(error).__name__} in repr()>"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def _wrap(text: str, before: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=before,
        subsequent_indent=" " * 6,
        break_long_words=False,
        break_on_hyphens=False,
    )
