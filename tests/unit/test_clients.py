"""The commands that open a database: what stands in them, and in the files that they read."""

from __future__ import annotations

import dataclasses

import pytest

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb.abc import Server

SERVER = Server(
    backend="postgres",
    version="17",
    provider="url",
    reason="",
    managed=False,
    host="db",
    port=5433,
    user="ada o'b",
    password='a:b\\c"d',
    maintenance="postgres",
)


def test_psql_gets_a_connection_string_and_a_password_file() -> None:
    """Both in libpq's own quoting."""
    server = dataclasses.replace(SERVER, query=(("sslmode", "require"), ("timeout", "5")))
    command, text = (
        Registry().backend("postgres").client_command(server, "/a b/x.client", "asyncdb_kept_x")
    )
    expected = (
        r"host=db port=5433 user='ada o\'b' sslmode=require dbname=asyncdb_kept_x"
        " passfile='/a b/x.client'"
    )
    assert command == ("psql", expected)
    assert text == '*:*:*:*:a\\:b\\\\c"d\n'


@pytest.mark.parametrize("name", ["mysql", "mariadb"])
def test_mysql_gets_an_option_file(name: str) -> None:
    command, text = Registry().backend(name).client_command(SERVER, "/x.client", "asyncdb_kept_x")
    assert command == (name, "--defaults-extra-file=/x.client", "asyncdb_kept_x")
    assert text == (
        "[client]\n"
        'host="db"\n'
        'port="5433"\n'
        'user="ada o\'b"\n'
        'password="a:b\\\\c\\"d"\n'
        'protocol="TCP"\n'
    )


def test_mysql_by_a_socket_is_not_asked_by_tcp() -> None:
    server = dataclasses.replace(SERVER, query=(("unix_socket", "/run/x.sock"),))
    _, text = Registry().backend("mysql").client_command(server, "/x.client", "x")
    assert 'socket="/run/x.sock"\n' in text
    assert "protocol" not in text


def test_sqlite3_gets_the_file() -> None:
    assert Registry().backend("sqlite").client_command(SERVER, "/x.sqlite", "x") == (
        ("sqlite3", "/x.sqlite"),
        "",
    )
