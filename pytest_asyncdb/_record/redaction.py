"""Masks texts that may be secrets in statements, messages and URLs."""

from __future__ import annotations

import re

#: A statement that contains one of these words may carry a secret among its string literals.
SECRET = re.compile(r"passw|pwd|secret|token|api_?key|credential|identified\s+by", re.IGNORECASE)
_LITERAL = re.compile(r"'(?:[^']|'')*(?:'|$)")


def masked(sql: str) -> tuple[str, bool]:
    """A statement on one line, masked if it names a secret, and whether it names one."""
    text = " ".join(sql.split())
    secret = SECRET.search(text) is not None
    return without_literals(text) if secret else text, secret


def without_literals(sql: str) -> str:
    """*sql* with every string literal masked, for statements that are no longer complete: whether
    the missing part names a secret is unknown."""
    return _LITERAL.sub("'***'", sql)
