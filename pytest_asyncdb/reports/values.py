"""How two values differ that a test compared: the kinds that backends are known for.

Pure: nothing is read but the two values.
"""

from __future__ import annotations

import datetime
import decimal
import math
import unicodedata
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

_SCALARS = (
    *(str, bytes, bytearray, memoryview, bool, int, float, decimal.Decimal, uuid.UUID),
    *(datetime.date, datetime.time, datetime.timedelta),
)
_QUARTER = datetime.timedelta(minutes=15)
#: The farthest that two time zones are apart.
_FARTHEST = datetime.timedelta(hours=26)


def kind(operator: str, left: Any, right: Any) -> str | None:
    """``ordering``, ``case``, ``time zone``, ``type``, or None: it could be anything."""
    try:
        if operator in ("in", "not in"):
            found = [_kind(left, value) for value in list(right)[:100]]
            return next((word for word in found if word in ("case", "time zone")), None)
        return _kind(left, right) if operator in ("==", "is") else None
    except Exception:  # the user's own types: __eq__, __iter__, __repr__
        return None


def folded(text: str) -> str:
    """As the usual collations of MySQL and MariaDB see a text: no case, no accents."""
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in parts if not unicodedata.combining(letter))


def twins(values: Iterable[Any]) -> bool:
    """Are there two different texts among *values* which only case or accents tell apart?"""
    texts = set(_texts(values))
    return len({folded(text) for text in texts}) < len(texts)


def _texts(values: Iterable[Any], depth: int = 0) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping) and depth < 3:
            yield from _texts(value.values(), depth + 1)
        elif isinstance(value, Sequence | Set) and depth < 3 and not isinstance(value, bytes):
            yield from _texts(value, depth + 1)


def _kind(left: Any, right: Any) -> str | None:
    if isinstance(left, type) or isinstance(right, type):
        return "type"
    if _is_row(left) and _is_row(right):
        return _rows(left, right)
    if isinstance(left, Mapping) and isinstance(right, Mapping) and left.keys() == right.keys():
        return next((_kind(left[k], right[k]) for k in left if left[k] != right[k]), None)
    if isinstance(left, str) and isinstance(right, str):
        if folded(left) == folded(right):
            return "case"
        return "type" if left.rstrip() == right.rstrip() or _is_cut(left, right) else None
    if isinstance(left, datetime.datetime) and isinstance(right, datetime.datetime):
        return _moments(left, right)
    if _is_number(left) and _is_number(right) and _is_close(left, right):
        return "type"
    scalars = isinstance(left, _SCALARS) and isinstance(right, _SCALARS)
    if scalars and type(left) is not type(right):
        return "type"
    # JSON that comes back as text.
    return "type" if isinstance(left, str) and isinstance(right, Mapping | list) else None


def _rows(left: Sequence[Any], right: Sequence[Any]) -> str | None:
    if len(left) != len(right):
        return None
    if sorted(map(repr, left)) == sorted(map(repr, right)):
        return "ordering"
    pairs = zip(left, right, strict=True)
    return next((_kind(one, other) for one, other in pairs if one != other), None)


def _moments(left: datetime.datetime, right: datetime.datetime) -> str | None:
    if (left.tzinfo is None) is not (right.tzinfo is None):
        return "time zone"
    apart = abs(left - right)
    if apart < datetime.timedelta(seconds=1):
        return "type"
    return "time zone" if not apart % _QUARTER and apart <= _FARTHEST else None


def _is_row(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | decimal.Decimal) and not isinstance(value, bool)


def _is_close(left: Any, right: Any) -> bool:
    if isinstance(left, int) and isinstance(right, int):
        return False
    return math.isclose(left, right, rel_tol=1e-4)


def _is_cut(left: str, right: str) -> bool:
    shorter, longer = sorted((left, right), key=len)
    return len(shorter) >= 3 and longer.startswith(shorter)
