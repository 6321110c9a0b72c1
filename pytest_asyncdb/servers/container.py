"""The provider ``container``: a backend's image, run through testcontainers.

Data lives in memory, Docker chooses the port, the password is random. The container is
killed and removed on leaving; where nothing of ours is left to do that, testcontainers'
own helper Ryuk does it, and where that has not, the next run, by our label.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import secrets
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pytest_asyncdb._recipes import ContainerRecipe
from pytest_asyncdb._types import BackendSpec, Found, Server, Sourced
from pytest_asyncdb.abc import Backend, Driver, ServerProvider
from pytest_asyncdb.errors import ProviderUnavailable, ServerStartError, server_start
from pytest_asyncdb.servers._engine import LABEL, at_hand, engine_address, ping
from pytest_asyncdb.servers._owner import Owner
from pytest_asyncdb.servers._ready import NotReady, describe, patience, wait_until_ready
from pytest_asyncdb.servers._ryuk import MADE, ensure_ryuk

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

#: Seconds that a container may take from its start to its first answer.
_START = 120.0
#: Seconds between two looks at whether the container still runs.
_LOOK = 0.5


class ContainerProvider(ServerProvider):
    """A container of the backend's image."""

    name = "container"

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
        password = secrets.token_hex(16)
        began = time.monotonic()

        def failure(what: str, output: str) -> ServerStartError:
            return server_start(backend.label, self.name, f"image {image}: {what}", output)

        with patience(progress, f"{backend.label}: getting the image {image}"):
            owner = Owner.current(self.run, f"a {backend.label} container")
            container = _prepare(recipe, image, password, owner, failure)
        try:
            with patience(progress, f"{backend.label}: the container of {image} is still starting"):
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
                server = _start(container, recipe, server, backend, driver, failure)
            yield dataclasses.replace(server, seconds=time.monotonic() - began)
        finally:
            _remove(container)


_Failure = Callable[[str, str], ServerStartError]


def _prepare(
    recipe: ContainerRecipe, image: str, password: str, owner: Owner, failure: _Failure
) -> DockerContainer:
    """The container, not yet made, its image at hand, and Ryuk running."""
    from testcontainers.core.config import testcontainers_config

    try:
        ensure_ryuk(owner.run)
    except Exception as error:
        raise failure(f"its helper {testcontainers_config.ryuk_image}", describe(error)) from error
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(image)
    try:
        container.with_command(list(recipe.command))
        container.with_exposed_ports(recipe.port)
        container.with_tmpfs_mount(recipe.data_folder)
        container.with_kwargs(labels={LABEL: owner.to_json()})
        MADE.add(id(container))
        for name, value in recipe.environment(image.rpartition(":")[2]).items():
            container.with_env(name, value.format(password=password))
        images = container.get_docker_client().client.images
        if not images.list(name=container.image):
            images.pull(container.image)
    except Exception as error:
        _remove(container)
        raise failure("it could not be had", describe(error)) from error
    except BaseException:
        _remove(container)
        raise
    return container


def _start(
    container: DockerContainer,
    recipe: ContainerRecipe,
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
        container.start()
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
    return dataclasses.replace(server, version=backend.version_of(said))


class _Ended(Exception):
    """The container ended by itself."""


def _output(container: DockerContainer) -> str:
    """The end of what the container printed."""
    try:
        logs = container.get_wrapped_container().logs(tail=40)
        return bytes(logs).decode(errors="replace")
    except Exception as error:
        return f"(no log: {describe(error)})"


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
