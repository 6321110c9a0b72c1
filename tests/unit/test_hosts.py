"""Which hosts a URL leads to, and which of them are taken for test servers."""

from __future__ import annotations

import socket

import pytest

from pytest_asyncdb._config.hosts import hosts_of, is_test_host


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
    ],
)  # fmt: skip
def test_every_place_that_a_url_leads_to_is_found(url: str, hosts: list[str]) -> None:
    """libpq's and SQLAlchemy's own ways of naming hosts in the query included."""
    assert hosts_of(url, {}) == hosts


@pytest.mark.parametrize(
    ("url", "environment", "hosts"),
    [
        ("postgresql:///n", {"PGHOST": "db.example.com,/tmp"}, ["db.example.com", "/tmp"]),
        ("postgresql:///n", {"PGSERVICE": "live"}, ["PGSERVICE=live"]),
        ("postgresql://localhost/n", {"PGHOST": "db", "PGSERVICE": "live"}, ["localhost"]),
        ("postgresql://localhost/n", {"PGHOSTADDR": "10.1.2.3"}, ["localhost", "10.1.2.3"]),
        ("mysql:///n", {"PGHOST": "db.example.com"}, []),
    ],
)
def test_variables_of_the_drivers_lead_elsewhere(
    url: str, environment: dict[str, str], hosts: list[str]
) -> None:
    assert hosts_of(url, environment) == hosts


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST", "127.0.0.1", "127.8.0.1", "::1", "/var/run/postgresql"),
        *("pg.localhost", "host.docker.internal"),
        *("postgres", "postgres-16", "mysql8", "db", "test_db", "database-server", "docker"),
        *("test.example.com", "postgres-test.example.com", "ci1.internal", "testdb.internal"),
    ],
)
def test_known_as_test_servers(host: str) -> None:
    assert is_test_host(host)


@pytest.mark.parametrize(
    "host",
    [
        *("db.example.com", "10.0.0.1", "192.168.1.5", "2001:db8::1", "postgres.internal"),
        *("shop", "shop-db", "contest.example.com", "latest", "city.example.com"),
        *("prod-db-test", "test.production.example.com", "live-test", "staging"),
        *("service=test", "read_default_file=/test", "", "127.0.0.1.example.com"),
    ],
)
def test_not_known_as_test_servers(host: str) -> None:
    """A word within a word does not count, a word for a real one counts more."""
    assert not is_test_host(host)


def test_an_address_of_this_machine_is_known() -> None:
    """There Docker publishes ports; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("203.0.113.1", 9))
        except OSError:
            pytest.skip("this machine is in no network")
        own = probe.getsockname()[0]
    assert is_test_host(own)
    assert not is_test_host("203.0.113.1")
