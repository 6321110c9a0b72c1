"""What a unit of work has done on the test's one connection, and what ending it would undo.

This module only counts. ``units_of_work.py`` acts on the counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from pytest_asyncdb import errors
from pytest_asyncdb._record.statement_log import Place


class Level(NamedTuple):
    """A savepoint of a unit, with the unit's counts at the time when it was opened."""

    name: str
    wrote: int = 0
    inner_commits: int = 0
    outer_writes: int = 0
    settings: int = 0


@dataclasses.dataclass(eq=False)
class Unit:
    """What one checkout does from the begin to the end of its transaction, as a savepoint.

    Args:
        task: The task that opened the unit, for errors.
        places: Where the user's code opened the unit, for errors.
        savepoint: The name of the unit's savepoint.
    """

    task: str
    places: Sequence[Place]
    savepoint: str
    #: True while the unit is on the stack.
    open: bool = True
    #: How the unit ends when it is on top: ``commit`` or ``rollback``. None: it has not ended yet.
    ending: str | None = None
    #: Number of the unit's statements that may have changed something.
    wrote: int = 0
    #: Number of commits by nested units since this unit last wrote or its savepoint was moved.
    inner_commits: int = 0
    #: Number of statements by units below, sent since this unit's savepoint was opened, that may
    #: have changed something.
    outer_writes: int = 0
    #: True if a statement has failed and, on a connection of its own, only a rollback would help
    #: (PostgreSQL). The unit's savepoint was rolled back early, so that other units can go on.
    must_roll_back: bool = False
    #: Set while the rollback of this unit waits for inner units with uncommitted work: the error
    #: for a statement that would still see this unit's work.
    late: errors.AsyncdbError | None = None
    #: Settings that end with the unit, each with the name under which its former value is kept.
    settings: dict[str, str] = dataclasses.field(default_factory=dict)
    #: True if the unit only reads. Its commit may be a rollback, which also ends the read-only
    #: mode.
    read_only: bool = False
    #: Statements to run at the unit's commit.
    at_commit: list[str] = dataclasses.field(default_factory=list)
    #: True if nothing in the unit has failed, and none of its statements can have ended the
    #: transaction. The statement that ends the unit may then wait for the next batch.
    batchable: bool = True
    #: The unit's own savepoint, and those that the application has opened in the unit.
    levels: list[Level] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.levels = [Level(self.savepoint)]

    @property
    def has_work(self) -> bool:
        """Return whether a rollback would undo anything that this unit or a nested one has done."""
        return bool(self.wrote or self.inner_commits)

    def forget(self) -> None:
        """Note that all work of the unit is undone, including the application's savepoints."""
        del self.levels[1:]
        self.return_to(self.levels[0])

    def return_to(self, level: Level) -> None:
        """Note that all work since *level* is undone."""
        _, self.wrote, self.inner_commits, self.outer_writes, kept = level
        self.settings = dict([*self.settings.items()][:kept])

    def level(self, name: str) -> Level | None:
        """Return the savepoint *name* of this unit, or None."""
        return next((level for level in self.levels if level.name == name), None)

    def follow(self, verb: str, name: str) -> None:
        """Note a statement about a savepoint that the server has accepted."""
        level = self.level(name)
        if verb == "savepoint":
            counts = self.wrote, self.inner_commits, self.outer_writes, len(self.settings)
            self.levels.append(Level(name, *counts))
        elif level is not None:
            del self.levels[self.levels.index(level) + (verb != "release") :]
            if verb != "release":
                self.return_to(level)
                self.must_roll_back = False
