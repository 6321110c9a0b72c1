"""The statements of a log as lines of a report."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_asyncdb._record import text
from pytest_asyncdb._record.statement_log import Step, line_of

#: Characters of a statement or of its parameters, and of one value.
_LONG, _VALUE = 600, 60


def step_lines(
    step: Step, connections: Mapping[int | None, str], hidden: bool, short: bool
) -> list[str]:
    """Return the lines of one entry of the log, indented by its depth: one line if that is enough.

    Args:
        connections: Names of connections by their numbers; empty: they are not shown.
        hidden: Leave the parameters out.
        short: Cut the statement in the middle so that the entry takes two lines.
    """
    entry = step.entry
    first = f"{step.number or '':>4}  " + "  " * step.depth
    where = [connections[step.checkout]] if step.checkout in connections else []
    if isinstance(entry, str):
        return [first + " -- ".join([entry, *where])]
    indent = " " * len(first)
    sql, secret = text.masked(entry.sql)
    shown = text.cut_middle(sql, _LONG)
    if step.parameters and not hidden:
        shown += " " + text.cut_middle(_parameters(step.parameters, secret, entry.many), _LONG)
    facts = [text.duration(entry.seconds), *where]
    if entry.error is not None:
        facts.insert(0, entry.error)
    if entry.rows is not None:
        facts.insert(0, text.counted(entry.rows, "row"))
    if entry.places:
        facts.append(line_of(entry.places[0]).partition(" in ")[0])
    end = f"-- {', '.join(facts)}"
    if short:  # two lines at most, unless the path is long
        shown = text.cut_middle(shown, 2 * (text.WIDTH - len(first)) - len(end) - 20)
    lines = text.wrap(shown, first, break_words=short)
    if len(lines[-1]) + 1 + len(end) <= text.WIDTH:
        lines[-1] += f" {end}"
        return lines
    return lines + text.wrap(end, indent)


def _parameters(parameters: Any, secret: bool, many: bool) -> str:
    if many:
        first = _parameters(parameters[0], secret, many=False) if parameters else ""
        return f"{len(parameters)} × {first}"
    if isinstance(parameters, Mapping):
        named = (
            f"{name}={value_text(value, secret or text.has_secret(str(name)))}"
            for name, value in parameters.items()
        )
        return f"[{', '.join(named)}]"
    if isinstance(parameters, Sequence):
        return f"[{', '.join(value_text(value, secret) for value in parameters)}]"
    return value_text(parameters, secret)


def value_text(value: Any, secret: bool) -> str:
    """Return *value* as in SQL, dates and times in ISO form, else its ``repr()``; shortened.

    Args:
        secret: Mask the value if it is text. Text that names a secret, such as JSON with a
            password, is masked in any case.
    """
    if isinstance(value, str | bytes | bytearray) and (secret or text.has_secret(str(value))):
        return "***"
    try:
        if isinstance(value, datetime.date | datetime.time):
            return value.isoformat()
        exact = isinstance(value, decimal.Decimal | uuid.UUID)
        return text.cut_middle(str(value) if exact else repr(value), _VALUE)
    except Exception as error:  # __repr__ of the user's own type
        return f"<{type(value).__name__}: {type(error).__name__} in repr()>"
