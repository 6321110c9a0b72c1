"""URLs of servers that are already there: which backend, which driver, and is it a URL?

Read without SQLAlchemy, whose import a run without database tests must not pay for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_asyncdb import errors
from pytest_asyncdb._config import messages
from pytest_asyncdb.abc import Sourced

if TYPE_CHECKING:
    from pytest_asyncdb._config.registry import Registry

#: Drivers that SQLAlchemy knows and no async engine can use.
_SYNC_DRIVERS = (
    *("psycopg2", "pg8000", "psycopg2cffi"),
    *("pymysql", "mysqldb", "mysqlconnector", "mariadbconnector", "pyodbc"),
    *("pysqlite", "pysqlcipher"),
)


def add_url(
    urls: dict[str, Sourced[str]], word: str, source: str, name: str | None, registry: Registry
) -> None:
    """Check ``[BACKEND[@VERSION]=]URL`` and put it into *urls* under what it is for.

    Args:
        source: Where the word was written; the word itself is never shown.
        name: The backend, where the source says it already.

    Raises:
        ConfigError: It is no URL, its dialect or driver is unknown or not async, or its
            password is cut in two by the URL's syntax.
    """
    match = re.match(r"(?:(\w+)(@[\w.-]+)?=)?((\w+)(?:\+(\w+))?://(.*))", word.strip(), re.DOTALL)
    if match is None:
        raise errors.ConfigError(
            f"this is not a database URL ({source})",
            ["(It is not shown, since it may hold a password.)"],
            ["write dialect+driver://user:password@host:port/name"],
        )
    prefix, version, url, scheme, driver, rest = match.groups()
    schemes = {s: b for b in registry.backends for s in registry.backend(b).schemes}
    if scheme not in schemes:
        raise messages.unknown_word("dialect in a URL", scheme, source, list(schemes))
    backend = registry.backend(prefix or name or schemes[scheme])
    known = [d.name for d in backend.drivers]
    if driver and driver not in known:
        raise _wrong_driver(scheme, driver, known, source)
    _check_userinfo(rest, source)
    urls[backend.name + (version or "")] = Sourced(url, source)


def _wrong_driver(
    scheme: str, driver: str, known: Sequence[str], source: str
) -> errors.ConfigError:
    if driver in _SYNC_DRIVERS:
        return errors.ConfigError(
            f"{driver!r} is not an async driver ({source})",
            [f"The URL begins with {scheme}+{driver}://; its tests use an async engine."],
            [f"write {scheme}+{known[0]}:// instead, or one of: {', '.join(known)}"],
        )
    return messages.unknown_word(f"driver for {scheme}", driver, source, known)


def _check_userinfo(rest: str, source: str) -> None:
    """Refuse a password that the URL's syntax would cut in two."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if authority.count("@") > 1 or ("@" in rest and "@" not in authority):
        raise errors.ConfigError(
            f"the URL's password holds a character that ends it ({source})",
            ["One of @ / ? # stands in the user name or password as it is."],
            [
                "percent-encode it: python -c "
                "\"import getpass, urllib.parse as u; print(u.quote(getpass.getpass(), ''))\""
            ],
        )
