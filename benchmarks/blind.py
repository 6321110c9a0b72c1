"""A pytest plugin, copied into each project, that takes away what the plugin notes of a passing
test for its reports: statements with their places, times. What is left is what they cost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def pytest_configure() -> None:
    from pytest_asyncdb import _journal, _times
    from pytest_asyncdb.isolation import _dbapi

    times = ("setting_up", "prepared", "ready", "ending", "ended", "take")
    changes: list[tuple[Any, str, Callable[..., Any]]] = [
        (_dbapi.Cursor, "_run", _run),
        (_journal.Journal, "add", _not_expected),
        (_journal.Journal, "ended", _nothing),
        *((_times.Times, name, _nothing) for name in times),
    ]
    for owner, name, instead in changes:
        assert hasattr(owner, name), f"{owner.__name__} has no {name}"
        setattr(owner, name, instead)


def _run(
    self: Any,
    operation: str,
    parameters: Any,
    work: Callable[[str], Any],
    whole: bool,
    many: bool = False,
) -> Any:
    """``Cursor._run`` without the journal."""
    try:
        return self._branch.run(operation, work, whole)
    except Exception:
        raise
    except BaseException:
        self._branch.outer.abandon([self])
        raise


def _nothing(*args: Any) -> None:
    pass


def _not_expected(*args: Any) -> None:
    raise AssertionError("a statement was noted all the same: the comparison is void")
