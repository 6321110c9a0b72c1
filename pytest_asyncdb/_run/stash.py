"""The keys under which the plugin keeps things on pytest's config and items.

Not in ``fixtures.py``: pytest wants to import that one itself, to rewrite its asserts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_asyncdb._record.statement_log import StatementLog
    from pytest_asyncdb._run.redirect import Stray
    from pytest_asyncdb._run.run import Run
    from pytest_asyncdb.abc import View

RUN: pytest.StashKey[Run] = pytest.StashKey()
#: Are the outcomes of database tests collected?
MATRIX: pytest.StashKey[bool] = pytest.StashKey()
#: What the last comparison that failed had on its sides, in words.
COMPARED: pytest.StashKey[dict[str, Any] | None] = pytest.StashKey()


class TestState:
    """What need not be known any more after a test; pytest keeps the test itself until the end of
    the run."""

    __slots__ = ("failure", "journal", "kept", "lost", "next", "strays", "view")

    def __init__(self) -> None:
        #: The exception that it failed with, so that a breach is not reported twice.
        self.failure: BaseException | None = None
        #: What its engines have run, and on which backend, in which strategy.
        self.journal: tuple[StatementLog, str] | None = None
        #: With ``--asyncdb-keep``, of a failed test: whether its database was kept, and the command
        #: that opens it, or why it was not.
        self.kept: tuple[bool, str] | None = None
        #: Its report has said that its server is gone.
        self.lost = False
        #: The test that comes after it in the same process.
        self.next: pytest.Item | None = None
        #: Engines that nobody named and that connected.
        self.strays: Sequence[Stray] = ()
        #: Its view of its database.
        self.view: View | None = None


_OF_TEST: pytest.StashKey[TestState] = pytest.StashKey()


def state_of(item: pytest.Item) -> TestState:
    """What is known of a test that is running."""
    return item.stash.setdefault(_OF_TEST, TestState())


def forget_test(item: pytest.Item) -> None:
    """The test has ended; it may be run again."""
    del item.stash[_OF_TEST]
