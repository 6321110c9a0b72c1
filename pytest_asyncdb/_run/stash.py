"""The keys under which the plugin stores objects on pytest's config and items.

They are not in ``fixtures.py``, because pytest imports that module itself, to rewrite its asserts.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_asyncdb._record.statement_log import StatementLog
    from pytest_asyncdb._run.run import Run
    from pytest_asyncdb.abc import View
    from pytest_asyncdb.values import BackendSpec

RUN: pytest.StashKey[Run] = pytest.StashKey()
#: The running test.
ITEM: pytest.StashKey[pytest.Item] = pytest.StashKey()


class TestState:
    """What the plugin knows of a test while it runs.

    :func:`forget_test` drops it, because pytest keeps the item itself until the end of the run.
    """

    #: The exception with which the test failed, so that a breach is not reported twice.
    failure: BaseException | None = None
    #: The statements of the test's engines, and the backend and strategy on which they ran.
    log: tuple[StatementLog, str] | None = None
    #: With ``--asyncdb-keep``, for a failed test: whether its database was kept, and the command
    #: that opens it, or the reason why it was not kept.
    kept: tuple[bool, str] | None = None
    #: True if the test's report has said that its server is gone.
    lost: bool = False
    #: The next test in the same process.
    next: pytest.Item | None = None
    #: If pytest cannot parametrise the test: its backend, chosen from several.
    only: BackendSpec | None = None
    #: The test's view of its first database.
    view: View | None = None
    #: The views of all its databases, by name. The first one is *view*.
    views: Mapping[str, View] = MappingProxyType({})


_STATE: pytest.StashKey[TestState] = pytest.StashKey()


def state_of(item: pytest.Item) -> TestState:
    """Return the state of a test that is running."""
    return item.stash.setdefault(_STATE, TestState())


def is_running(item: pytest.Item) -> bool:
    """Return whether the test has begun and not ended."""
    return _STATE in item.stash


def forget_test(item: pytest.Item) -> None:
    """Drop the state of a test that has ended. The test may be run again."""
    del item.stash[_STATE]
