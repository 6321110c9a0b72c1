"""Settings of one PostgreSQL transaction: ``SET LOCAL`` and ``set_config(…, true)``.

In ``rollback`` a transaction of the application is a savepoint, and its release would keep these
settings. So the plugin keeps the former value in a setting of its own, and restores it when the
unit of work ends. Settings that a function makes cannot be seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_SET_LOCAL = re.compile(
    r"\s*set\s+local\s+(time\s+zone|session\s+authorization|\"?[\w.]+\"?)", re.IGNORECASE
)
_TEMPORARY = re.compile(
    r"\bcreate\s+(?:(?:global\s+|local\s+)?temp(?:orary)?\s+)?table\s+(?:if\s+not\s+exists\s+)?"
    r"([^\s(]+).*\bon\s+commit\s+drop\b",
    re.IGNORECASE | re.DOTALL,
)
_SET_CONFIG = re.compile(r"\bset_config\s*\(", re.IGNORECASE)
#: A string, a comma or bracket, or other text.
_PARTS = re.compile(r"'(?:[^']|'')*'|[(),]|[^'(),]+")
_PARAMETER = re.compile(r"(?:\$(\d+)|%\((\w+)\)s)(?:::\w+)?")
_CONSTANT = re.compile(r"'([^']*)'(?:::\w+)?")
#: Words of SET that differ from the name of the setting.
_NAMES = {
    "names": "client_encoding",
    "schema": "search_path",
    "session authorization": "session_authorization",
    "time zone": "timezone",
}
_TRUE = ("true", "t", "yes", "y", "on", "1")

#: Fires deferred constraints, as a COMMIT does, and ends the effect of SET CONSTRAINTS. ALL would
#: also apply to constraints that do not exist yet.
END_DEFERRING = """DO $asyncdb$ DECLARE every text; late text; BEGIN
SELECT string_agg(name, ','), string_agg(name, ',') FILTER (WHERE condeferred) INTO every, late
FROM (SELECT DISTINCT format('%I.%I', nspname, conname) AS name, condeferred FROM
pg_catalog.pg_constraint c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace
WHERE condeferrable) AS found;
IF every <> '' THEN EXECUTE 'SET CONSTRAINTS ' || every || ' IMMEDIATE'; END IF;
IF late <> '' THEN EXECUTE 'SET CONSTRAINTS ' || late || ' DEFERRED'; END IF;
END $asyncdb$"""


def local_settings(statement: str, parameters: Any) -> list[str]:
    """Return the names of the settings that *statement* changes until the end of its
    transaction."""
    found = []
    if match := _SET_LOCAL.match(statement):
        word = " ".join(match[1].strip('"').lower().split())
        found.append(_NAMES.get(word, word))
    elif "set_config" in statement.lower():
        for match in _SET_CONFIG.finditer(statement):
            arguments = [_value(one, parameters) for one in _arguments(statement[match.end() :])]
            if len(arguments) == 3 and arguments[2].lower() in _TRUE:
                found.append(arguments[0])
    return [name for name in found if re.fullmatch(r"\w+(?:\.\w+)*", name)]


def at_commit(statement: str) -> list[str]:
    """Return statements for what COMMIT does because of *statement*: it drops a temporary table."""
    names = [match[1].rpartition(".")[2] for match in _TEMPORARY.finditer(statement)]
    return [f"DROP TABLE IF EXISTS pg_temp.{name} CASCADE" for name in names]


def keep_and_put_back(name: str, slot: str) -> tuple[str, str]:
    """Return a statement that keeps the value of the setting *name* in the setting
    ``asyncdb.slot``, and one that restores it, unless the first was rolled back."""
    now = f"coalesce(current_setting('{name}', true), '')"
    return (
        f"SELECT set_config('asyncdb.{slot}', '=' || {now}, true)",
        f"SELECT set_config('{name}', CASE WHEN left(kept, 1) = '=' THEN substr(kept, 2)"
        f" ELSE {now} END, true) FROM current_setting('asyncdb.{slot}', true) AS kept",
    )


def _arguments(text: str) -> Iterator[str]:
    """Yield the arguments of a call, from the text behind its opening bracket."""
    depth, argument = 0, ""
    for part in _PARTS.findall(text):
        if depth == 0 and part in (",", ")"):
            yield argument.strip()
            argument = ""
            if part == ")":
                return
        else:
            depth += (part == "(") - (part == ")")
            argument += part


def _value(argument: str, parameters: Any) -> str:
    """Return the value of an argument that is a constant or a parameter; else an empty text."""
    if match := _PARAMETER.fullmatch(argument):
        try:
            value = parameters[int(match[1]) - 1 if match[1] else match[2]]
        except (LookupError, TypeError):
            return ""
        return str(value)
    if match := _CONSTANT.fullmatch(argument):
        return match[1]
    return argument if argument.lower() in _TRUE else ""
