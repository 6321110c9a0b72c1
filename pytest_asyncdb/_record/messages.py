"""Texts of this folder's errors."""

from __future__ import annotations

from collections.abc import Sequence


def statement_count(
    number: int, most: int | None, least: int | None, grouped: Sequence[str]
) -> str:
    """The text of a failed ``asyncdb.count()``, which is an assertion of the user's.

    Args:
        grouped: The statements, equal ones together.
    """
    allowed = f"at most {most}" if most is not None and number > most else f"at least {least}"
    return "\n".join([f"{number} statement{'s' * (number != 1)}, {allowed} expected", *grouped])
