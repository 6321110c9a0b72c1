"""A unit of work on the test's one connection: what it has done, and what ending it would undo.

Pure bookkeeping; ``units_of_work.py`` acts on it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from pytest_asyncdb import errors
from pytest_asyncdb._record.statement_log import Place


class Level(NamedTuple):
    """A savepoint of a unit, with what the unit had counted when it was opened."""

    name: str
    wrote: int = 0
    inner_commits: int = 0
    outer_writes: int = 0


@dataclasses.dataclass(eq=False)
class Unit:
    """What one checkout does between two ends of its transaction; a savepoint stands for that.

    Args:
        task: The task that opened it, for errors.
        places: Where the user's code opened it, for errors.
        savepoint: Its name.
    """

    task: str
    places: Sequence[Place]
    savepoint: str
    #: It is on the stack.
    open: bool = True
    #: How it ends when it is on top of the stack: ``commit`` or ``rollback``; None: not yet.
    ending: str | None = None
    #: Number of its statements that may have changed something.
    wrote: int = 0
    #: Number of commits by nested units since this unit last wrote or its savepoint was moved.
    inner_commits: int = 0
    #: Number of statements of units below, inside this unit's savepoint, that may have changed
    #: something.
    outer_writes: int = 0
    #: It has failed, and on a connection of its own only a rollback would help (PostgreSQL).
    #: Its savepoint was rolled back early, so that other units can go on.
    must_roll_back: bool = False
    #: Its rollback waits for units inside that have done something: the error for a statement that
    #: would still see its work.
    late: errors.AsyncdbError | None = None
    #: Settings that end with it, and the names under which their values before are kept.
    settings: dict[str, str] = dataclasses.field(default_factory=dict)
    #: It only reads, so its commit may be a rollback, which ends that.
    read_only: bool = False
    #: Statements for its commit.
    at_commit: list[str] = dataclasses.field(default_factory=list)
    #: Nothing in it has failed, and no statement of it can have ended the transaction: the
    #: statement that ends it may wait for the next batch.
    batchable: bool = True
    #: Its own savepoint, and those that the application has opened in it.
    levels: list[Level] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.levels = [Level(self.savepoint)]

    @property
    def has_work(self) -> bool:
        """Would its rollback undo anything that it or a nested unit has done?"""
        return bool(self.wrote or self.inner_commits)

    def forget(self) -> None:
        """Everything that it has done is undone, also the application's savepoints in it."""
        del self.levels[1:]
        self.return_to(self.levels[0])

    def return_to(self, level: Level) -> None:
        """Everything since *level* is undone."""
        _, self.wrote, self.inner_commits, self.outer_writes = level

    def level(self, name: str) -> Level | None:
        """The savepoint *name* in this unit."""
        return next((level for level in self.levels if level.name == name), None)

    def follow(self, verb: str, name: str) -> None:
        """Note a statement about a savepoint that the server has accepted."""
        level = self.level(name)
        if verb == "savepoint":
            self.levels.append(Level(name, self.wrote, self.inner_commits, self.outer_writes))
        elif level is not None:
            place = self.levels.index(level)
            if verb == "release":
                del self.levels[place:]
            else:
                del self.levels[place + 1 :]
                self.return_to(level)
                self.must_roll_back = False
