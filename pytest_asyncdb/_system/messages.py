"""Suggestions for misspelt words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near_miss(word: str, allowed: Iterable[str]) -> str:
    """Return `` (did you mean 'postgres'?)`` if an allowed word is similar, else an empty text."""
    close = difflib.get_close_matches(word, list(allowed), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
