"""A unit of work on the test's one connection: what it has done, and what ending it would do.

Pure bookkeeping; ``outer_transaction.py`` acts on it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from pytest_asyncdb._record.call_sites import lines_of
from pytest_asyncdb._record.statement_log import Place

#: Savepoints of SQLAlchemy in a unit, as ``dbapi.py`` names them.
_NESTED = re.compile(
    r"\s*(SAVEPOINT|RELEASE SAVEPOINT|ROLLBACK TO SAVEPOINT|RELEASE|ROLLBACK TO)\s+"
    r"[`\"]?(asyncdb_\d+_\d+)\b",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Level:
    """A savepoint inside a unit, with what the unit had counted when it was opened."""

    name: str
    wrote: int
    absorbed: int
    mixed: int


@dataclasses.dataclass(eq=False)
class Unit:
    """What one connection does between two ends of its transaction; a savepoint for it.

    Args:
        task: Who opened it, for errors.
        places: Where the user's code opened it, for errors.
        savepoint: Its name.
    """

    task: str
    places: Sequence[Place]
    savepoint: str
    #: It is on the stack.
    open: bool = True
    #: How it ends as soon as it is on top of the stack: ``commit`` or ``rollback``.
    ending: str | None = None
    #: Its statements that may have changed something.
    wrote: int = 0
    #: Commits of units inside this one, behind its own writing.
    absorbed: int = 0
    #: Writing of units below, behind this one's savepoint.
    mixed: int = 0
    nested: list[Level] = dataclasses.field(default_factory=list)
    #: It has failed, and on a connection of its own nothing but a rollback would help
    #: (PostgreSQL); here its savepoint was rolled back early, so that others can go on.
    doomed: bool = False

    #: Nothing in it has failed, and all its statements are such as cannot end a transaction.
    plain: bool = True

    @property
    def opened(self) -> list[str]:
        """Where it was opened: lines of the user's code, the innermost last."""
        return lines_of(self.places)

    def forget(self) -> None:
        """All that it has done is undone, its savepoints are still there."""
        self.wrote = self.absorbed = self.mixed = 0
        self.nested = [Level(level.name, 0, 0, 0) for level in self.nested]

    @property
    def savepoints(self) -> list[str]:
        """The names of its savepoints, the outermost first."""
        return [self.savepoint, *(level.name for level in self.nested)]

    def level(self, name: str) -> Level | None:
        """The savepoint *name* inside this unit."""
        return next((level for level in self.nested if level.name == name), None)

    def follow(self, verb: str, name: str) -> None:
        """Note a statement about a savepoint that the server has accepted."""
        level = self.level(name)
        if verb == "SAVEPOINT":
            self.nested.append(Level(name, self.wrote, self.absorbed, self.mixed))
        elif level is not None:
            place = self.nested.index(level)
            if verb == "RELEASE":
                del self.nested[place:]
            else:
                del self.nested[place + 1 :]
                self.wrote, self.absorbed, self.mixed = level.wrote, level.absorbed, level.mixed
                self.doomed = False


def savepoint_statement(statement: str) -> tuple[str, str] | None:
    """The verb (SAVEPOINT, RELEASE, ROLLBACK) and the name in a statement of SQLAlchemy's."""
    match = _NESTED.match(statement) if "asyncdb_" in statement else None
    return (match[1].split()[0].upper(), match[2]) if match else None


#: What an IsolationConflict says; see ``messages.overlapping_units``.
WORK_INSIDE = "A session was rolled back while one opened inside it has uncommitted work."
WROTE_MEANWHILE = "The rollback of an inner session also undid what an outer one wrote meanwhile."
UNDID_COMMIT = (
    "This rollback also undid what another session committed while this one was"
    " open; on connections of their own it would have survived."
)
NOT_INNERMOST = (
    "A session opened or rolled back a savepoint while another one, opened inside it later,"
    " is not ended."
)
