"""What the report of a database test sends to the controller, as JSON values, and its text.

For a test that passes, these are two texts. No database is asked.
"""

from __future__ import annotations

import re
import traceback
from typing import Any

import pytest

from pytest_asyncdb._record.statement_log import StatementLog
from pytest_asyncdb._record.text import cut, cut_middle, has_secret
from pytest_asyncdb.errors import AsyncdbError
from pytest_asyncdb.reports.causes import SETUP, cause, chain, code_of
from pytest_asyncdb.values import BackendSpec

#: Number of characters of a message or a statement, and number of characters of a message that are
#: read.
_LONG, _READ = 300, 10_000
#: Number of characters of a traceback.
_TRACEBACK = 20_000
_PASSWORD = re.compile(r"(://[^:/@\s]*:)[^\s]+@")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
#: A quoted text in one line, also if it ends on another line.
_BEGUN = re.compile(r"'[^']*(?:'|$)|\"[^\"]*(?:\"|$)")
#: The beginning of a line in a traceback that names a place in the code.
_PLACE = re.compile(r"[^\s'\"]+:\d+: (?:in )?[\w.<>]+|\s+File \"[^\"]+\", line \d+, in \S+")


def outcome_of(
    nodeid: str,
    spec: BackendSpec | str,
    error: BaseException | None,
    log: StatementLog | None,
    late: str | None = None,
) -> dict[str, Any]:
    """Return the attribute ``asyncdb`` of a report; docs/howto/matrix.md describes it.

    Args:
        error: The test's exception, if it failed.
        log: The test's statements.
        late: The table that *error* misses because its module was imported too late.
    """
    word = spec if isinstance(spec, str) else spec.id
    outcome: dict[str, Any] = {"backend": str(spec), "test": without_backend(nodeid, word)}
    if error is not None:
        outcome["error"] = _error(error, log, late)
    return outcome


def without_backend(nodeid: str, word: str) -> str:
    """Return a test's id without its backend, which is the first of its parameters."""
    name, bracket, parameters = nodeid.partition("[")
    if not bracket:
        return nodeid
    rest = f"-{parameters.removesuffix(']')}-".replace(f"-{word}-", "-", 1)[1:-1]
    return f"{name}[{rest}]" if rest else name


def summary(error: dict[str, Any]) -> str:
    """Return one line for an error of :func:`outcome_of`."""
    if error["type"] == "AssertionError":
        return str(error["message"])
    return f"{error['type'].rpartition('.')[2]}: {error['message']}"


def details(report: pytest.TestReport, masked: bool) -> dict[str, Any]:
    """Return the plugin's sections of a failed test and its traceback, without secrets.

    Args:
        masked: True if the error names a secret. Then only places remain of the traceback.
    """
    lines = report.longreprtext.splitlines()
    if masked:
        lines = [place[0] for place in map(_PLACE.match, lines) if place is not None]
    else:
        lines = [_BEGUN.sub("'***'", line) if has_secret(line) else line for line in lines]
    return {
        "sections": [
            [title.removeprefix("asyncdb: "), without_passwords(text)]
            for title, text in report.sections
            if title.startswith("asyncdb")
        ],
        "traceback": cut_middle(without_passwords("\n".join(lines)), _TRACEBACK),
    }


def _error(error: BaseException, log: StatementLog | None, late: str | None) -> dict[str, Any]:
    text = _message(error)
    statement = log.statements[-1].sql if log is not None and log.number else None
    code = None
    for one in chain(error):
        if hasattr(one, "orig") and hasattr(one, "statement"):  # a DBAPIError of SQLAlchemy
            statement, code = one.statement or statement, code_of(one.orig)
            break
    # The line of code counts, too, as in "assert password == …". SQLite's "unrecognized token" is
    # no secret.
    line = "".join(frame.line or "" for frame in traceback.extract_tb(error.__traceback__, -1))
    hide = has_secret(f"{text} {statement} {line}".replace("unrecognized token", ""))
    cls = type(error)
    name = cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}"
    # A fixture of the plugin has raised the error, or only the first backend's schema lacks a
    # table.
    own = isinstance(error.__context__, AsyncdbError) or late
    return {
        "cause": SETUP if own else cause(name, code),
        "type": name,
        "message": _safe(text, hide),
        "code": code,
        "statement": None if statement is None else _safe(" ".join(statement.split()), hide),
        "masked": hide,
    }


def _message(error: BaseException) -> str:
    """Return the first line of an error, and what pytest writes below ``assert False``."""
    lines = (str(error)[:_READ] or type(error).__name__).strip().splitlines()
    where = (line.strip(" +") for line in lines[1:] if line.strip().startswith("+  where "))
    return " ".join([*lines[:1], *list(where)[:1]])


def _safe(text: str, hide: bool) -> str:
    """Return *text* without passwords of URLs, shortened.

    Args:
        hide: Mask every quoted text.
    """
    text = without_passwords(text)
    return cut(_QUOTED.sub("'***'", text) if hide else text, _LONG)


def without_passwords(text: str) -> str:
    """Return *text* without passwords of URLs."""
    return _PASSWORD.sub(r"\1***@", text)
