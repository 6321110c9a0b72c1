"""The provider ``container``: a backend's image, run through testcontainers.

Data lives in memory, Docker chooses the port, the password is random. The container is
killed and removed on leaving; where nothing of ours is left to do that, testcontainers'
own helper Ryuk does it, and where that has not, the next run, by our label.

A container that may outlive the run has no label for Ryuk. Later runs find it by a record
(``reusable.py``), which its label names; without that record, or unused for long, the next run
removes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_asyncdb._system.process_identity import Owner
from pytest_asyncdb.abc import (
    Backend,
    BackendSpec,
    Candidate,
    Driver,
    Server,
    ServerProvider,
    Sourced,
)
from pytest_asyncdb.errors import ProviderUnavailable, ServerStartError
from pytest_asyncdb.servers.docker_api import (
    at_hand,
    engine_address,
    image_id,
    is_plain,
    ping,
)
from pytest_asyncdb.servers.messages import server_start
from pytest_asyncdb.servers.readiness import patience
from pytest_asyncdb.servers.reusable import Keep, Record, is_kept, obtained
from pytest_asyncdb.servers.testcontainers_api import prepare, pull, remove, start


class ContainerProvider(ServerProvider):
    """A container of the backend's image."""

    name = "container"

    @property
    def keeps(self) -> bool:
        return os.name == "posix" and is_plain(engine_address())

    def find(self, spec: BackendSpec, backend: Backend, url: Sourced[str] | None) -> Candidate:
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
        return Candidate(
            self.name,
            f"Docker answers at {engine}",
            tag,
            recipe.tuning,
            f"{recipe.image}:{tag}",
            at_hand=at_hand(engine, f"{recipe.image}:{tag}"),
        )

    def load(self, found: Candidate, backend: Backend) -> None:
        if self.keeps and self.reuse:
            number = image_id(found.detail)
            if number and is_kept(self._words(found, backend, number)):
                return
        import testcontainers.core.container  # noqa: F401

    @contextlib.contextmanager
    def obtain(
        self,
        found: Candidate,
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
        def started(owner: Owner, folder: Path | None) -> Iterator[tuple[Server, Keep]]:
            password = secrets.token_hex(16)
            with getting():
                container = prepare(recipe, image, password, owner, folder, failure)
            kept = False

            def keep(server: Server, owner: Owner) -> Record:
                nonlocal kept
                kept = True
                name = container.get_wrapped_container().name
                return Record(server, owner, str(name), engine_address())

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
                    server = start(container, recipe, folder, server, backend, driver, failure)
                yield server, keep
            finally:
                if kept:
                    container.get_docker_client().client.close()
                else:
                    remove(container)

        def words() -> list[str]:
            with getting():
                number = image_id(image) or pull(image, failure)
            return self._words(found, backend, number)

        with obtained(self, kind, words, started) as server:
            yield dataclasses.replace(server, seconds=time.monotonic() - began)

    def _words(self, found: Candidate, backend: Backend, number: str) -> list[str]:
        """Everything that decides what a container is.

        Args:
            number: The image's id.
        """
        recipe = backend.container
        assert recipe is not None
        variables = recipe.environment(found.version or "").items()
        settings = [*recipe.command, str(recipe.port), recipe.data_folder, *map(str, variables)]
        return [backend.name, self.name, engine_address(), found.detail, number, *settings]
