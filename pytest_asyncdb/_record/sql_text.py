"""What a statement's text says about its effect on the outer transaction.

Reads the first words only: a hidden effect (a procedure that commits) is found by the
driver's transaction flag and by the guard savepoint instead.
"""

from __future__ import annotations

import re

_COMMENTS = re.compile(r"(?:\s+|--[^\n]*(?:\n|$)|/\*(?!!).*?\*/)+", re.DOTALL)

#: Statements that end or begin a transaction, but not ROLLBACK TO.
_CONTROL = re.compile(
    r"(?:commit|end|abort|rollback(?!(?:\s+(?:work|transaction))?\s+to\b)"
    r"|begin|start\s+transaction|prepare\s+transaction|xa)\b"
    r"|set\b(?:[^;']*[\s,.]|\s+@@)autocommit\s*:?=",
    re.IGNORECASE,
)
#: The same as a whole statement, for the later ones of several in one text.
_CONTROL_WHOLE = re.compile(
    r"(?:commit|end|abort|rollback|begin|start\s+transaction)"
    r"(?:\s+(?:work|transaction|and\s+chain))?\s*$",
    re.IGNORECASE,
)
_LITERAL = re.compile(r"'[^']*'")
#: https://dev.mysql.com/doc/refman/9.4/en/implicit-commit.html
_IMPLICIT_COMMIT = re.compile(
    r"(?:create|alter|drop|truncate|rename|grant|revoke|lock\s+tables?|unlock\s+tables?"
    r"|analyze|optimize|repair|flush|reset|load\s+index|cache\s+index|install|uninstall"
    r"|set\s+password|check\s+table)\b",
    re.IGNORECASE,
)
_TEMPORARY = re.compile(r"(?:create|drop)\s+temporary\s+table\b", re.IGNORECASE)
#: Statements that leave nothing behind to undo.
_READ = re.compile(
    r"(?:select|show|explain|values|pragma|savepoint|release|rollback\s+to|set|describe)\b",
    re.IGNORECASE,
)


#: Statements that only look.
_QUERY = re.compile(r"(?:select|show|explain|values|pragma|describe|with)\b", re.IGNORECASE)
_CHANGE = re.compile(r"\b(?:insert|update|delete|replace)\b", re.IGNORECASE)
#: What stays in the session of a connection behind the end of its transaction. ``SET LOCAL`` and
#: ``SET TRANSACTION`` do not.
_SESSION = re.compile(
    r"(?:^|;)\s*(?:set\s+(?!local\b|transaction\b|constraints\b)|reset|listen|prepare|use|attach"
    r"|pragma|handler|lock\s+tables?|declare|load|create\s+(?:or\s+replace\s+|local\s+|global\s+)?temp)"
    r"|\b(?:pg_(?:try_)?advisory_lock|set_config|get_lock)|@\w+\s*:=|\binto\s+@",
    re.IGNORECASE,
)
#: Statements that cannot end a transaction, whatever they call: no function and no trigger can.
_PLAIN = re.compile(r"(?:select|insert|update|delete|with|values)\b", re.IGNORECASE)


def first_words(statement: str) -> str:
    """*statement* from its first word on, without what comments it."""
    match = _COMMENTS.match(statement)
    return statement[match.end() :] if match else statement


def ends_transaction(statement: str, implicit_commits: bool) -> str | None:
    """Why *statement* would end the outer transaction, a clause; None: it does not seem to.

    Args:
        implicit_commits: DDL commits on this backend.
    """
    text = first_words(statement)
    if _CONTROL.match(text):
        return "it ends or begins a transaction itself"
    later = _LITERAL.sub("", text).split(";")[1:] if ";" in text else ()
    if any(_CONTROL_WHOLE.match(first_words(part)) for part in later):
        return "one of its statements ends or begins a transaction itself"
    if implicit_commits and _IMPLICIT_COMMIT.match(text) and not _TEMPORARY.match(text):
        return "it commits by itself"
    return None


def only_queries(statement: str) -> bool:
    """Does *statement* need no transaction to be undone? False where that is not sure."""
    text = first_words(statement)
    if _QUERY.match(text) is None:
        return False
    return text[:4].lower() != "with" or _CHANGE.search(text) is None


def cannot_end_transaction(statement: str) -> bool:
    """Is *statement* one that leaves the transaction open? False where that is not sure."""
    return ";" not in statement and _PLAIN.match(first_words(statement)) is not None


def keeps_session_state(statement: str) -> bool:
    """Does *statement* leave something in the connection's session?"""
    return _SESSION.search(first_words(statement)) is not None


def only_reads(statement: str) -> bool:
    """Does *statement* leave nothing to undo? False where that is not sure."""
    return _READ.match(first_words(statement)) is not None
