"""Text for people: wrapped, shortened, with units, and without secrets."""

from __future__ import annotations

import re
import textwrap

from pytest_asyncdb.errors import AsyncdbError

#: Columns of a section in a report.
WIDTH = 80
# Compiled at first use: every run of pytest imports this module.
_SENSITIVE = r"(?i)passw|pwd|secret|token|api_?key|credential|identified\s+by"
_ADAPTED = r"<class '(?:\w+\.)*(\w+)'>: (.*)"
_LITERAL = r"'(?:[^']|'')*(?:'|$)"


def error_text(error: BaseException) -> str:
    """Return the driver's message, without what SQLAlchemy adds to it."""
    while isinstance(original := getattr(error, "orig", None), BaseException):
        error = original
    first = (str(error).splitlines() or [""])[0]
    # SQLAlchemy 2.0's adapters put the class of the driver's error into the text.
    adapted = re.match(_ADAPTED, first)
    kind, message = adapted.groups() if adapted else (type(error).__name__, first)
    return f"the driver said: {kind}: {shorten(message, 200)}"


def in_short(error: BaseException) -> str:
    """Return one line for any error."""
    if isinstance(error, AsyncdbError):
        return error.headline
    return f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(": ")


def one_line(statement: str, width: int = 80) -> str:
    """Return a statement on one line of at most *width* characters, with secrets masked."""
    return shorten(masked(statement)[0], width)


def shorten(text: str, width: int = 80) -> str:
    """Return *text* on one line of at most *width* characters."""
    return cut(" ".join(text.split()), width)


def cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def cut_middle(text: str, width: int) -> str:
    """Return *text* without its middle. The beginning of a statement says what it does, the end on
    what."""
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[-end:]}"


def wrap(
    text: str,
    first: str = "",
    rest: str | None = None,
    width: int = WIDTH,
    break_words: bool = False,
) -> list[str]:
    """Return *text* as lines of at most *width* columns.

    Args:
        first: The beginning of the first line.
        rest: The beginning of the other lines; None: spaces, as many as *first* is long.
        break_words: Break words that are longer than a line.
    """
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=" " * len(first) if rest is None else rest,
        break_long_words=break_words,
        break_on_hyphens=False,
    )


def duration(seconds: float) -> str:
    """Return a time with its unit: ``1.25 s``, ``53 ms``, ``0.25 ms``."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.{0 if seconds >= 0.01 else 2}f} ms"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 statement``, ``2 statements``."""
    return f"{number} {noun}{'s' * (number != 1)}"


def has_secret(text: str) -> bool:
    """Return whether a statement, or something with this name, may have a secret among its string
    literals."""
    return re.search(_SENSITIVE, text) is not None


def masked(sql: str) -> tuple[str, bool]:
    """Return a statement on one line, masked if it names a secret; and whether it names one."""
    text = " ".join(sql.split())
    secret = has_secret(text)
    return without_literals(text) if secret else text, secret


def without_literals(sql: str) -> str:
    """Return *sql* with every string literal masked.

    It is for statements that were cut, because the missing part may name a secret.
    """
    return re.sub(_LITERAL, "'***'", sql)
