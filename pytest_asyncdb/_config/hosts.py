"""Which hosts does a URL lead to, and are they known as test servers?

The plugin creates and drops databases, so it uses a server by URL only if that is on this
machine, has a name without a dot (a service of CI or Docker), or is allowed by the user.
Only the text is read: no name is resolved, nothing is connected to.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote

from pytest_asyncdb._config import messages
from pytest_asyncdb.abc import Sourced

#: Parameters of a URL that name something that leads to a host.
_INDIRECT_KEYS = ("service", "servicefile", "dsn", "read_default_file")


def check_host(
    url: Sourced[str],
    allowed: str,
    environment: Mapping[str, str],
    flag: str = "--asyncdb-allow-hosts",
) -> None:
    """Refuse a server that may hold real data.

    Args:
        url: Its value is never shown.
        allowed: Names and patterns, such as ``*.lab.example.com``, separated by commas.
        flag: The option with *allowed*, for the error.

    Raises:
        ConfigError: The server is not known as a test server, and not allowed.
    """
    patterns = allowed.lower().replace(",", " ").split()
    for host in hosts_of(url.value, environment):
        known = is_local(host) or re.fullmatch(r"[a-z][a-z0-9_-]*", host.lower())
        if not known and not any(fnmatch.fnmatchcase(host.lower(), word) for word in patterns):
            raise messages.not_a_test_server(host, url.source, patterns, flag)


def hosts_of(url: str, environment: Mapping[str, str]) -> list[str]:
    """Every host name, address and socket that *url* leads to.

    An indirect name is returned as ``service=name``. An empty list means the driver's default
    on this machine.
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
            hosts += environment.get(name, "").split(",")
        if not named and environment.get("PGSERVICE"):
            hosts.append(f"PGSERVICE={environment['PGSERVICE']}")
    return [host for host in hosts if host]


def is_local(host: str) -> bool:
    """Is *host* a socket or a loopback address of the machine that connects?"""
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
