"""The provider ``local``: runs the server programs of this machine.

``programs.py`` finds them. ``supervisor.py`` watches them and removes their folder when the run
ends, even if it is killed. The server listens on 127.0.0.1 only and has a random password.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from pytest_asyncdb._system.process_identity import Owner
from pytest_asyncdb.abc import (
    Backend,
    Candidate,
    Driver,
    LocalPlace,
    LocalRecipe,
    Server,
    ServerProvider,
    Show,
)
from pytest_asyncdb.errors import ProviderUnavailable, ServerStartError
from pytest_asyncdb.servers.data_dir_cache import DataDirCache
from pytest_asyncdb.servers.messages import server_start
from pytest_asyncdb.servers.programs import Programs, choose, version_numbers
from pytest_asyncdb.servers.readiness import NotReady, managed_server, patience, wait_until_ready
from pytest_asyncdb.servers.reusable import Keep, Record, obtained
from pytest_asyncdb.servers.server_folders import data_place
from pytest_asyncdb.servers.supervised import Supervised, supervised
from pytest_asyncdb.values import BackendSpec, Sourced

#: Seconds that a start may take, and seconds that filling the data folder may take.
_START, _INITIALISE = 30.0, 120.0
#: Number of lines from the end of the output that an error shows.
_SHOWN = 15
#: Number of ports to try.
_PORTS = 5
#: What servers print if another program has their port.
_TAKEN = ("Address already in use", "could not bind", "Bind on TCP/IP port")


class LocalProvider(ServerProvider):
    """Server programs on PATH or in the usual folders of the system."""

    name = "local"

    keeps = True

    def find(self, spec: BackendSpec, backend: Backend, url: Sourced[str] | None) -> Candidate:
        recipe = backend.local
        if recipe is None:
            raise ProviderUnavailable(f"{backend.label} has no server programs")
        server = recipe.programs[0]
        # The patterns are absolute.
        paths = [p for f in recipe.folders for p in glob.glob(f"{f}/{server}")]  # noqa: PTH207
        paths.sort(key=version_numbers, reverse=True)
        if on_path := shutil.which(server):
            paths.insert(0, on_path)
        if not paths:
            raise ProviderUnavailable(f'no "{server}" on PATH or in {", ".join(recipe.folders)}')
        programs = choose(dict.fromkeys(paths), spec, backend)
        reason = f"programs in {Path(programs.paths[server]).parent}"
        return self.candidate(programs, backend, reason)

    def candidate(self, programs: Programs, backend: Backend, reason: str) -> Candidate:
        """Return the candidate for these programs."""
        tuning = f"{data_place()[1]}, {backend.tuning}"
        return Candidate(self.name, reason, programs.version, tuning, programs)

    def obtain(
        self, found: Candidate, spec: BackendSpec, backend: Backend, driver: Driver, progress: Show
    ) -> contextlib.AbstractContextManager[Server]:
        programs: Programs = found.detail
        recipe = backend.local
        assert recipe is not None
        inputs = programs.inputs(recipe)

        def words() -> list[str]:
            return [backend.name, self.name, *inputs, *recipe.command(programs.place(""), 0)]

        @contextlib.contextmanager
        def start(owner: Owner) -> Iterator[tuple[Server, Keep]]:
            # Files of another user could not be copied.
            caches = programs.identity.user is None
            cache = DataDirCache(recipe.programs[0], inputs) if caches else None
            password = (cache and cache.password()) or secrets.token_hex(16)
            credentials = recipe.credentials.format(password=password)
            server = managed_server(found, backend, password)
            with supervised(programs.identity, credentials, owner) as supervisor:
                place = programs.place(supervisor.folder)
                starting = _Start(supervisor, place, server, backend, driver, recipe)
                with patience(progress, f"{backend.label} ({self.name}) is still starting"):
                    starting.fill_data_folder(cache)
                    server = starting.serve()
                yield (
                    server,
                    lambda server: Record(server, supervisor.stay(owner), supervisor.folder),
                )

        return obtained(self, f"a {backend.label} server", words, start)


class _Ended(Exception):
    """The server ended by itself."""


@dataclasses.dataclass
class _Start:
    """The start of one server."""

    supervisor: Supervised
    place: LocalPlace
    server: Server
    backend: Backend
    driver: Driver
    recipe: LocalRecipe

    def fill_data_folder(self, cache: DataDirCache | None) -> None:
        """Copy the data folder from the cache, or let the programs fill one.

        Raises:
            ServerStartError: The programs failed. The error shows their output.
        """
        if cache is not None and cache.copy_to(self.place.data):
            return
        command = self.recipe.initialise(self.place)
        self.supervisor.start(command, "SIGKILL")
        import sqlalchemy.ext.asyncio  # noqa: F401  # needed next; the program is busy

        event = self.supervisor.event(_INITIALISE) or f"not done after {_INITIALISE:g} s"
        if event != "ended 0":
            raise self._failure(f"{Path(command[0]).name}: {event}")
        if cache is not None:
            cache.keep(self.place.data, str(self.server.password))

    def serve(self) -> Server:
        """Start the server and wait for its answer. If the port is taken, try others.

        Raises:
            ServerStartError: The server did not start. The error shows its output.
        """
        for left in reversed(range(_PORTS)):
            port = _free_port()
            server = dataclasses.replace(self.server, host="127.0.0.1", port=port)
            self.supervisor.start(self.recipe.command(self.place, port), self.recipe.stop)
            try:
                text, _ = wait_until_ready(server, self.backend, self.driver, _START, self._check)
                return dataclasses.replace(server, version=self.backend.version_of(text))
            except NotReady as error:
                raise self._failure(str(error)) from error
            except _Ended as error:
                # Another program may have taken the port since it was found free.
                taken = any(words in self.supervisor.output() for words in _TAKEN)
                if not (taken and left):
                    raise self._failure(f"{self.recipe.programs[0]}: {error}") from None
        raise AssertionError("the last round returns or raises")

    def _check(self) -> None:
        if event := self.supervisor.event(0):
            raise _Ended(event)

    def _failure(self, what: str) -> ServerStartError:
        # Also show errors before the end of the output, because MariaDB prints a lot after them.
        lines = self.supervisor.output().splitlines()
        before = [li for li in lines[:-_SHOWN] if re.search(r"\b(ERROR|FATAL|error)\b", li)]
        shown = "\n".join([*before[-5:], *lines[-_SHOWN:]])
        return server_start(self.backend.label, self.server.provider, what, shown)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
