"""Which hosts a URL leads to, and which of them are known as test servers."""

from __future__ import annotations

import pytest

from pytest_asyncdb._config.urls import check_host, hosts_of
from pytest_asyncdb.abc import Sourced
from pytest_asyncdb.errors import ConfigError


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own machine may have some."""
    for name in ("PGHOST", "PGHOSTADDR", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://user:pass@db.example.com:5432/name", ["db.example.com"]),
        ("postgresql://user@[2001:db8::1]:5432/name", ["2001:db8::1"]),
        ("postgresql://db.example.com", ["db.example.com"]),
        ("postgresql:///name", []),
        ("postgresql://user@/name?host=/var/run/postgresql", ["/var/run/postgresql"]),
        ("postgresql://u@/n?host=one:5432&host=two,three:1", ["one", "two", "three"]),
        ("postgresql://u@localhost/n?hostaddr=10.1.2.3", ["localhost", "10.1.2.3"]),
        ("postgresql+psycopg:///?service=live", ["service=live"]),
        ("mysql://u:p@localhost/n?read_default_file=/my.cnf", ["localhost", "read_default_file=/my.cnf"]),
        ("mysql://u:p%40q@a%2Db/n", ["a-b"]),
        ("mysql://u:p[q@db:3306/n", ["db"]),
        ("postgresql+psycopg://u@localhost,db.example.com/n", ["localhost,db.example.com"]),
    ],
)  # fmt: skip
def test_every_place_that_a_url_leads_to_is_found(url: str, hosts: list[str]) -> None:
    """libpq's and SQLAlchemy's own ways of naming hosts in the query included."""
    assert hosts_of(url) == hosts


@pytest.mark.parametrize(
    ("url", "environment", "hosts"),
    [
        ("postgresql:///n", {"PGHOST": "db.example.com,/tmp"}, ["db.example.com", "/tmp"]),
        ("postgresql:///n", {"PGSERVICE": "live"}, ["PGSERVICE=live"]),
        ("postgresql:///n", {"PGHOST": "db", "PGSERVICE": "live"}, ["db", "PGSERVICE=live"]),
        ("postgresql://localhost/n", {"PGHOST": "db", "PGSERVICE": "live"}, ["localhost"]),
        ("postgresql://localhost/n", {"PGHOSTADDR": "10.1.2.3"}, ["localhost", "10.1.2.3"]),
        ("mysql:///n", {"PGHOST": "db.example.com"}, []),
    ],
)
def test_variables_of_the_drivers_lead_elsewhere(
    url: str, environment: dict[str, str], hosts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert hosts_of(url) == hosts


def check(host: str) -> None:
    where = f"[{host}]" if ":" in host else host.replace("/", "%2F")
    check_host(Sourced(f"mysql://user@{where}/name", "--asyncdb-url"), "")


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST", "127.0.0.1", "127.8.0.1", "::1", "0.0.0.0"),
        *("/var/run/postgresql", "pg.localhost", ""),
        *("postgres", "postgres-16", "mysql8", "db", "test_db", "shop-db"),
    ],
)
def test_this_machine_and_names_without_a_dot_are_known(host: str) -> None:
    """A service of CI or of Docker Compose has such a name."""
    check(host)


@pytest.mark.parametrize(
    "host",
    [
        *("db.example.com", "10.0.0.1", "192.168.1.5", "2001:db8::1", "test.example.com"),
        *("host.docker.internal", "127.0.0.1.example.com", "localhost.example.com"),
        *("167772161", "0x0a000001", "localhost,db.example.com"),
    ],
)
def test_other_hosts_are_not_known(host: str) -> None:
    """A number is an address: C libraries read 167772161 as 10.0.0.1."""
    with pytest.raises(ConfigError, match="is not known as a test server"):
        check(host)


@pytest.mark.parametrize("query", ["service=test", "read_default_file=/test", "host=a.example"])
def test_a_parameter_that_leads_elsewhere_is_not_known(query: str) -> None:
    url = Sourced(f"postgresql://user@localhost/name?{query}", "--asyncdb-url")
    with pytest.raises(ConfigError, match="is not known as a test server"):
        check_host(url, "")
    check_host(url, "*=*, *.example")
