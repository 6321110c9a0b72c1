"""A container as a program, before an engine that says what it is told to."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pytest_asyncdb.servers import supervisor
from pytest_asyncdb.servers.container import ContainerProvider

ATTEND = Path(supervisor.__file__).with_name("attend.py")
OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
DONE = b"HTTP/1.1 204 No Content\r\n\r\n"
#: What the engine says of a program that has printed to both outputs.
LOG = b"\x01\0\0\0\0\0\0\x04one\n\x02\0\0\0\0\0\0\x04two\n"


@contextlib.contextmanager
def engine(path: Path, answers: Sequence[bytes]) -> Iterator[list[str]]:
    """Something that gives the answers, one a connection; the first lines of what it was asked."""
    asked: list[str] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(30)
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    asked.append(connection.recv(4096).decode().partition(" HTTP")[0])
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join()


def attend(path: Path, answers: Sequence[bytes]) -> tuple[int, str, list[str]]:
    """The exit code, the output, and what the engine was asked."""
    with engine(path, answers) as asked:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(ATTEND), f"unix://{path}", "it"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
        )
    return done.returncode, done.stdout, asked


def test_it_ends_with_the_container_and_removes_it(tmp_path: Path) -> None:
    """What that has printed is kept, as it goes with it."""
    code, output, asked = attend(tmp_path / "engine", [DONE, OK + b"{}", OK + LOG, DONE])
    assert (code, output) == (0, "one\ntwo\n")
    assert asked == [
        "POST /containers/it/start",
        "POST /containers/it/wait",
        "GET /containers/it/logs?stdout=1&stderr=1&tail=40",
        "DELETE /containers/it?force=1&v=1",
    ]


def test_an_engine_that_is_started_anew_is_asked_again(tmp_path: Path) -> None:
    """The connection on which it waits breaks, then there is an engine in trouble."""
    trouble = b"HTTP/1.1 503 Service Unavailable\r\n\r\n"
    answers = [DONE, b"", trouble, OK + b"{}", OK, DONE]
    code, output, asked = attend(tmp_path / "engine", answers)
    assert (code, output) == (0, "")
    assert asked[1:4] == ["POST /containers/it/wait"] * 3
    assert asked[-1].startswith("DELETE ")


def test_a_container_that_cannot_be_started_is_removed(tmp_path: Path) -> None:
    answers = [b"HTTP/1.1 500 Internal Server Error\r\n\r\nno such runtime", DONE]
    code, output, asked = attend(tmp_path / "engine", answers)
    assert (code, output) == (1, "no such runtime")
    assert asked == ["POST /containers/it/start", "DELETE /containers/it?force=1&v=1"]


@pytest.mark.parametrize(
    ("address", "tls", "keeps"),
    [
        ("unix:///var/run/docker.sock", "", True),
        ("tcp://10.0.0.1:2375", "", True),
        ("tcp://10.0.0.1:2376", "1", False),
        ("ssh://user@host", "", False),
    ],
)
def test_containers_stay_where_the_engine_can_be_asked(
    address: str, tls: str, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a program without packages."""
    monkeypatch.setenv("DOCKER_HOST", address)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", tls)
    assert ContainerProvider().keeps is keeps
