"""Shortening and wrapping of text for people."""

from __future__ import annotations

from pytest_asyncdb._record.redaction import masked


def error_text(error: BaseException) -> str:
    """What the driver said, without what SQLAlchemy adds to it."""
    while isinstance(original := getattr(error, "orig", None), BaseException):
        error = original
    first = (str(error).splitlines() or [""])[0]
    return f"the driver said: {type(error).__name__}: {shorten(first, 200)}"


def one_line(statement: str, width: int = 80) -> str:
    return shorten(masked(statement)[0], width)


def shorten(text: str, width: int = 80) -> str:
    """*text* on one line of at most *width* characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
