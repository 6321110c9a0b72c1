"""Greenlets in which SQLAlchemy's adapters may await, kept for the next call.

A new greenlet costs more than what a call does in it: Python maps memory for its frames, and
gives it back at its end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import greenlet

#: pytest leaves our frames out of the tracebacks of drivers' errors.
__tracebackhide__ = True


class Result:
    """What a call came to."""

    __slots__ = ("_error", "_value")

    def __init__(self, value: Any, error: BaseException | None) -> None:
        self._value = value
        self._error = error

    def result(self) -> Any:
        """The call's result, once; its error is raised."""
        value, error = self._value, self._error
        self._value = self._error = None
        if error is None:
            return value
        try:
            raise error
        finally:
            del error  # its traceback holds this frame


class PooledGreenlet(greenlet.greenlet):
    """Runs one call after the other.

    Switch to it with a function and its arguments; it switches to its parent with everything
    that the function awaits, and with an :class:`Result` at last.
    """

    #: By this SQLAlchemy knows such greenlets; its own class for them is private.
    __sqlalchemy_greenlet_provider__ = True

    def run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        while True:
            ended = _call(function, args)
            del function, args  # nothing of a call is kept until the next one
            assert self.parent is not None
            function, args = self.parent.switch(ended)

    def rest(self) -> None:
        """Be there for the next call in this thread."""
        self.gr_context = None  # what the caller's context holds is not ours to keep
        _idle.providers.append(self)


def provider() -> PooledGreenlet:
    """One whose parent is the caller, in the caller's context."""
    current = greenlet.getcurrent()
    free = _idle.providers
    found = free.pop() if free else PooledGreenlet()
    found.parent = current
    found.gr_context = current.gr_context
    return found


class _Idle(threading.local):
    """Greenlets belong to their thread."""

    def __init__(self) -> None:
        self.providers: list[PooledGreenlet] = []


_idle = _Idle()


def _call(function: Callable[..., Any], args: tuple[Any, ...]) -> Result:
    try:
        return Result(function(*args), None)
    except BaseException as error:
        return Result(None, error)
