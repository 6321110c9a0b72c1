"""One container, through testcontainers' client. The package is imported on use.

testcontainers' own class for containers is not used: it publishes ports on every interface, and its
containers always end with the process. One private name is used, ``Reaper``. Without it the
container of a killed run stays until the next run.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import threading
from collections.abc import Sequence
from typing import Any

from pytest_asyncdb._system.process_identity import Owner
from pytest_asyncdb.abc import ContainerRecipe, Server
from pytest_asyncdb.servers import docker_api
from pytest_asyncdb.servers.data_volume import DataVolume
from pytest_asyncdb.servers.reusable import Record

#: testcontainers itself does not prevent two threads from starting two Ryuks.
_ryuk_lock = threading.Lock()


class Ended(Exception):
    """The container ended by itself."""


class Container(contextlib.AbstractContextManager["Container"]):
    """A container that is removed when the context is left, unless it was kept.

    The methods raise what docker and testcontainers raise.
    """

    def __init__(self, image: str) -> None:
        self._image = image
        self._process = os.getpid()
        self._docker: Any = None
        self._found: Any = None
        self._container: Any = None

    def __exit__(self, *_: object) -> None:
        if os.getpid() != self._process:
            return  # in a forked child the garbage collector comes here, too
        try:
            if self._container is not None:
                docker_api.remove(self._container)
        finally:
            if self._docker is not None:
                self._docker.client.close()

    def get_image(self) -> str:
        """Download the image unless the engine has it. Return its id."""
        from docker.errors import ImageNotFound

        name = docker_api.full_name(self._image)
        with docker_api.connected() as client, contextlib.suppress(ImageNotFound):
            self._found = client.images.get(name)
        self._found = self._found or self._client().client.images.pull(name)
        return str(self._found.id)

    def _client(self) -> Any:
        """Return testcontainers' client, which logs in to registries."""
        from testcontainers.core.docker_client import DockerClient

        self._docker = self._docker or DockerClient()
        return self._docker

    def start(
        self, recipe: ContainerRecipe, words: Sequence[str], owner: Owner
    ) -> tuple[str, int, str]:
        """Start the container, after :meth:`get_image`.

        The engine publishes the port on the loopback address only. It uses all addresses if it is
        on another machine, or outside of the container that this process is in.

        Args:
            words: Everything that decides what the data folder holds.
            owner: The owner of the container. Unless later runs may find the container, Ryuk
                removes it if this process is killed.

        Returns:
            The host and the port at which this process reaches the server, and its password.
        """
        from testcontainers.core.config import ConnectionMode
        from testcontainers.core.docker_client import get_docker_host
        from testcontainers.core.labels import LABEL_SESSION_ID, SESSION_ID

        docker, port = self._client(), recipe.port
        labels = {docker_api.LABEL: owner.to_json()}
        if not owner.kept:
            _start_ryuk()
            labels[LABEL_SESSION_ID] = SESSION_ID
        mode, host = docker.get_connection_mode(), docker.host()
        if mode is ConnectionMode.gateway_ip:
            # This process is in a container. The engine is in it, too, if the engine has made its
            # bridge here.
            settings = docker.client.networks.get("bridge").attrs["IPAM"]["Config"][0]
            host = settings.get("Gateway") or str(ipaddress.ip_network(settings["Subnet"])[1])
        local = mode is not ConnectionMode.bridge_ip and is_this_machine(host)
        # The network of the container that this process is in, if it is in one.
        network = None if get_docker_host() else docker.find_host_network()
        volume = DataVolume(docker.client, words)
        variables = recipe.environment(self._image.rpartition(":")[2]).items()
        self._container = docker.client.containers.create(
            docker_api.full_name(self._image),
            command=list(recipe.command),
            environment={name: value.format(password=volume.password) for name, value in variables},
            **volume.arguments(self._found, recipe.data_folder),
            ports={f"{port}/tcp": ("127.0.0.1", None) if local else None},
            tmpfs={recipe.data_folder: ""},
            labels=labels,
            network=network,
        )
        self._container.start()
        self.check()
        number = self._container.id
        if mode is ConnectionMode.bridge_ip:
            return docker.bridge_ip(number), port, volume.password
        host = "127.0.0.1" if local else host
        return host, int(docker.port(number, port)), volume.password

    def check(self) -> None:
        """Raise :class:`Ended` if the container does not run any more."""
        self._container.reload()
        if self._container.status not in ("created", "running", "restarting"):
            raise Ended(f"the container is {self._container.status}")

    def output(self) -> str:
        """Return the end of what the container printed."""
        if self._container is None:
            return ""
        try:
            return str(self._container.logs(tail=40).decode(errors="replace"))
        except Exception as error:  # docker's own
            return f"(no log: {error})"

    def keep(self, owner: Owner, server: Server) -> Record:
        """Let the container outlive the context."""
        name, self._container = str(self._container.name), None
        return Record(server, owner, name, docker_api.engine_address())


def is_this_machine(host: str) -> bool:
    """Return whether the address of the engine's host belongs to this machine, so that it can be
    bound."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True


def _start_ryuk() -> None:
    """Start testcontainers' Ryuk, unless the user has disabled it. Blocks.

    Ryuk is a container that removes the containers of a killed process ten seconds later.
    """
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import Reaper

    with _ryuk_lock:
        if not testcontainers_config.ryuk_disabled:
            Reaper.get_instance()
