"""Shortens tracebacks of errors that went through a database library to the user's lines.

pytest leaves out the frames of modules that ask for it. SQLAlchemy and the drivers do not ask.
``--full-trace`` shows all frames.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType

from pytest_asyncdb.reports.causes import DRIVERS, chain, is_of_database

_OURS = "pytest_asyncdb"
#: Packages and modules whose frames are left out.
_LEFT_OUT = frozenset({"sqlalchemy", "greenlet", "contextlib", _OURS, *DRIVERS})


@contextlib.contextmanager
def shortened(error: BaseException) -> Iterator[None]:
    """Let pytest show only the user's lines of an error, and the driver's error only in
    SQLAlchemy's message.

    This applies to errors of the database, and to errors from below the plugin's frames.
    """
    errors = list(chain(error))
    if not any(is_of_database(one) or _OURS in map(_package, _entries(one)) for one in errors):
        yield
        return
    hidden = []
    for one in errors:
        _shorten(one)  # a driver's error may have no frame left, the test's own has pytest's
        cause = one.__cause__
        if cause is not None and cause is getattr(one, "orig", None) and not _is_explained(cause):
            hidden.append((one, cause, one.__suppress_context__))
            one.__cause__, one.__suppress_context__ = None, True
    try:
        yield
    finally:
        for one, cause, suppress in hidden:
            one.__cause__, one.__suppress_context__ = cause, suppress


def _is_explained(error: BaseException | None) -> bool:
    """Return whether the driver's error carries more than SQLAlchemy's message repeats, such as the
    plugin's note."""
    causes = [] if error is None else chain(error)
    return any(getattr(one, "__notes__", None) or not is_of_database(one) for one in causes)


def _shorten(error: BaseException) -> None:
    """Unlink the frames that are left out."""
    first = error.__traceback__
    kept = [one for one in _entries(error) if _package(one) not in _LEFT_OUT]
    error.__traceback__ = kept[0] if kept else None
    if first is None or not kept:
        return
    # In an error of a test the first frame is pytest's own, and pytest keeps a reference to it.
    for one, following in zip([first, *kept], [*kept, None], strict=True):
        if one is not following:
            one.tb_next = following


def _entries(error: BaseException) -> Iterator[TracebackType]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _package(entry: TracebackType) -> str:
    return str(entry.tb_frame.f_globals.get("__name__")).partition(".")[0]
