"""Texts of statements as they may be shown: what may be a secret is masked."""

from __future__ import annotations

import re

#: A statement that names one of these may carry a secret among its texts.
SECRET = re.compile(r"passw|pwd|secret|token|api_?key|credential|identified\s+by", re.IGNORECASE)
_LITERAL = re.compile(r"'(?:[^']|'')*(?:'|$)")


def masked(sql: str) -> tuple[str, bool]:
    """A statement's text in one line, masked where it names a secret, and whether it does."""
    text = " ".join(sql.split())
    secret = SECRET.search(text) is not None
    return without_texts(text) if secret else text, secret


def without_texts(sql: str) -> str:
    """*sql* with every text in it masked: whether a statement that is cut names a secret cannot be
    told."""
    return _LITERAL.sub("'***'", sql)
