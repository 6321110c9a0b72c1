"""What a failed test's report shows: its statements, in the order in which they ran.

The last ones in full, as deep as they stand in transactions; before them equal ones together.
"""

from __future__ import annotations

import collections
import itertools
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_asyncdb._record.redaction import SECRET, masked, without_texts
from pytest_asyncdb._record.statement_log import StatementLog, Step, line_of
from pytest_asyncdb.reports import hints

#: So many statements are shown in full; before them so many runs of equal ones; of what was
#: before these, so many texts with their numbers.
_SHOWN, _RUNS, _TEXTS = 20, 10, 5
#: Characters of a statement that is not shown in full.
_SHORT = 200
#: So many statements of a transaction that others wait for, and so many such waits.
_RAN, _WAITS = 5, 3
#: Characters of a statement, and of one parameter.
_LONG, _VALUE = 600, 60
_WIDTH = 80
#: The title of the section with a hint.
HINT = "asyncdb: hint"
_ENDS = ("COMMIT", "ROLLBACK")


def of_failure(
    error: BaseException, ran: tuple[StatementLog, str] | None
) -> Iterator[tuple[str, str]]:
    """Titles and texts of the sections for a failed test.

    Args:
        ran: What it has run, and where; None: it is no database test, or did not get that far.
    """
    if ran is not None and ran[0].number:
        yield "asyncdb: SQL", statements(*ran)
    for text in ran[0].waits[-_WAITS:] if ran is not None else ():
        yield "asyncdb: locks", text
    if (hint := hints.find(error)) is not None:
        yield HINT, hints.render(hint)


def statements(journal: StatementLog, where: str) -> str:
    """The text of the section.

    Args:
        where: Backend and strategy.
    """
    number = journal.number
    lines = [f"{where}: {number} statement{'s' * (number != 1)}, {_milliseconds(journal.seconds)}"]
    steps = journal.steps()
    if number > _SHOWN:
        first = _first_in_full(steps)
        earlier, steps = steps[:first], steps[first:]
        shown = sum(step.number > 0 for step in steps)
        lines.append(f"Before the last {shown}, equal ones together:")
        lines += _earlier(journal, earlier)
        lines.append(f"The last {shown}:")
    connections = _connections(steps)
    for step in steps:
        lines += _entry(step, connections, journal.hidden)
    return "\n".join(lines)


def last_of(ran: Sequence[Step], hidden: bool) -> list[str]:
    """The last statements of a transaction, numbered as in the section.

    Args:
        hidden: Without their parameters.
    """
    lines = ["      …"] if len(ran) > _RAN else []
    for step in ran[-_RAN:]:
        lines += _entry(step._replace(depth=0), {}, hidden)
    return lines


def _first_in_full(steps: Sequence[Step]) -> int:
    """The index of the first step that is shown in full; a BEGIN goes with what is in it."""
    statements = [index for index, step in enumerate(steps) if step.number]
    first = statements[-_SHOWN:][0]
    return first - 1 if first and steps[first - 1].entry == "BEGIN" else first


def _earlier(journal: StatementLog, steps: Sequence[Step]) -> Iterator[str]:
    """Equal statements together, with the end of their transaction where that comes next."""
    runs: list[tuple[int, str, int]] = []
    for step, after in itertools.zip_longest(steps, steps[1:]):
        if isinstance(step.entry, str):
            continue
        text = _short(masked(step.entry.sql)[0])
        if step.entry.error is not None:
            text += f" -- {step.entry.error}"
        if after and after.entry in _ENDS and after.checkout == step.checkout:
            text += f"; {after.entry}"
        if runs and runs[-1][1] == text:
            runs[-1] = (*runs[-1][:2], runs[-1][2] + 1)
        else:
            runs.append((step.number, text, 1))
    texts: collections.Counter[str] = collections.Counter()
    for sql, count in journal.forgotten.items():
        texts[_short(without_texts(" ".join(sql.split())))] += count
    for _, text, count in runs[:-_RUNS]:
        texts[text] += count
    others = texts.pop("", 0)
    for text, count in texts.most_common(_TEXTS):
        yield from wrap(f"{count} × {text}", "      ")
    if others := others + sum(count for _, count in texts.most_common()[_TEXTS:]):
        yield f"      {others} others"
    for number, text, count in runs[-_RUNS:]:
        yield from wrap(f"{count} × " * (count > 1) + text, f"{number:>4}  ")


def _connections(steps: Sequence[Step]) -> dict[int | None, str]:
    """What connections are called, by number, where several have open transactions at once."""
    names: dict[int | None, str] = {}
    open_: set[int] = set()
    several = False
    for step in steps:
        if step.checkout is None:
            continue
        names.setdefault(step.checkout, f"connection {len(names) + 1}")
        open_.add(step.checkout)
        if step.entry in _ENDS:
            open_.remove(step.checkout)
        several = several or len(open_) > 1
    return names if several else {}


def _entry(step: Step, connections: Mapping[int | None, str], hidden: bool) -> list[str]:
    entry = step.entry
    before = f"{step.number or '':>4}  " + "  " * step.depth
    where = [connections[step.checkout]] if step.checkout in connections else []
    if isinstance(entry, str):
        return [before + " -- ".join([entry, *where])]
    sql, secret = masked(entry.sql)
    lines = wrap(_cut(sql, _LONG), before)
    indent = " " * len(before)
    if step.parameters and not hidden:
        lines += wrap(_cut(_parameters(step.parameters, secret, entry.many), _LONG), indent)
    facts = [_milliseconds(entry.seconds), *where]
    if entry.rows is not None:
        facts.insert(0, f"{entry.rows} row{'s' * (entry.rows != 1)}")
    if entry.places:
        facts.append(line_of(entry.places[0]))
    lines += wrap(f"-- {', '.join(facts)}", indent)
    if entry.error is not None:
        lines += wrap(f"-- {entry.error}", indent)
    return lines


def _short(text: str) -> str:
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"


def _parameters(parameters: Any, secret: bool, many: bool) -> str:
    if many:
        first = _parameters(parameters[0], secret, many=False) if parameters else ""
        return f"{len(parameters)} × {first}"
    if isinstance(parameters, Mapping):
        named = (
            f"{name}={value_of(value, secret or SECRET.search(str(name)) is not None)}"
            for name, value in parameters.items()
        )
        return f"[{', '.join(named)}]"
    if isinstance(parameters, Sequence):
        return f"[{', '.join(value_of(value, secret) for value in parameters)}]"
    return value_of(parameters, secret)


def value_of(value: Any, secret: bool) -> str:
    """A value, not too long; a text that is *secret*, or names something that is, is masked."""
    if isinstance(value, str | bytes | bytearray) and (secret or SECRET.search(str(value))):
        return "***"  # a text may be JSON that names one
    try:
        return _cut(repr(value), _VALUE)
    except Exception as error:  # the user's own type
        return f"<{type(value).__name__}: {type(error).__name__} in repr()>"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def wrap(text: str, before: str, after: str | None = None) -> list[str]:
    """Lines of 80 columns.

    Args:
        before: What the first line begins with.
        after: What the other ones begin with; None: as much space.
    """
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=before,
        subsequent_indent=" " * len(before) if after is None else after,
        break_long_words=False,
        break_on_hyphens=False,
    )
