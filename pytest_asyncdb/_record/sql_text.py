"""What the text of a statement says about its effect on transactions.

Only the first words are read. The driver's transaction flag and the guard savepoint show a hidden
effect, such as a procedure that commits.
"""

from __future__ import annotations

import functools
import re

#: Caches functions of a statement's text. SQLAlchemy compiles a statement once, and the same text
#: comes thousands of times.
remembered = functools.lru_cache(maxsize=500)

_COMMENTS = re.compile(r"\A(?:\s+|--[^\n]*(?:\n|$)|/\*(?!!).*?\*/)+", re.DOTALL)

#: Statements that end or begin a transaction, by their first words. ROLLBACK TO and the compound
#: statement of MariaDB are not among them.
_CONTROL = re.compile(
    r"(?:commit|end|abort|rollback(?!(?:\s+(?:work|transaction))?\s+to\b)"
    r"|begin(?!\s+not\s+atomic\b)|start\s+transaction|prepare\s+transaction|xa)\b"
    r"|set\b(?:[^;']*[\s,.]|\s+@@)autocommit\s*:?=",
    re.IGNORECASE,
)
#: The BEGIN that SQLAlchemy's recipe for SQLite sends first.
_BEGIN = re.compile(r"begin(?:\s+\w+){0,2}\s*;?\s*$", re.IGNORECASE)
#: Finds a statement after which a query may have other columns, or is no longer prepared.
changes_columns = remembered(
    re.compile(r"(?i)\b(?:create|alter|drop|declare|deallocate|discard)\b").search
)
#: Strings, quoted names, and comments.
_OPAQUE = re.compile(r"'[^']*'|\"[^\"]*\"|(\$\w*\$).*?\1|--[^\n]*|/\*.*?\*/", re.DOTALL)
#: https://dev.mysql.com/doc/refman/8.4/en/implicit-commit.html
_IMPLICIT_COMMIT = re.compile(
    r"(?:(?:create|drop)(?!(?:\s+or\s+replace)?\s+temporary\s+table\b)|alter|truncate|rename|grant|revoke|lock\s+tables?|unlock\s+tables?"
    r"|analyze|optimize|repair|flush|reset|load\s+index|cache\s+index|install|uninstall"
    r"|set\s+password|check\s+table)\b",
    re.IGNORECASE,
)

#: Queries, and statements of SQLite that neither begin a transaction nor change data.
_QUERY = re.compile(
    r"(?is)(?:select|show|explain|values|pragma|describe|vacuum|attach|detach"
    r"|with(?!.*\b(?:insert|update|delete|replace)\b))\b"
)
#: Statements, other than queries, that leave no data behind.
_NO_DATA = re.compile(r"(?:savepoint|release|rollback\s+to|set)\b", re.IGNORECASE)
#: Statements that cannot end a transaction, whatever they call: no function and no trigger can end
#: it.
_PLAIN = re.compile(r"(?:select|insert|update|delete|with|values)\b", re.IGNORECASE)
_SAVEPOINT = re.compile(
    r"(?is)\s*(savepoint|release|rollback(?=.*\sto\b))\s(?:.*\s)?(\S+?)\s*;?\s*$"
)


_INSERT = re.compile(r"insert\s+(?:or\s+\w+\s+|ignore\s+)?into\s+([^\s(]+)", re.IGNORECASE)


def inserted_into(statement: str) -> str | None:
    """Return the table of an INSERT, without its schema and quotes; None: it is no INSERT."""
    match = _INSERT.match(first_words(statement))
    return match[1].rpartition(".")[2].strip('"`') if match else None


def first_words(statement: str) -> str:
    """Return *statement* without leading white space and comments."""
    return _COMMENTS.sub("", statement)


@remembered
def ends_transaction(statement: str, implicit_commits: bool) -> str | None:
    """Return why *statement* would end the outer transaction, as a clause; None: it does not seem
    to.

    Args:
        implicit_commits: True if DDL commits on this backend.
    """
    text = first_words(statement)
    if _CONTROL.match(text):
        return "it ends or begins a transaction itself"
    return "it commits by itself" if implicit_commits and _IMPLICIT_COMMIT.match(text) else None


@remembered
def begins_transaction(statement: str) -> bool:
    """Return whether *statement* begins a transaction and does nothing else."""
    return _BEGIN.match(first_words(statement)) is not None


@remembered
def cannot_end_transaction(statement: str) -> bool:
    """Return whether *statement* leaves the transaction open. False if that is uncertain."""
    return ";" not in statement and _PLAIN.match(first_words(statement)) is not None


def several_statements(text: str) -> bool:
    """Return whether a semicolon separates two parts of *text*, outside of strings and comments."""
    return ";" in text and ";" in _OPAQUE.sub("", text).strip("; \t\r\n")


@remembered
def only_queries(statement: str) -> bool:
    """Return whether *statement* is a query. False if that is uncertain."""
    return _QUERY.match(first_words(statement)) is not None


@remembered
def only_reads(statement: str) -> bool:
    """Return whether *statement* leaves no data to undo. False if that is uncertain."""
    return only_queries(statement) or _NO_DATA.match(first_words(statement)) is not None


@remembered
def may_set(statement: str) -> bool:
    """Return whether *statement* can change a setting. It cannot if "set" is not in it."""
    return "set" in statement.lower()


@remembered
def savepoint(statement: str) -> tuple[str, str] | None:
    """Return the verb (``savepoint``, ``release`` or ``rollback``) and the savepoint's name; None:
    the statement is not about a savepoint."""
    match = _SAVEPOINT.match(statement)
    return (match[1].lower(), match[2]) if match else None
