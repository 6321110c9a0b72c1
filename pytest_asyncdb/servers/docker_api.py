"""The container engine: where it is, whether it answers, and what it is asked.

Speaks to it without the package ``docker``, which takes long to import.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

#: Marks our containers; the value is the record of the owner.
LABEL = "org.pytest-asyncdb"
#: On containers that may outlive their run: the folder of the record; see ``reusable.py``.
RECORD = "org.pytest-asyncdb.record"
#: How the name of testcontainers' helper begins; its session follows.
RYUK = "testcontainers-ryuk-"
#: Seconds for the engine to answer a ping.
_PING = 2.0
#: Seconds for the engine to do what it is asked, such as to remove a container.
_PATIENCE = 30.0
_DEFAULT_ENGINE = "unix:///var/run/docker.sock"


def remove_container(number: str) -> bool:
    """Kill and remove a container and its volumes; False where the engine would not.

    Args:
        number: Its id or name.
    """
    try:
        status, _ = call("DELETE", f"/containers/{number}?force=1&v=1")
    except (OSError, http.client.HTTPException):
        return False
    # 404: gone already; 409: somebody else is removing it, such as Ryuk.
    return status in (204, 404, 409)


def is_plain(engine: str) -> bool:
    """Can it be asked without TLS, ssh or a pipe?"""
    plain = urlsplit(engine).scheme in ("unix", "tcp", "http")
    return plain and not os.environ.get("DOCKER_TLS_VERIFY")


class _Connection(http.client.HTTPConnection):
    """To an engine without TLS."""

    def __init__(self, engine: str, seconds: float) -> None:
        parts = urlsplit(engine)
        super().__init__(parts.hostname or "docker", parts.port or 2375, timeout=seconds)
        self._path = parts.path if parts.scheme == "unix" else None
        if not is_plain(engine):
            raise OSError(f"no plain connection: {engine}")

    def connect(self) -> None:
        if self._path is None:
            super().connect()
        else:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)


def call(method: str, path: str, seconds: float = _PATIENCE) -> tuple[int, bytes]:
    """Ask the engine; the status and the body of its answer.

    Raises:
        OSError: It cannot be reached, does not answer in time, or wants more than a plain
            connection.
        http.client.HTTPException: What it says is no answer.
    """
    connection = _Connection(engine_address(), seconds)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def engine_address() -> str:
    """Where the Docker client would look for its engine."""
    return os.environ.get("DOCKER_HOST") or _context_engine() or _DEFAULT_ENGINE


def _context_engine() -> str | None:
    """The engine of ``docker context use``, as Docker Desktop and Colima set it.

    The place of the file: https://docs.docker.com/engine/manage-resources/contexts/.
    """
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        name = os.environ.get("DOCKER_CONTEXT")
        if not name:
            name = json.loads((folder / "config.json").read_text())["currentContext"]
        meta = folder / "contexts/meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
        host = json.loads(meta.read_text())["Endpoints"]["docker"]["Host"]
        return str(host)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def ping(engine: str) -> str | None:
    """Ask the engine for a sign of life; what is wrong, or None."""
    try:
        answer = _get(engine, "/_ping")
    except OSError as error:
        return error.strerror or str(error)
    return None if answer is None or " 200 " in answer else f"it answers {answer!r}"


def is_running(container: str) -> bool:
    """Does a container run, as far as the engine can be asked?

    Args:
        container: Its id or name.
    """
    try:
        status, body = call("GET", f"/containers/{container}/json")
        return status == 200 and bool(json.loads(body)["State"]["Running"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return False


def image_id(image: str) -> str | None:
    """What tells an image from others that have borne its name; None: it is not there."""
    try:
        status, body = call("GET", _image(image))
        return str(json.loads(body)["Id"]) if status == 200 else None
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None


def _image(image: str) -> str:
    return f"/images/{os.environ.get('TESTCONTAINERS_HUB_IMAGE_NAME_PREFIX', '')}{image}/json"


def at_hand(engine: str, image: str) -> bool:
    """Does the engine have the image? Yes where it cannot be told."""
    try:
        answer = _get(engine, _image(image))
    except OSError:
        return True
    return answer is None or " 404 " not in answer


def _get(engine: str, path: str) -> str | None:
    """The first line of the engine's answer; None where there is no plain way to ask.

    Raises:
        OSError: It cannot be reached.
    """
    parts = urlsplit(engine)
    address: Any
    if parts.scheme == "unix":
        family, address = socket.AF_UNIX, parts.path
    elif parts.scheme in ("tcp", "http", "https"):
        family, address = socket.AF_INET, (parts.hostname, parts.port or 2375)
    else:
        return None  # ssh and Windows' pipes: to ask is to start something
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PING)
        connection.connect(address)
        if os.environ.get("DOCKER_TLS_VERIFY") or parts.scheme == "https":
            return None  # it listens; the rest wants certificates
        request = f"GET {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        return connection.recv(1024).split(b"\r\n", 1)[0].decode(errors="replace")
