"""What a database test's report carries to the controller: plain JSON values.

Cheap for tests that pass: two texts. Nothing here asks a database.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pytest_asyncdb._record.redaction import SECRET
from pytest_asyncdb._record.statement_log import Statement, StatementLog
from pytest_asyncdb.reports import values as value_kinds

if TYPE_CHECKING:
    from pytest_asyncdb.abc import BackendSpec

#: Characters of a message, a statement, a value.
_LONG = 300
#: Characters of a message that are looked at.
_LOOKED_AT = 10_000
#: So many of the last statements' parameters are looked at.
_LOOKED_BACK = 50
_PASSWORD = re.compile(r"(://[^:/@\s]*:)[^\s]+@")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


def compared(operator: str, left: Any, right: Any) -> dict[str, Any]:
    """What a failed comparison had on both sides."""
    return {
        "kind": value_kinds.kind(operator, left, right),
        "operator": operator,
        "left": _repr(left),
        "right": _repr(right),
        "twins": value_kinds.twins([left, right]),
    }


def state_of(
    nodeid: str,
    spec: BackendSpec | str,
    error: BaseException | None,
    values: dict[str, Any] | None,
    journal: StatementLog | None,
) -> dict[str, Any]:
    """The attribute ``asyncdb`` of a report; its form is in docs/howto/matrix.md.

    Args:
        error: What the test failed with, if it did.
        values: What :func:`compared` said of the last comparison.
        journal: What the test has run.
    """
    word = spec if isinstance(spec, str) else spec.id
    outcome: dict[str, Any] = {"backend": str(spec), "test": without(nodeid, word)}
    if error is not None:
        outcome["error"] = _failure(error, values, journal)
    return outcome


def without(nodeid: str, word: str) -> str:
    """A test's id without its backend's word, which is the first of its parameters."""
    name, bracket, parameters = nodeid.partition("[")
    if not bracket:
        return nodeid
    rest = f"-{parameters.removesuffix(']')}-".replace(f"-{word}-", "-", 1)[1:-1]
    return f"{name}[{rest}]" if rest else name


def _failure(
    error: BaseException, values: dict[str, Any] | None, journal: StatementLog | None
) -> dict[str, Any]:
    text = _text(error)
    if not isinstance(error, AssertionError) or (values and values["operator"] not in text):
        values = None
    statement, code = None, None
    for found in _chain(error):
        if hasattr(found, "orig") and hasattr(found, "statement"):  # SQLAlchemy's
            statement, code = found.statement, _code(found.orig)
            break
    last = next(_backwards(journal), None)
    if statement is None and last is not None:
        statement = last.sql
    signs = _signs(values, journal, last)
    # SQLite's "unrecognized token" is none.
    hide = SECRET.search(f"{text} {statement}".replace("unrecognized token", "")) is not None
    if values:
        both = {side: _safe(values[side], hide) for side in ("left", "right")}
        values = {"kind": values["kind"], "operator": values["operator"], **both}
    return {
        "type": _name(type(error)),
        "message": _safe(text, hide),
        "code": code,
        "statement": None if statement is None else _safe(" ".join(statement.split()), hide),
        "values": values,
        "signs": signs,
    }


def _text(error: BaseException) -> str:
    """The first line; what pytest writes below ``assert False`` belongs to it."""
    lines = (str(error)[:_LOOKED_AT] or type(error).__name__).strip().splitlines()
    where = (line.strip(" +") for line in lines[1:] if line.strip().startswith("+  where "))
    return " ".join([*lines[:1], *list(where)[:1]])


def _signs(
    values: dict[str, Any] | None, journal: StatementLog | None, last: Statement | None
) -> list[str]:
    if journal is None or last is None:
        return []
    signs = []
    ran = [step for step in journal.steps() if step.entry != "BEGIN"][-_LOOKED_BACK:]
    if (values and values["twins"]) or value_kinds.twins([step.parameters for step in ran]):
        signs.append("twins")
    entries = [step.entry for step in ran]
    reads = [n for n, e in enumerate(entries) if isinstance(e, Statement) and e.sql == last.sql]
    between = entries[reads[0] : reads[-1]] if reads else []
    if last.sql.lstrip()[:6].upper() == "SELECT" and "COMMIT" in between:
        signs.append("read again")
    return signs


def _backwards(journal: StatementLog | None) -> Iterator[Statement]:
    if journal is not None:
        yield from reversed(journal.statements)


def _chain(error: BaseException) -> Iterator[Any]:
    """The exception and what led to it, as a traceback shows them."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        if isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        else:
            found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def _code(error: Any) -> str | None:
    """The server's number, which says more than MySQL's SQLSTATE; else that, or SQLite's name."""
    first = next(iter(getattr(error, "args", ())), None)
    if isinstance(first, int):
        return str(first)
    states = (getattr(error, name, None) for name in ("sqlstate", "sqlite_errorname"))
    return next((state for state in states if isinstance(state, str)), None)


def _name(cls: type) -> str:
    return cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}"


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # the user's own type
        return f"<{type(value).__name__}: {type(error).__name__} in repr()>"


def _safe(text: str, hide: bool) -> str:
    """*text* without passwords, cut; every quoted text may be a secret where *hide* says so."""
    text = _PASSWORD.sub(r"\1***@", text)
    if hide:
        text = _QUOTED.sub("'***'", text)
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"
