"""Statements about savepoints in the spelling of a dialect: the plugin's and SQLAlchemy's.

SQL Server, for example, has ``SAVE TRANSACTION``. Like Oracle it has no statement that releases a
savepoint.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy.engine import Dialect

from pytest_asyncdb._record.sql_text import remembered, savepoint

#: A name that needs no quotes. Other names replace it later.
_NAME = "asyncdb_name"
_STANDARD = {
    "savepoint": (f"SAVEPOINT {_NAME}",),
    "release": (f"RELEASE SAVEPOINT {_NAME}",),
    "rollback": (f"ROLLBACK TO SAVEPOINT {_NAME}",),
}


class Savepoints:
    """The savepoint statements of one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        methods = {
            "savepoint": dialect.do_savepoint,
            "release": dialect.do_release_savepoint,
            "rollback": dialect.do_rollback_to_savepoint,
        }
        #: The statements for :data:`_NAME`, by verb.
        self._texts = {verb: _sent(method, dialect) for verb, method in methods.items()}
        self._others = [
            (verb, re.compile(re.escape(text).replace(_NAME, r"(\w+)")))
            for verb, texts in self._texts.items()
            if texts != _STANDARD[verb]
            for text in texts
            if _NAME in text
        ]
        #: Like :meth:`read`, only for savepoints with the names that ``sandbox.py`` gives them.
        self.read_own = remembered(self._read_own)

    def open(self, *names: str) -> list[str]:
        """Return statements that open savepoints."""
        return self._of("savepoint", names)

    def release(self, name: str) -> list[str]:
        """Return statements that release a savepoint; none if the DBMS has no such statement."""
        return self._of("release", [name])

    def undo(self, name: str) -> list[str]:
        """Return statements that roll back to a savepoint."""
        return self._of("rollback", [name])

    def read(self, statement: str) -> tuple[str, str] | None:
        """Return the verb and the name in a statement; None if it is not about a savepoint."""
        for verb, pattern in self._others:
            if match := pattern.fullmatch(statement):
                return verb, match[1]
        return savepoint(statement)

    def _read_own(self, statement: str) -> tuple[str, str] | None:
        if "asyncdb_" not in statement:
            return None
        found = self.read(statement)
        return found if found is not None and found[1].startswith("asyncdb_") else None

    def _of(self, verb: str, names: Any) -> list[str]:
        return [text.replace(_NAME, name) for name in names for text in self._texts[verb]]


def _sent(method: Any, dialect: Dialect) -> tuple[str, ...]:
    """Return what a method of a dialect executes for :data:`_NAME`."""
    sent: list[str] = []

    class Connection:
        """Records the statements that it gets."""

        def execute(self, clause: Any) -> None:
            sent.append(str(clause.compile(dialect=dialect)))

        exec_driver_sql = staticmethod(sent.append)

    method(Connection(), _NAME)
    return tuple(sent)
