"""Server programs on this machine: which ones run here, as which user, and their version.

This module starts nothing that stays. ``local.py`` runs a server.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pytest_asyncdb.abc import Backend, LocalPlace, LocalRecipe
from pytest_asyncdb.errors import ProviderUnavailable
from pytest_asyncdb.servers.readiness import fits, too_old
from pytest_asyncdb.servers.supervised import Identity, environment
from pytest_asyncdb.values import BackendSpec

#: Seconds that a program may take to print its version.
_VERSION = 10.0


@dataclasses.dataclass(frozen=True)
class Programs:
    """Programs that run here.

    Args:
        paths: The path of each program, by its name.
        version: What the server program prints as its version.
        identity: The user as whom they run.
    """

    paths: Mapping[str, str]
    version: str
    identity: Identity

    def place(self, folder: str) -> LocalPlace:
        """Return the paths and settings for programs that run in *folder*."""
        return LocalPlace(
            self.paths,
            data=f"{folder}/data",
            credentials=f"{folder}/credentials",
            root=os.geteuid() == 0,
            version=self.version,
        )

    def inputs(self, recipe: LocalRecipe) -> list[str]:
        """Return everything that decides what the programs put into a data folder."""
        stamps = [f"{path} {Path(path).stat().st_mtime_ns}" for path in self.paths.values()]
        # initdb writes the time zone into the settings.
        variables = [f"{name}={value}" for name, value in environment().items() if name != "PATH"]
        words = [*recipe.initialise(self.place("")), *self.identity.wrap, recipe.credentials]
        return [*words, self.version, *stamps, *variables]


def choose(servers: Iterable[str], spec: BackendSpec, backend: Backend) -> Programs:
    """Return the first server program that runs, belongs to *backend*, and fits the version.

    Args:
        servers: Paths of server programs, best first.

    Raises:
        ProviderUnavailable: There is none. The error says what is wrong with each.
    """
    if os.name != "posix":
        raise ProviderUnavailable("server programs are run on Linux and macOS only")
    recipe = backend.local
    assert recipe is not None
    wrong: list[str] = []
    versions: list[str] = []
    for server in servers:
        helpers = {name: _helper(name, server) for name in recipe.programs[1:]}
        if missing := [name for name, path in helpers.items() if not path]:
            wrong.append(f'no "{missing[0]}" beside {server}')
            continue
        try:
            identity, line = _try_out([server, *recipe.version_command], recipe)
        except ProviderUnavailable as error:
            wrong.append(f"{server}: {error}")
            continue
        version = backend.version_of(line)
        if not recipe.recognises(line):
            wrong.append(f"{server} is not {backend.label} ({line})")
        elif not fits(version, spec.version):
            versions.append(version)
        elif too_old(version, backend.oldest):
            wrong.append(f"{server} is {backend.label} {version}, older than {backend.oldest}")
        else:
            paths = {recipe.programs[0]: server}
            return Programs(paths | {n: p for n, p in helpers.items() if p}, version, identity)
    if versions:
        found = ", ".join(dict.fromkeys(versions))
        wrong.insert(0, f"version {spec.version} was asked for, found: {found}")
    raise ProviderUnavailable("; ".join(wrong))


def version_numbers(path: str) -> list[int]:
    """Return the numbers in a path, so that ``postgresql/17`` comes after ``postgresql/9.6``."""
    return [int(number) for number in re.findall(r"\d+", path)]


def _helper(name: str, server: str) -> str | None:
    """Find a program that belongs to *server*: beside it, in a neighbouring folder, or on PATH."""
    folder = Path(server).parent
    places = [folder, folder.parent / "bin", folder.parent / "scripts"]
    return shutil.which(name, path=os.pathsep.join(map(str, places))) or shutil.which(name)


def _try_out(command: list[str], recipe: LocalRecipe) -> tuple[Identity, str]:
    """Run a short command as each identity until one works. Return it and the first line of output.

    Raises:
        ProviderUnavailable: The command cannot be run here.
    """
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
                env=environment(),
                user=identity.user,
                group=identity.group,
                extra_groups=None if identity.user is None else [],
            )
            return identity, next(iter(result.stdout.splitlines()), "")
        except subprocess.CalledProcessError as error:
            lines = (error.stderr or error.stdout or "").strip().splitlines()
            failures.append(lines[-1] if lines else f"exit code {error.returncode}")
        except (OSError, subprocess.SubprocessError) as error:
            failures.append(str(error))
    if recipe.refuses_root and os.geteuid() == 0:
        failures.insert(0, "refuses to run as root, and did not run as another user")
    raise ProviderUnavailable("; ".join(failures))


def _identities(recipe: LocalRecipe) -> Iterator[Identity]:
    """Yield the users as whom the programs may run, best first.

    PostgreSQL refuses to run as root. In a user namespace root appears as another user and still
    reads its own files. Most containers forbid namespaces. There the programs run as that other
    user, who must be able to read them. ``initdb`` needs a user that has a name.
    """
    if not (recipe.refuses_root and os.geteuid() == 0):
        yield Identity()
        return
    import pwd

    users = [user for user in pwd.getpwall() if user.pw_uid != 0]
    other = next((user for user in users if user.pw_name == "nobody"), users[0])
    if shutil.which("unshare"):
        yield Identity(("unshare", "--user", f"--map-user={other.pw_uid}"))
    yield Identity((), other.pw_uid, other.pw_gid)
