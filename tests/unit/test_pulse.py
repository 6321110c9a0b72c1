"""Whether a server still answers: what counts as an answer, and what is cut."""

from __future__ import annotations

import socket

import pytest

from pytest_asyncdb._run.liveness import _is_answer, cut
from pytest_asyncdb._run.messages import server_lost
from pytest_asyncdb.abc import Server


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
    assert _is_answer(code) is expected


def test_only_connections_to_the_server_are_cut() -> None:
    """Whoever reads from one sees its end; the others go on."""
    with (
        socket.create_server(("127.0.0.1", 0)) as gone,
        socket.create_server(("127.0.0.1", 0)) as stays,
        socket.create_connection(gone.getsockname()) as first,
        socket.create_connection(stays.getsockname()) as second,
    ):
        far = stays.accept()[0]
        cut(
            Server(
                "postgres",
                "17",
                "url",
                "a URL",
                managed=False,
                host="localhost",
                port=gone.getsockname()[1],
            )
        )
        assert first.recv(1) == b""
        with far:
            far.sendall(b"x")
            assert second.recv(1) == b"x"


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
    error = server_lost("PostgreSQL", provider, "127.0.0.1:5432", "no answer within 10 s")
    assert str(error) == (
        f"the PostgreSQL server is gone (provider {provider}, 127.0.0.1:5432)\n"
        "\n"
        "Seen:\n"
        "  - no answer within 10 s\n"
        "\n"
        f"To fix this: {remedy}"
    )
