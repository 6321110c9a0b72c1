"""The keys under which the plugin keeps things on pytest's config and items.

Not in ``fixtures.py``: pytest wants to import that one itself, to rewrite its asserts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_asyncdb._journal import Journal
    from pytest_asyncdb._redirect import Stray
    from pytest_asyncdb._run import Run
    from pytest_asyncdb.abc import View

RUN: pytest.StashKey[Run] = pytest.StashKey()
#: The exception that a test failed with, so that a breach is not reported twice.
FAILURE: pytest.StashKey[BaseException] = pytest.StashKey()
#: The test that comes after this one in the same process.
NEXT: pytest.StashKey[pytest.Item | None] = pytest.StashKey()
#: Engines that nobody named and that connected during a test.
STRAYS: pytest.StashKey[Sequence[Stray]] = pytest.StashKey()
#: What the engines of a test have run, and on which backend, in which strategy.
JOURNAL: pytest.StashKey[tuple[Journal, str]] = pytest.StashKey()
#: Are the outcomes of database tests collected?
MATRIX: pytest.StashKey[bool] = pytest.StashKey()
#: What the last comparison that failed had on its sides, in words.
COMPARED: pytest.StashKey[dict[str, Any] | None] = pytest.StashKey()
#: A test's report has said that its server is gone.
LOST: pytest.StashKey[bool] = pytest.StashKey()
#: The test's view of its database.
OPEN: pytest.StashKey[View] = pytest.StashKey()
#: With ``--asyncdb-keep``, of a failed test: whether its database was kept, and the command that
#: opens it, or why it was not.
KEPT: pytest.StashKey[tuple[bool, str]] = pytest.StashKey()
#: What need not be known any more after a test.
OF_ONE_TEST: tuple[pytest.StashKey[Any], ...] = (FAILURE, JOURNAL, KEPT, LOST, NEXT, OPEN, STRAYS)
