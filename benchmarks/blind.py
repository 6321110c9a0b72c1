"""A pytest plugin, copied into each project, that takes away what the plugin notes of a passing
test for its reports: statements with their places, times. What is left is what they cost.

Only from the tests that are not measured: these and the others take turns in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

_blind = False


def pytest_configure() -> None:
    from pytest_asyncdb._record import statement_log, timings
    from pytest_asyncdb.isolation import dbapi

    times = ("start", "prepared", "stop", "take")
    changes: list[tuple[Any, str, Callable[..., Any]]] = [
        (dbapi.Cursor, "_run", _run),
        (statement_log.StatementLog, "add", _not_expected),
        (statement_log.StatementLog, "ended", _nothing),
        *((timings.Timer, name, _nothing) for name in times),
    ]
    for owner, name, instead in changes:
        setattr(owner, name, _either(getattr(owner, name), instead))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    global _blind
    _blind = item.name.startswith("test_other")
    return (yield)


def _either(seeing: Callable[..., Any], blind: Callable[..., Any]) -> Callable[..., Any]:
    """Both have to pay for this step."""

    def chosen(*args: Any, **options: Any) -> Any:
        return blind(*args, **options) if _blind else seeing(*args, **options)

    return chosen


def _run(self: Any, method: str, operation: str, parameters: Any, whole: bool) -> Any:
    """``Cursor._run`` without the log."""
    from pytest_asyncdb.isolation.work import Call

    checkout = self._checkout
    arguments = () if parameters is None else (parameters,)

    def work(text: str) -> Any:
        return getattr(self._open(), method)(text, *arguments)

    try:
        return checkout.run(operation, work, whole, Call(checkout.work, (), parameters))
    except Exception:
        raise
    except BaseException:
        checkout.work.abandon([self])
        raise


def _nothing(*args: Any) -> None:
    pass


def _not_expected(*args: Any) -> None:
    raise AssertionError("a statement was noted all the same: the comparison is void")
