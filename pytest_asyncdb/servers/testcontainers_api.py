"""One container, made, started and removed by testcontainers; its package is imported on use."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_asyncdb._system.process_identity import Owner
from pytest_asyncdb.abc import Backend, ContainerRecipe, Driver, Server
from pytest_asyncdb.errors import ServerStartError
from pytest_asyncdb.servers.docker_api import LABEL, RECORD, image_id
from pytest_asyncdb.servers.messages import server_too_old
from pytest_asyncdb.servers.readiness import NotReady, describe, too_old, wait_until_ready
from pytest_asyncdb.servers.ryuk import MADE, ensure_ryuk

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

#: Seconds that a container may take from its start to its first answer.
_START = 120.0
#: Seconds between two looks at whether the container still runs.
_LOOK = 0.5

#: Makes an error of what failed and what the container printed.
Failure = Callable[[str, str], ServerStartError]


def prepare(
    recipe: ContainerRecipe,
    image: str,
    password: str,
    owner: Owner,
    record: Path | None,
    failure: Failure,
) -> DockerContainer:
    """Describe a container, get its image, and start Ryuk if that has to remove the container.

    Args:
        record: The folder of the record by which later runs find the container.
    """
    from testcontainers.core.config import testcontainers_config

    if record is None:
        try:
            ensure_ryuk(owner.run)
        except Exception as error:
            what = f"its helper {testcontainers_config.ryuk_image}"
            raise failure(what, describe(error)) from error
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(image)
    try:
        container.with_command(list(recipe.command))
        container.with_exposed_ports(recipe.port)
        container.with_tmpfs_mount(recipe.data_folder)
        labels = {LABEL: owner.to_json()} | ({RECORD: str(record)} if record else {})
        container.with_kwargs(labels=labels)
        if record is None:
            MADE.add(id(container))
        for name, value in recipe.environment(image.rpartition(":")[2]).items():
            container.with_env(name, value.format(password=password))
        _have_image(container)
    except Exception as error:
        remove(container)
        raise failure("it could not be had", describe(error)) from error
    except BaseException:
        remove(container)
        raise
    return container


def _have_image(container: DockerContainer) -> None:
    images = container.get_docker_client().client.images
    if not images.list(name=container.image):
        images.pull(container.image)


def pull(image: str, failure: Failure) -> str:
    """Get the image; what tells it from others of its name."""
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(image)
    try:
        _have_image(container)
        number = image_id(image)
    except Exception as error:
        raise failure("it could not be had", describe(error)) from error
    finally:
        container.get_docker_client().client.close()
    if number is None:
        raise failure("it could not be had", "the engine does not know it")
    return number


def start(
    container: DockerContainer,
    recipe: ContainerRecipe,
    record: Path | None,
    server: Server,
    backend: Backend,
    driver: Driver,
    failure: Failure,
) -> Server:
    """Start the container and wait until its server answers on the port outside.

    The server that an image runs while it is being set up listens on its socket only, and
    so cannot be mistaken for the real one.
    """
    looked = time.monotonic()

    def check() -> None:
        nonlocal looked
        if time.monotonic() - looked < _LOOK:
            return
        container.reload()
        looked = time.monotonic()
        if container.status not in ("created", "running", "restarting"):
            raise _Ended(f"the container is {container.status}")

    try:
        if record is None:
            container.start()
        else:
            _start_without_ryuk(container, recipe)
        host = container.get_container_host_ip()
        server = dataclasses.replace(
            server,
            # Docker may publish another port for IPv6 than for IPv4.
            host="127.0.0.1" if host == "localhost" else host,
            port=container.get_exposed_port(recipe.port),
        )
        # A try costs the processor that the start needs as well.
        said = wait_until_ready(server, backend, driver, _START, check, pause=0.1)
    except (NotReady, _Ended) as error:
        raise failure(str(error), _output(container)) from error
    except Exception as error:  # docker's and testcontainers' own
        raise failure(describe(error), _output(container)) from error
    server = dataclasses.replace(server, version=backend.version_of(said))
    if too_old(server.version, backend.oldest):
        raise server_too_old(backend.label, server.version, backend.oldest, str(container.image))
    return server


def _start_without_ryuk(container: DockerContainer, recipe: ContainerRecipe) -> None:
    """Start the container so that it outlives this process.

    testcontainers' own way would give it the label by which Ryuk knows what to remove.
    """
    client = container.get_docker_client()
    network = None if os.environ.get("DOCKER_HOST") else client.find_host_network()
    container._container = client.client.containers.run(
        container.image,
        command=list(recipe.command),
        environment=container.env,
        ports=container.ports,
        tmpfs=container.tmpfs,
        detach=True,
        **({"network": network} if network else {}),
        **container._kwargs,
    )


class _Ended(Exception):
    """The container ended by itself."""


def _output(container: DockerContainer) -> str:
    """The end of what the container printed."""
    try:
        logs = container.get_wrapped_container().logs(tail=40)
        return bytes(logs).decode(errors="replace")
    except Exception as error:
        return f"(no log: {describe(error)})"


def remove(container: DockerContainer) -> None:
    """Kill and remove the container and its volumes."""
    try:
        container.stop()
    except Exception as error:
        # 404: gone already; 409: somebody else is removing it, such as Ryuk.
        if getattr(error, "status_code", None) not in (404, 409):
            raise
        MADE.discard(id(container))
    else:
        MADE.discard(id(container))
    finally:
        container.get_docker_client().client.close()
