"""Checks the URLs of running servers, and finds the backend that each is for.

Without SQLAlchemy: a run without database tests must not pay for its import.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_asyncdb import errors
from pytest_asyncdb._config import messages
from pytest_asyncdb._config.specs import parse_spec
from pytest_asyncdb.abc import Sourced

if TYPE_CHECKING:
    from pytest_asyncdb._config.registry import Registry


def add_url(
    urls: dict[str, Sourced[str]], word: str, source: str, name: str, registry: Registry
) -> None:
    """Check ``[BACKEND[@VERSION]=]URL`` and add it to *urls* under its backend and version.

    Args:
        source: Where the word was written; the word itself is never shown.
        name: The backend, if the source says it; else empty.

    Raises:
        ConfigError: It is not a URL, its dialect or driver is unknown or not async, or its
            password has a character that must be percent-encoded.
    """
    match = re.match(r"(?:(\w+(?:@[\w.-]+)?)=)?((\w+)(?:\+(\w+))?://(.*))", word.strip(), re.DOTALL)
    if match is None:
        raise errors.ConfigError(
            f"this is not a database URL ({source})",
            ["(It is not shown, since it may hold a password.)"],
            ["write dialect+driver://user:password@host:port/name"],
        )
    prefix, url, scheme, driver, rest = match.groups()
    schemes: dict[str, str] = {}
    for known in registry.backends:  # a backend that inherits another's schemes comes later
        for own in registry.backend(known).schemes:
            schemes.setdefault(own, known)
    if scheme not in schemes:
        raise messages.unknown_word("dialect in a URL", scheme, source, list(schemes))
    spec = parse_spec(prefix or name or schemes[scheme], source, registry)
    drivers = [one.name for one in registry.backend(spec.backend).drivers]
    if driver and driver not in drivers:
        hint = f"write {scheme}+{drivers[0]}://, since tests use an async engine"
        raise messages.unknown_word(f"async driver for {scheme}", driver, source, drivers, hint)
    _check_userinfo(rest, source)
    urls[spec.backend + (f"@{spec.version}" if spec.version else "")] = Sourced(url, source)


def _check_userinfo(rest: str, source: str) -> None:
    """Refuse a user name or password with a character that must be percent-encoded."""
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
