"""Greenlets in which SQLAlchemy's adapters may await, kept for the next call.

A new greenlet costs more than what a call does in it, because Python allocates memory for its
frames and frees it at the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import greenlet

from pytest_asyncdb._engines.sqlalchemy_internals import GREENLET_MARK

#: pytest leaves the plugin's frames out of the tracebacks of drivers' errors.
__tracebackhide__ = True


class PooledGreenlet(greenlet.greenlet):
    """Runs one call after the other.

    Switch to it with a function and its arguments. It switches to its parent with everything
    that the function awaits, and at the end with itself: then call :meth:`release`.
    """

    _value: Any = None
    _error: BaseException | None = None

    def run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        while True:
            try:
                self._value = function(*args)
            except BaseException as error:
                self._error = error
            del function, args  # keep nothing of a call until the next one
            assert self.parent is not None
            function, args = self.parent.switch(self)

    def release(self) -> Any:
        """Return to this thread's pool. Returns what the call has returned, or raises its error."""
        value, error = self._value, self._error
        self._value = self._error = None
        self.gr_context = None  # do not keep the caller's context alive
        _pool.idle.append(self)
        if error is None:
            return value
        try:
            raise error
        finally:
            del error  # its traceback holds this frame


setattr(PooledGreenlet, GREENLET_MARK, True)


def take_greenlet() -> PooledGreenlet:
    """Take a greenlet whose parent is the caller, and which has the caller's context."""
    current = greenlet.getcurrent()
    taken = _pool.idle.pop() if _pool.idle else PooledGreenlet()
    taken.parent = current
    taken.gr_context = current.gr_context
    return taken


class _Pool(threading.local):
    """A greenlet runs in the thread that has started it only."""

    def __init__(self) -> None:
        self.idle: list[PooledGreenlet] = []


_pool = _Pool()
