"""The texts of this folder's errors, and suggestions for misspelt words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pytest_asyncdb import errors


def near_miss(word: str, allowed: Iterable[str]) -> str:
    """`` (did you mean 'postgres'?)`` if an allowed word is similar, else an empty text."""
    close = difflib.get_close_matches(word, list(allowed), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def import_failed(
    kind: type[errors.AsyncdbError], setting: str, word: str, source: str, error: BaseException
) -> errors.AsyncdbError:
    """A module of the user raised an error while it was imported."""
    import traceback

    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    frames = [f for f in frames if "site-packages" not in f.filename] or frames
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"
    return kind(
        f"{setting}={word!r}: importing it failed ({source})",
        [f"{type(error).__name__}: {error}", f"at {place}"],
        [f"make it importable: python -c 'import {word.partition(':')[0]}'"],
    )
