"""The provider ``container``: a backend's image, run through testcontainers.

Data lives in memory, Docker chooses the port, the password is random. The container is
killed and removed on leaving; where nothing of ours is left to do that, testcontainers'
own helper Ryuk does it, and where that has not, the next run, by our label.

One that may stay after the run is none of Ryuk's: as for a local server there is a supervisor with
a folder, and the program that it runs is ``_attend.py``, which lets the container live and end. It
bears the name of the folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_asyncdb._types import BackendSpec, ContainerRecipe, Found, Server, Sourced
from pytest_asyncdb.abc import Backend, Driver, ServerProvider
from pytest_asyncdb.errors import ProviderUnavailable, ServerStartError, server_start
from pytest_asyncdb.servers._engine import (
    LABEL,
    at_hand,
    engine_address,
    image_id,
    is_plain,
    is_running,
    ping,
)
from pytest_asyncdb.servers._kept import Record, obtained
from pytest_asyncdb.servers._owner import Owner
from pytest_asyncdb.servers._ready import NotReady, describe, patience, wait_until_ready
from pytest_asyncdb.servers._ryuk import MADE, ensure_ryuk
from pytest_asyncdb.servers._supervise import Identity, Supervised, supervised

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

#: Seconds that a container may take from its start to its first answer.
_START = 120.0
#: Seconds between two looks at whether the container still runs.
_LOOK = 0.5
#: Seconds that the engine may take to remove a container.
_REMOVAL = 20.0
#: Seconds between two looks at whether it has begun.
_BEGIN = 0.02


class ContainerProvider(ServerProvider):
    """A container of the backend's image."""

    name = "container"

    @property
    def keeps(self) -> bool:
        return os.name == "posix" and is_plain(engine_address())

    def find(self, spec: BackendSpec, backend: Backend, url: Sourced[str] | None) -> Found:
        recipe = backend.container
        if recipe is None:
            raise ProviderUnavailable(f"{backend.label} has no image")
        # The package takes a third of a second to import; whether it is there is enough.
        if importlib.util.find_spec("testcontainers") is None:
            raise ProviderUnavailable("the package testcontainers is not installed")
        engine = engine_address()
        problem = ping(engine)
        if problem is not None:
            raise ProviderUnavailable(f"no Docker engine answers at {engine}: {problem}")
        tag = spec.version or recipe.tag
        return Found(
            self.name,
            f"Docker answers at {engine}",
            tag,
            recipe.tuning,
            f"{recipe.image}:{tag}",
            at_hand=at_hand(engine, f"{recipe.image}:{tag}"),
        )

    def load(self) -> None:
        import testcontainers.core.container  # noqa: F401

    @contextlib.contextmanager
    def obtain(
        self,
        found: Found,
        spec: BackendSpec,
        backend: Backend,
        driver: Driver,
        progress: Callable[[str], None],
    ) -> Iterator[Server]:
        recipe = backend.container
        assert recipe is not None
        image: str = found.detail
        kind = f"a {backend.label} container"
        began = time.monotonic()

        def failure(what: str, output: str) -> ServerStartError:
            return server_start(backend.label, self.name, f"image {image}: {what}", output)

        def getting() -> contextlib.AbstractContextManager[None]:
            return patience(progress, f"{backend.label}: getting the image {image}")

        @contextlib.contextmanager
        def running(owner: Owner, ours: Supervised | None = None) -> Iterator[Server]:
            password = secrets.token_hex(16)
            with getting():
                container = _prepare(recipe, image, password, owner, ours, failure)
            try:
                with patience(
                    progress, f"{backend.label}: the container of {image} is still starting"
                ):
                    server = Server(
                        backend=backend.name,
                        version=found.version or "",
                        provider=self.name,
                        reason=found.reason,
                        managed=True,
                        user=recipe.user,
                        password=password,
                        maintenance=recipe.maintenance,
                        tuning=found.tuning,
                    )
                    server = _start(container, recipe, ours, server, backend, driver, failure)
                yield server
            finally:
                if ours is not None and ours.stays:
                    container.get_docker_client().client.close()
                else:
                    _remove(container)

        @contextlib.contextmanager
        def started(owner: Owner) -> Iterator[tuple[Supervised, Server]]:
            with (
                supervised(Identity(), "", owner, detached=True) as ours,
                running(ours.as_owner(owner), ours) as server,
            ):
                yield ours, server

        def words() -> list[str]:
            with getting():
                number = image_id(image) or _pull(image, failure)
            variables = recipe.environment(found.version or "")
            settings = [*recipe.command, recipe.data_folder, *map(str, variables.items())]
            return [self.name, engine_address(), image, number, *settings]

        def runs(record: Record) -> bool:
            return is_running(Path(record.folder).name)

        if self.keeps and (self.reuse or self.needed is not None):
            servers = obtained(self, backend.name, kind, words, started, runs)
        else:
            servers = running(Owner.current(self.run, kind))
        with servers as server:
            yield dataclasses.replace(server, seconds=time.monotonic() - began)


_Failure = Callable[[str, str], ServerStartError]


def _prepare(
    recipe: ContainerRecipe,
    image: str,
    password: str,
    owner: Owner,
    ours: Supervised | None,
    failure: _Failure,
) -> DockerContainer:
    """The container, not yet made, its image at hand, and Ryuk running where that is to end it."""
    from testcontainers.core.config import testcontainers_config

    if ours is None:
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
        container.with_kwargs(labels={LABEL: owner.to_json()})
        if ours is None:
            MADE.add(id(container))
        for name, value in recipe.environment(image.rpartition(":")[2]).items():
            container.with_env(name, value.format(password=password))
        _have_image(container)
    except Exception as error:
        _remove(container)
        raise failure("it could not be had", describe(error)) from error
    except BaseException:
        _remove(container)
        raise
    return container


def _have_image(container: DockerContainer) -> None:
    images = container.get_docker_client().client.images
    if not images.list(name=container.image):
        images.pull(container.image)


def _pull(image: str, failure: _Failure) -> str:
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


def _start(
    container: DockerContainer,
    recipe: ContainerRecipe,
    ours: Supervised | None,
    server: Server,
    backend: Backend,
    driver: Driver,
    failure: _Failure,
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
        if ours is None:
            container.start()
        else:
            _begin(container, recipe, ours)
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
        raise failure(str(error), _output(container, ours)) from error
    except Exception as error:  # docker's and testcontainers' own
        raise failure(describe(error), _output(container, ours)) from error
    return dataclasses.replace(server, version=backend.version_of(said))


def _begin(container: DockerContainer, recipe: ContainerRecipe, ours: Supervised) -> None:
    """Make the container, and let the supervisor's program start it.

    testcontainers' own way would give it the label by which Ryuk knows what to remove.
    """
    client = container.get_docker_client()
    network = None if os.environ.get("DOCKER_HOST") else client.find_host_network()
    name = Path(ours.folder).name
    container._container = client.client.containers.create(
        container.image,
        command=list(recipe.command),
        environment=container.env,
        ports=container.ports,
        tmpfs=container.tmpfs,
        name=name,
        **({"network": network} if network else {}),
        **container._kwargs,
    )
    attend = str(Path(__file__).with_name("_attend.py"))
    command = [sys.executable, "-I", "-S", attend, engine_address(), name]
    ours.start(command, signal.SIGTERM, _REMOVAL)
    while container.status == "created":
        if event := ours.event(_BEGIN):
            raise _Ended(event)
        container.reload()


class _Ended(Exception):
    """The container ended by itself."""


def _output(container: DockerContainer, ours: Supervised | None) -> str:
    """The end of what the container printed."""
    try:
        logs = container.get_wrapped_container().logs(tail=40)
        return bytes(logs).decode(errors="replace")
    except Exception as error:  # it may have been removed, and its output kept before
        return (ours.output() if ours else "") or f"(no log: {describe(error)})"


def _remove(container: DockerContainer) -> None:
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
