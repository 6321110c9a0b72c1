"""The Docker engine: where it is, whether it answers, and what the plugin asks about containers.

The ping and the search for an image do not use the package ``docker``, because its import takes 60
ms, and runs that start no container use these functions, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pytest_asyncdb._system.process_identity import Owner

#: The label of the plugin's containers; its value is the record of the owner.
LABEL = "org.pytest-asyncdb"
#: Seconds within which the engine must answer a ping.
_PING = 2.0
_DEFAULT_ENGINE = "unix:///var/run/docker.sock"


def engine_address() -> str:
    """Return the address of the engine that the Docker client would use."""
    return os.environ.get("DOCKER_HOST") or _context_engine() or _DEFAULT_ENGINE


def _context_engine() -> str | None:
    """Return the engine of ``docker context use``, which Docker Desktop and Colima set, or None.

    Where its files are: https://docs.docker.com/engine/manage-resources/contexts/.
    """
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        name = os.environ.get("DOCKER_CONTEXT")
        if not name:
            name = json.loads((folder / "config.json").read_text())["currentContext"]
        meta = folder / "contexts/meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
        return str(json.loads(meta.read_text())["Endpoints"]["docker"]["Host"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def ping(engine: str) -> str | None:
    """Ask whether the engine answers. Return what is wrong, or None."""
    try:
        answer = _status_line(engine, "/_ping")
    except OSError as error:
        return error.strerror or str(error)
    return None if answer is None or " 200 " in answer else f"it answers {answer!r}"


def has_image(engine: str, image: str) -> bool:
    """Return whether the engine has the image. True if the engine cannot be asked."""
    try:
        answer = _status_line(engine, f"/images/{full_name(image)}/json")
    except OSError:
        return True
    return answer is None or " 404 " not in answer


def _status_line(engine: str, path: str) -> str | None:
    """Return the first line of the engine's answer; None if asking needs TLS, ssh or a named pipe.

    Raises:
        OSError: The engine cannot be reached.
    """
    parts = urlsplit(engine)
    address: Any = (parts.hostname, parts.port or 2375)
    if parts.scheme not in ("unix", "tcp", "http", "https"):
        return None
    if parts.scheme == "unix":
        if not hasattr(socket, "AF_UNIX"):  # Windows
            raise OSError("this system has no Unix sockets")
        connection = socket.socket(socket.AF_UNIX)
        address = parts.path
    else:
        connection = socket.socket()
    with connection:
        connection.settimeout(_PING)
        connection.connect(address)
        if os.environ.get("DOCKER_TLS_VERIFY") or parts.scheme == "https":
            return None  # it listens
        request = f"GET {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        return connection.recv(1024).split(b"\r\n", 1)[0].decode(errors="replace")


def full_name(image: str) -> str:
    """Return the image's name with the user's prefix, such as that of a mirror."""
    return os.environ.get("TESTCONTAINERS_HUB_IMAGE_NAME_PREFIX", "") + image


@contextlib.contextmanager
def connected() -> Iterator[Any]:
    """Yield a client of the package ``docker``.

    Raises:
        docker.errors.DockerException: The engine cannot be asked.
    """
    import docker

    engine = engine_address()
    environment = {**os.environ, "DOCKER_HOST": engine}
    ssh = engine.startswith("ssh://")
    with contextlib.closing(docker.from_env(environment=environment, use_ssh_client=ssh)) as client:
        yield client


def is_running(name: str) -> bool:
    """Return whether a container runs. False if the engine cannot be asked."""
    with contextlib.suppress(Exception), connected() as client:
        return bool(client.containers.get(name).status == "running")
    return False


def remove_container(name: str) -> bool:
    """Kill and remove a container and its volumes. Return False if the engine refuses."""
    with contextlib.suppress(Exception), connected() as client:
        found = client.containers
        for one in found.list(all=True, filters={"name": f"^/{name}$"}, ignore_removed=True):
            remove(one)
        return True
    return False


def remove(container: Any) -> bool:
    """Kill and remove a container of the package ``docker``, and its volumes.

    Returns:
        True.

    Raises:
        docker.errors.APIError: The engine refused.
    """
    from docker.errors import APIError

    try:
        container.remove(force=True, v=True)
    except APIError as error:
        # 404: it is gone. 409: it is already being removed, for example by Ryuk.
        if error.status_code not in (404, 409):
            raise
    return True


def labelled() -> Iterator[tuple[Any, Owner]]:
    """Yield every container with the plugin's label, running or not, also of other machines.

    Yields:
        A container of the package ``docker``, and the process that started it.

    Raises:
        docker.errors.DockerException: The engine cannot be asked.
    """
    try:
        with connected() as client:
            found = client.containers
            for one in found.list(all=True, filters={"label": LABEL}, ignore_removed=True):
                with contextlib.suppress(ValueError):  # the label is not the plugin's
                    yield one, Owner.from_json(one.labels[LABEL])
    except ImportError:  # without the package, there are no containers
        return


def remove_dead() -> None:
    """Remove the containers that killed runs have left. If that fails, the next run tries again."""
    with contextlib.suppress(Exception):
        for container, owner in labelled():
            if not owner.holds(container.name):
                remove(container)
