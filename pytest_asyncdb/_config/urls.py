"""URLs of running servers: the backend that each is for, and the hosts that it leads to.

The plugin creates and drops databases. So it uses a server by URL only if the server is on this
machine, has a name without a dot (a service of CI or Docker), or is allowed by the user. Only the
text is read: no name is resolved, nothing is connected to. SQLAlchemy is not imported, because a
run without database tests must not pay for that.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import os
import re
from urllib.parse import parse_qsl, unquote

from pytest_asyncdb import errors
from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._config.specs import parse_spec, unknown_word, versioned
from pytest_asyncdb.values import Sourced

#: Parameters of a URL that lead to a host indirectly.
_INDIRECT_KEYS = ("service", "servicefile", "dsn", "read_default_file")


def parse_url(word: str, source: str, name: str, registry: Registry) -> tuple[str, Sourced[str]]:
    """Check ``[BACKEND[@VERSION]=]URL``. Return the backend, or backend and version, and the URL.

    Args:
        source: Where the word was written; the word itself is never shown.
        name: The backend, if the source says it; else empty.

    Raises:
        ConfigError: It is not a URL, its dialect or driver is unknown or not async, or its password
            has a character that must be percent-encoded.
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
        raise unknown_word("dialect in a URL", scheme, source, list(schemes))
    spec = parse_spec(prefix or name or schemes[scheme], source, registry)
    drivers = [one.name for one in registry.backend(spec.backend).drivers]
    if driver and driver not in drivers:
        hint = f"write {scheme}+{drivers[0]}://, since tests use an async engine"
        raise unknown_word(f"async driver for {scheme}", driver, source, drivers, hint)
    _check_userinfo(rest, source)
    return versioned(spec), Sourced(url, source)


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


def check_host(url: Sourced[str], allowed: str, flag: str = "--asyncdb-allow-hosts") -> None:
    """Refuse a server that may hold real data.

    Args:
        url: Its value is never shown.
        allowed: Names and patterns, such as ``*.lab.example.com``, separated by commas.
        flag: The option with *allowed*, for the error.

    Raises:
        ConfigError: The server is not known as a test server, and not allowed.
    """
    patterns = allowed.lower().replace(",", " ").split()
    for host in hosts_of(url.value):
        known = _is_local(host) or re.fullmatch(r"[a-z][a-z0-9_-]*", host.lower())
        if not known and not any(fnmatch.fnmatchcase(host.lower(), word) for word in patterns):
            hosts = ",".join([*patterns, host])
            raise errors.ConfigError(
                f"{host} is not known as a test server ({url.source})",
                [
                    "Nothing was sent to it. The plugin creates and drops databases on such a "
                    "server.",
                    "Known are this machine and names without a dot, such as postgres or db.",
                ],
                [
                    f"if it is for tests, say so: {flag}={hosts}",
                    f"or in the environment: ASYNCDB_ALLOW_HOSTS={hosts}",
                    f"or leave out {url.source}",
                ],
            )


def hosts_of(url: str) -> list[str]:
    """Return every host name, address and socket that *url* leads to.

    An indirect name is returned as ``service=name``. An empty list means the driver's default on
    this machine.
    """
    scheme, _, rest = url.partition("://")
    authority, _, query = re.split(r"[/?#]", rest, maxsplit=1)[0], *rest.partition("?")[1:]
    hosts = [unquote(_without_port(authority.rpartition("@")[2]))]
    parameters = parse_qsl(query)
    for value in (value for key, value in parameters if key in ("host", "hostaddr")):
        hosts += map(_without_port, value.split(","))
    named = any(hosts)
    hosts += [f"{key}={value}" for key, value in parameters if key in _INDIRECT_KEYS]
    if scheme.startswith("postgres"):  # libpq's variables; a host in the URL overrides two of them
        for name in ("PGHOSTADDR",) if named else ("PGHOST", "PGHOSTADDR"):
            hosts += os.environ.get(name, "").split(",")
        if not named and (service := os.environ.get("PGSERVICE")):
            hosts.append(f"PGSERVICE={service}")
    return [host for host in hosts if host]


def _is_local(host: str) -> bool:
    """Return whether *host* is a socket or a loopback address of the machine that connects."""
    if host.startswith(("/", "@")) or re.fullmatch(r"(.*\.)?localhost", host.lower()):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _without_port(address: str) -> str:
    match = re.fullmatch(r"\[(.*)\](?::\d*)?|([^:]*)(?::\d*)?|(.*)", address)
    return next(filter(None, match.groups()), "") if match is not None else address
