"""The provider ``container``: a backend's image, run through testcontainers.

Data lives in memory, Docker chooses the port, the password is random. The container is
killed and removed on leaving; where nothing of ours is left to do that, testcontainers'
own helper Ryuk does it, and where that has not, the next run, by our label.

One that may stay after the run is none of Ryuk's: as for a local server there is a supervisor with
a folder, and the program that it runs is ``attend.py``, which lets the container live and end. It
bears the name of the folder.
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
    is_running,
    ping,
)
from pytest_asyncdb.servers.messages import server_start
from pytest_asyncdb.servers.readiness import patience
from pytest_asyncdb.servers.reusable import Record, obtained, stays_already
from pytest_asyncdb.servers.supervised import Identity, Supervised, supervised
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
            if number and stays_already(backend.name, self._words(found, backend, number), _runs):
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
        def running(owner: Owner, ours: Supervised | None = None) -> Iterator[Server]:
            password = secrets.token_hex(16)
            with getting():
                container = prepare(recipe, image, password, owner, ours, failure)
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
                    server = start(container, recipe, ours, server, backend, driver, failure)
                yield server
            finally:
                if ours is not None and ours.stays:
                    container.get_docker_client().client.close()
                else:
                    remove(container)

        @contextlib.contextmanager
        def started(owner: Owner) -> Iterator[tuple[Supervised, Server]]:
            with (
                supervised(Identity(), "", owner, detached=True) as ours,
                running(ours.as_owner(owner), ours) as server,
            ):
                yield ours, server

        def words() -> list[str]:
            with getting():
                number = image_id(image) or pull(image, failure)
            return self._words(found, backend, number)

        if self.keeps and (self.reuse or self.needed is not None):
            servers = obtained(self, backend.name, kind, words, started, _runs)
        else:
            servers = running(Owner.current(self.run, kind))
        with servers as server:
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
        return [self.name, engine_address(), found.detail, number, *settings]


def _runs(record: Record) -> bool:
    """Is the container still there? It bears the name of the folder."""
    return is_running(Path(record.folder).name)
