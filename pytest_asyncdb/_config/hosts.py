"""Whose server does a URL lead to? Only what is known as a test server is used without asking.

Read from the text: no name is looked up, nothing is connected to, and SQLAlchemy is not needed.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import parse_qsl, unquote

from pytest_asyncdb import errors
from pytest_asyncdb._config import messages
from pytest_asyncdb.abc import Sourced

#: Words that say that a server is for tests, wherever they stand in its name.
_TEST = {"test", "tests", "testing", "testdb", "ci"}
#: Words that say that it is not.
_REAL = {"prod", "production", "live", "staging", "stage", "preprod"}
#: What CI services and containers are called that are nothing but a database server. Only
#: names without a dot: these lead no further than the network of a job.
_PLAIN = {"postgres", "postgresql", "pg", "mysql", "mariadb", "db", "database", "sql"}
_PLAIN |= {"server", "service", "docker", "localhost"}
#: What the machine is called on which a container runs.
_OUTSIDE = {"host.docker.internal", "host.containers.internal"}
#: Parameters of a URL that name a host, and those that name something that leads to one.
_HOSTS = ("host", "hostaddr")
_ELSEWHERE = ("service", "servicefile", "dsn", "read_default_file")
#: What PostgreSQL's drivers read where the URL says nothing.
_VARIABLES = ("PGHOST", "PGHOSTADDR")


def check_host(
    url: Sourced[str],
    allowed: str,
    environment: Mapping[str, str],
    refusal: Callable[[str, str, Sequence[str]], errors.ConfigError] = messages.not_a_test_server,
) -> None:
    """Refuse a server that may be somebody's real one.

    Args:
        url: Its value is never shown.
        allowed: Names and patterns, such as ``*.lab.example.com``, with commas.
        refusal: Makes the error of a host, of where it comes from, and of what is allowed.

    Raises:
        ConfigError: The server is not known as a test server, and not allowed.
    """
    patterns = allowed.lower().replace(",", " ").split()
    for host in hosts_of(url.value, environment):
        if not is_test_host(host) and not any(
            fnmatch.fnmatchcase(host.lower(), pattern) for pattern in patterns
        ):
            raise refusal(host, url.source, patterns)


def hosts_of(url: str, environment: Mapping[str, str]) -> list[str]:
    """Every host name, address and socket that *url* leads to; what names them elsewhere, as
    ``service=name``. Empty: the driver's default, on this machine."""
    scheme, _, rest = url.partition("://")
    authority, _, query = re.split(r"[/?#]", rest, maxsplit=1)[0], *rest.partition("?")[1:]
    address = authority.rpartition("@")[2]
    match = re.match(r"\[([^]]*)\]|([^:]*)", address)
    found = [unquote(match.group(1) or match.group(2) or "")] if match else []
    for key, value in parse_qsl(query):
        if key in _HOSTS:
            found += [_without_port(host) for host in value.split(",")]
        elif key in _ELSEWHERE:
            found.append(f"{key}={value}")
    found = [host for host in found if host]
    if scheme.startswith("postgres"):
        found += _from(environment, bool(found))
    return found


def only_here(url: Sourced[str]) -> str | None:
    """Why the server of *url* can be reached from one host only, or None."""
    found = hosts_of(url.value, {})
    if not found:
        return "the URL names no host"
    for host in found:
        if host.startswith(("/", "@")):
            return f"{host} is a socket of this host"
        if host.lower() == "localhost" or host.lower().endswith(".localhost") or _loops(host):
            return f"{host} is each host's own address"
    return None


def _loops(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def is_test_host(host: str) -> bool:
    """Is *host* this machine, or named as a test server?"""
    if host.startswith(("/", "@")):
        return True  # a socket of this machine
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return address.is_loopback or _is_own(address)
    words = {word.strip("0123456789") for word in re.split(r"[^a-z0-9]+", host.lower())} - {""}
    if "=" in host or words & _REAL:
        return False
    return bool(
        words & _TEST
        or host.lower().endswith(".localhost")
        or host.lower() in _OUTSIDE
        or ("." not in host and words and words <= _PLAIN)
    )


def _is_own(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Is it an address of this machine, such as the one where Docker publishes ports?"""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def _from(environment: Mapping[str, str], named: bool) -> Iterable[str]:
    """Where PostgreSQL's own variables lead.

    Args:
        named: The URL names a host, which goes before ``PGHOST``, but not before ``PGHOSTADDR``.
    """
    for name in _VARIABLES[named:]:
        yield from filter(None, environment.get(name, "").split(","))
    if not named and environment.get("PGSERVICE"):
        yield f"PGSERVICE={environment['PGSERVICE']}"


def _without_port(host: str) -> str:
    """*host* of ``host:port``, where that is not an address of IPv6 or a path."""
    name, colon, port = host.partition(":")
    return name if colon and port.isdigit() else host.strip("[]")
