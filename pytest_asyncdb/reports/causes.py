"""Why a test that passes on one backend fails on another: the likely cause, by rules as data.

They are tried in order; the first that fits decides. What none fits is ``other``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

#: In the order in which reports show them.
CAUSES = (
    *("type", "constraint", "ordering", "case", "time zone"),
    *("isolation level", "dialect-only SQL", "other"),
)


@dataclasses.dataclass(frozen=True)
class Rule:
    """What has to be so of an error; what is empty does not matter.

    Args:
        cause: One of :data:`CAUSES`.
        types: In the name of the exception's class.
        codes: The whole SQLSTATE, number or name that the server gave.
        message: In the message.
        statement: In the statement that failed, or else the last one before.
        kind: What :func:`_values.kind` says of the values that were compared.
        sign: What else was seen in what the test ran: ``twins`` are texts that only case or
            accents tell apart; ``read again`` is a query that ran before and after a commit.
        compared: Values were compared, it is no error of a database.
        backends: Those on which it failed.
    """

    cause: str
    types: str = ""
    codes: str = ""
    message: str = ""
    statement: str = ""
    kind: str = ""
    sign: str = ""
    compared: bool = False
    backends: tuple[str, ...] = ()


RULES = (
    Rule("time zone", message=r"offset-naive|tz-aware|timezone-aware|\.tzinfo\b|\.utcoffset\b"),
    Rule("isolation level", codes=r"40001|40P01|55P03|1020|1205|1213|SQLITE_BUSY\w*"),
    Rule("isolation level", codes=r"SQLITE_LOCKED\w*"),
    Rule("case", codes=r"23505|1062|SQLITE_CONSTRAINT_UNIQUE", sign="twins"),
    Rule("constraint", types=r"\bIntegrityError$"),
    # MySQL: a cut or missing value, a CHECK; SQLAlchemy calls some of them OperationalError.
    Rule("constraint", codes=r"23\w{3}|1048|1364|1451|1452|3819|4025|SQLITE_CONSTRAINT\w*"),
    Rule("constraint", message=r"DID NOT RAISE .*IntegrityError"),
    Rule("type", types=r"\bDataError$"),
    Rule("type", codes=r"22\w{3}|42804|42846|1264|1265|1292|1366|1406"),
    Rule("type", codes="42883", message=r"operator does not exist"),
    Rule("type", message=r"DID NOT RAISE .*DataError|invalid input for query argument"),
    Rule("type", message=r"can't render element of type|type only accepts|type '\w+' is not"),
    Rule("type", types=r"\bUnsupportedCompilationError$"),
    Rule("dialect-only SQL", types=r"\.CompileError$"),
    Rule("dialect-only SQL", codes=r"42\w{3}|0A000|1054|1055|1064|1235|1248|1305|1630|4161"),
    Rule("dialect-only SQL", message=r"syntax error|unrecognized token|no such (function|column)"),
    Rule("dialect-only SQL", types=r"\bNotSupportedError$"),
    # There it is a logical OR.
    Rule(
        "dialect-only SQL",
        statement=r"\|\|",
        compared=True,
        backends=("mysql", "mariadb"),
    ),
    Rule("ordering", kind="ordering"),
    Rule("case", kind="case"),
    Rule("time zone", kind="time zone"),
    Rule("type", kind="type"),
    Rule("type", message=r"\bisinstance\("),
    Rule("type", types=r"^(TypeError|AttributeError|decimal\.\w+)$"),
    Rule("case", compared=True, statement=r"\bI?LIKE\b"),
    Rule("case", compared=True, sign="twins"),
    Rule("ordering", compared=True, statement=r"\bORDER BY\b|\bLIMIT\b"),
    Rule("isolation level", compared=True, sign="read again"),
)


def cause(error: Mapping[str, Any], backend: str) -> str:
    """The likely cause of an error as :mod:`_outcome` writes it.

    Args:
        backend: The name, without driver and version.
    """
    return next((rule.cause for rule in RULES if _fits(rule, error, backend)), "other")


def _fits(rule: Rule, error: Mapping[str, Any], backend: str) -> bool:
    values = error["values"]
    return (
        bool(re.search(rule.types, error["type"]))
        and (not rule.codes or bool(re.fullmatch(rule.codes, error["code"] or "")))
        and bool(re.search(rule.message, error["message"], re.IGNORECASE))
        and bool(re.search(rule.statement, error["statement"] or "", re.IGNORECASE))
        and rule.kind in ("", (values or {}).get("kind"))
        and (not rule.sign or rule.sign in error["signs"])
        and (not rule.compared or error["type"] == "AssertionError")
        and (not rule.backends or backend in rule.backends)
    )
