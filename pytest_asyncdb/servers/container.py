"""The provider ``container``: Docker runs a backend's image.

The data is in memory, Docker chooses the port, the password is random. The container is killed and
removed at the end of the run. If the run is killed, testcontainers' helper Ryuk removes the
container. If there is no Ryuk, the next run that starts a container finds it by its label and
removes it. A container that may outlive the run (``reusable.py``) has no label for Ryuk.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
from collections.abc import Iterator
from functools import partial

from pytest_asyncdb._system.process_identity import Owner
from pytest_asyncdb.abc import Backend, Candidate, Driver, Server, ServerProvider, Show
from pytest_asyncdb.errors import ProviderUnavailable
from pytest_asyncdb.servers import readiness
from pytest_asyncdb.servers.docker_api import engine_address, has_image, ping, remove_dead
from pytest_asyncdb.servers.messages import server_start, server_too_old
from pytest_asyncdb.servers.reusable import Keep, obtained
from pytest_asyncdb.servers.testcontainers_api import Container, Ended
from pytest_asyncdb.values import BackendSpec, Sourced

#: Seconds that a container may take from its start to its first answer.
_START = 120.0


class ContainerProvider(ServerProvider):
    """Runs a container of the backend's image."""

    name = "container"

    keeps = os.name == "posix"

    def find(self, spec: BackendSpec, backend: Backend, url: Sourced[str] | None) -> Candidate:
        recipe = backend.container
        if recipe is None:
            raise ProviderUnavailable(f"{backend.label} has no image")
        # Importing the package takes a third of a second.
        if importlib.util.find_spec("testcontainers") is None:
            raise ProviderUnavailable("the package testcontainers is not installed")
        engine = engine_address()
        problem = ping(engine)
        if problem is not None:
            raise ProviderUnavailable(f"no Docker engine answers at {engine}: {problem}")
        image = recipe.image_of(spec.version)
        tag = spec.version or image.rpartition(":")[2]
        reason, at_hand = f"Docker answers at {engine}", has_image(engine, image)
        if recipe.images:
            reason = f"image {image}; {reason}"
        tuning = f"data in memory, {backend.tuning}"
        return Candidate(self.name, reason, tag, tuning, image, at_hand=at_hand)

    def load(self, found: Candidate, backend: Backend) -> None:
        if not (self.keeps and self.reuse):  # else the container may exist already
            import testcontainers.core.container  # noqa: F401

    def obtain(
        self, found: Candidate, spec: BackendSpec, backend: Backend, driver: Driver, progress: Show
    ) -> contextlib.AbstractContextManager[Server]:
        recipe = backend.container
        assert recipe is not None
        image: str = found.detail

        def words(container: Container) -> list[str]:
            text = f"{backend.label}: getting the image {image}"
            with _reported(backend, image, container), readiness.patience(progress, text):
                number = container.get_image()
            variables = recipe.environment(found.version or "").items()
            settings = [*recipe.command, str(recipe.port), recipe.data_folder]
            settings += map(str, variables)
            return [backend.name, self.name, engine_address(), image, number, *settings]

        def key() -> list[str]:
            with Container(image) as container:
                return words(container)

        @contextlib.contextmanager
        def started(owner: Owner) -> Iterator[tuple[Server, Keep]]:
            remove_dead()
            text = f"{backend.label}: the container of {image} is still starting"
            with Container(image) as container:
                everything = words(container)
                with _reported(backend, image, container), readiness.patience(progress, text):
                    host, port, password = container.start(recipe, everything, owner)
                    server = readiness.managed_server(found, backend, password)
                    server = dataclasses.replace(server, host=host, port=port)
                    # An attempt costs processor time that the server needs to start.
                    check = container.check
                    said, _ = readiness.wait_until_ready(
                        server, backend, driver, _START, check, pause=0.1
                    )
                version = backend.version_of(said)
                if readiness.too_old(version, backend.oldest):
                    raise server_too_old(backend.label, version, backend.oldest, image)
                yield dataclasses.replace(server, version=version), partial(container.keep, owner)

        return obtained(self, f"a {backend.label} container", key, started)


@contextlib.contextmanager
def _reported(backend: Backend, image: str, container: Container) -> Iterator[None]:
    """Turn the errors of docker, testcontainers and the driver into the plugin's own.

    Raises:
        ServerStartError: The block has raised. The error shows the end of the container's output.
    """
    try:
        yield
    except Exception as error:
        is_clear = isinstance(error, (readiness.NotReady, Ended))
        text = f"image {image}: {str(error) if is_clear else readiness.describe(error)}"
        raise server_start(backend.label, "container", text, container.output()) from error
