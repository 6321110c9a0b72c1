"""The container engine: where it is, whether it answers, and which containers there are ours.

Speaks to it without the package ``docker``, which takes long to import.
"""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import json
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from pytest_asyncdb.servers._owner import Owner

#: Marks our containers; the value is the record of the owner.
LABEL = "org.pytest-asyncdb"
#: How the name of testcontainers' helper begins; its session follows.
RYUK = "testcontainers-ryuk-"
#: Seconds for the engine to answer a ping.
_PING = 2.0
#: Seconds for the engine to remove a container.
_REMOVE = 30.0
_DEFAULT_ENGINE = "unix:///var/run/docker.sock"


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A container that bears our label.

    Args:
        id: Its id.
        name: Its name.
        image: What it was made from.
        owner: None where the label cannot be read.
        ends_by_itself: It is Ryuk at its work.
    """

    id: str
    name: str
    image: str
    owner: Owner | None
    ends_by_itself: bool


def our_containers() -> list[Labelled]:
    """Every container of ours that the engine knows, running or not; of other machines, too.

    Empty where no engine answers, or where it wants more than a plain connection.
    """
    filters = quote(json.dumps({"label": [LABEL]}))
    try:
        status, body = _call("GET", f"/containers/json?all=1&filters={filters}")
        listed = json.loads(body) if status == 200 else []
        return [_labelled(entry) for entry in listed]
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return []


def _labelled(entry: dict[str, Any]) -> Labelled:
    name = (entry["Names"] or [entry["Id"][:12]])[0].lstrip("/")
    at_work = name.startswith(RYUK) and entry["State"] == "running"
    return Labelled(entry["Id"], name, entry["Image"], _owner_of(entry["Labels"][LABEL]), at_work)


def remove_container(number: str) -> bool:
    """Kill and remove a container and its volumes; False where the engine would not.

    Args:
        number: Its id or name.
    """
    try:
        status, _ = _call("DELETE", f"/containers/{number}?force=1&v=1")
    except (OSError, http.client.HTTPException):
        return False
    # 404: gone already; 409: somebody else is removing it, such as Ryuk.
    return status in (204, 404, 409)


def _owner_of(label: str) -> Owner | None:
    try:
        return Owner.from_json(label)
    except ValueError:
        return None


class _Connection(http.client.HTTPConnection):
    """To an engine without TLS."""

    def __init__(self, engine: str) -> None:
        parts = urlsplit(engine)
        super().__init__(parts.hostname or "docker", parts.port or 2375, timeout=_REMOVE)
        self._path = parts.path if parts.scheme == "unix" else None
        if parts.scheme not in ("unix", "tcp", "http") or os.environ.get("DOCKER_TLS_VERIFY"):
            raise OSError(f"no plain connection: {engine}")

    def connect(self) -> None:
        if self._path is None:
            super().connect()
        else:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)


def _call(method: str, path: str) -> tuple[int, bytes]:
    connection = _Connection(engine_address())
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


def at_hand(engine: str, image: str) -> bool:
    """Does the engine have the image? Yes where it cannot be told."""
    prefix = os.environ.get("TESTCONTAINERS_HUB_IMAGE_NAME_PREFIX", "")
    try:
        answer = _get(engine, f"/images/{prefix}{image}/json")
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
