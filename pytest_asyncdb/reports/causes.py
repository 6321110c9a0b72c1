"""What caused an exception: the exceptions behind it, the server's code, the kind of cause."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

#: Causes of differences between backends, in the order in which reports show them. Each has the
#: codes that mean it: SQLSTATEs or their classes (two characters), MySQL's error numbers, SQLite's
#: result codes.
CAUSES = {
    "locking": "40001 40P01 55P03 1020 1205 1213 SQLITE_BUSY SQLITE_LOCKED",
    "constraint": "23 1048 1062 1364 1451 1452 3819 4025 SQLITE_CONSTRAINT",
    "type": "22 42804 42846 1264 1265 1292 1366 1406 SQLITE_MISMATCH",
    "dialect-only SQL": "42 0A 1054 1055 1064 1235 1248 1305 1630 4161 SQLITE_ERROR",
    "values": "",
    "other": "",
}
#: The plugin could not set the test up. That is no difference between backends.
SETUP = "set-up"
_BY_CODE = {code: cause for cause, codes in CAUSES.items() for code in codes.split()}
#: The packages of the drivers.
DRIVERS = ("aiosqlite", "asyncpg", "psycopg", "psycopg_pool", "asyncmy", "aiomysql", "pymysql")
#: The packages of SQLAlchemy and the drivers.
_DATABASE = frozenset({"sqlalchemy", "sqlite3", *DRIVERS})
#: For exceptions without a known code, by the name of their class.
_BY_CLASS = {
    "IntegrityError": "constraint",
    "DataError": "type",
    "UnsupportedCompilationError": "type",
    "CompileError": "dialect-only SQL",
    "NotSupportedError": "dialect-only SQL",
    "AssertionError": "values",
}


def cause(name: str, code: str | None) -> str:
    """Return the kind of cause: one of :data:`CAUSES`.

    Args:
        name: The exception's class, with or without its module.
        code: The result of :func:`code_of`.
    """
    code = code or ""
    sqlstate_class = code[:2] if len(code) == 5 else ""
    sqlite_code = "_".join(code.split("_")[:2])  # without the extended part
    for key in (code, sqlstate_class, sqlite_code):
        if key in _BY_CODE:
            return _BY_CODE[key]
    return _BY_CLASS.get(name.rpartition(".")[2], "other")


def code_of(error: object) -> str | None:
    """Return the code of a driver's exception: MySQL's number, a SQLSTATE, or SQLite's name.

    MySQL's number says more than the SQLSTATE.
    """
    first = next(iter(getattr(error, "args", ())), None)
    if isinstance(first, int):
        return str(first)
    states = (getattr(error, name, None) for name in ("sqlstate", "sqlite_errorname"))
    return next((state for state in states if isinstance(state, str)), None)


def chain(error: BaseException) -> Iterator[Any]:
    """Yield an exception and those that led to it, as a traceback shows them, the last one first.

    At the end come the contexts that SQLAlchemy suppresses. An example: a ROLLBACK fails on a
    connection that the error before it has closed.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    suppressed: list[BaseException | None] = []
    while waiting or suppressed:
        one = waiting.pop(0) if waiting else suppressed.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        original = getattr(one, "orig", None)
        waiting.append(original if isinstance(original, BaseException) else None)
        waiting.append(one.__cause__ or (None if one.__suppress_context__ else one.__context__))
        waiting += getattr(one, "exceptions", ())
        if package(one) == "sqlalchemy":
            suppressed.append(one.__context__)


def is_of_database(error: BaseException) -> bool:
    """Return whether the class of *error* is SQLAlchemy's or a driver's.

    The name of the class does not show that, because an application may use the same name.
    """
    return package(error) in _DATABASE


def package(error: BaseException) -> str:
    """Return the top-level package of an exception's class."""
    return type(error).__module__.partition(".")[0]
