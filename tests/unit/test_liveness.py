"""Whether a server still answers, and what happens to the test that waits for it."""

from __future__ import annotations

import socket

import pytest

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._run import liveness
from pytest_asyncdb._run.liveness import Liveness, is_answer
from pytest_asyncdb._run.messages import server_lost
from pytest_asyncdb.abc import BackendSpec, Server


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("53300", True),  # PostgreSQL: too many clients
        ("28P01", True),  # the password is wrong
        ("57P01", False),  # it is shutting down
        ("08001", False),  # the client could not connect
        (1040, True),  # MySQL: too many connections
        (2003, False),  # the client cannot connect
        (2013, False),  # the connection was lost
        (None, False),
    ],
)
def test_an_error_of_the_server_is_an_answer(code: int | str | None, expected: bool) -> None:
    assert is_answer(code) is expected


def test_a_server_that_does_not_answer_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent one, too. It is not asked again within some seconds; an unknown one is not asked."""
    monkeypatch.setattr(liveness, "ANSWER", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        registry = Registry()
        spec = BackendSpec("postgres", "asyncpg")
        host, port = silent.getsockname()
        gone = Server(
            *("postgres", "17", "url", "a URL"),
            managed=False, host=host, port=port, user="ada", maintenance="postgres",
        )  # fmt: skip
        servers = Liveness()
        servers.add("gone", gone, registry.backend("postgres"), registry.driver(spec))
        lost = servers.lost("gone")
        assert servers.lost("gone") is lost
        assert servers.lost("other") is None
    assert lost is not None
    assert str(lost).startswith(f"the PostgreSQL server is gone (provider url, {host}:{port})\n")
    assert "no answer within 0.5 s" in str(lost)


@pytest.mark.parametrize(
    ("provider", "remedy"),
    [
        ("url", "see that the server runs and can be reached, then run the tests again"),
        (
            "local",
            "see what has ended it (the memory of the machine, the disk), then run the tests again",
        ),
    ],
)
def test_a_server_that_is_gone_is_said(provider: str, remedy: str) -> None:
    server = Server("postgres", "17", provider, "", managed=False, host="127.0.0.1", port=5432)
    error = server_lost("PostgreSQL", server, "no answer within 10 s")
    assert str(error) == (
        f"the PostgreSQL server is gone (provider {provider}, 127.0.0.1:5432)\n"
        "\n"
        "Seen:\n"
        "  - no answer within 10 s\n"
        "\n"
        f"To fix this: {remedy}"
    )
