"""What belongs to others, beside everything that runs make: it must be the same afterwards.

Of each kind one thing whose name is like one of ours, and that is not ours: databases with rows, a
running container, folders, shared memory, a process. Made once; looked at after every test.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fix_chaos import PLACES
from fix_servers import Servers, Target

from pytest_asyncdb._system.process_identity import Owner

SERVERS = ("postgres+asyncpg", "mariadb+asyncmy")
_IMAGE = "postgres:17"


class Foreign:
    """Things of others, and how they were when they were made."""

    def __init__(self, targets: list[Target], container: str | None) -> None:
        self._targets = targets
        self._container = container
        self._number = os.getpid()
        self._databases = (f"asyncdb_notes_{self._number}", f"asyncdb_{self._number:08x}")
        self._paths: list[Path] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._before: dict[str, object] = {}

    @contextlib.contextmanager
    def made(self) -> Iterator[Foreign]:
        """All of it is there for as long as the context is entered."""
        with contextlib.ExitStack() as stack:
            for target in self._targets:
                for name in self._databases:
                    stack.enter_context(target.observer.throw_away(name))
                    target.observer.query("CREATE TABLE kept (n INTEGER)", name)
                    target.observer.query("INSERT INTO kept VALUES (1), (2)", name)
            for place in PLACES:
                stack.callback(self._remove)
                self._make_folders(Path(place))
            self._make("/dev/shm/PostgreSQL.", str(self._number), "shared")
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    "import sys; sys.stdin.read()  # postgres -D pytest-asyncdb-",
                ],
                stdin=subprocess.PIPE,
                cwd=self._paths[0].parent,
                start_new_session=True,
            )
            stack.callback(self._process.communicate)
            if self._container is not None:
                _docker(
                    "run", "-d", "--name", self._container, *_LABELS, _IMAGE, "sleep", "infinity"
                )
                stack.callback(_docker, "rm", "-f", self._container)
            self._before = self._look()
            yield self

    def check(self) -> None:
        """Nothing has been touched."""
        assert self._look() == self._before

    def _make_folders(self, place: Path) -> None:
        living = Owner.current("cafe0124", "a PostgreSQL server").to_json()
        dead = json.dumps({**json.loads(living), "started": "1"})
        digits = hashlib.sha256(f"{self._number}".encode()).hexdigest()[:12]
        self._make(f"{place}/pytest-asyncdb-notes-{self._number}/", "owner.json", dead)
        self._make(f"{place}/pytest-asyncdb-{digits}.bak/", "owner.json", dead)
        self._make(f"{place}/pytest-asyncdb-{digits}/", "owner.json", living)

    def _make(self, before: str, name: str, text: str) -> None:
        path = Path(before + name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        self._paths.append(path)

    def _remove(self) -> None:
        for path in self._paths:
            path.unlink(missing_ok=True)
            if path.name == "owner.json" and path.parent.exists():
                path.parent.rmdir()
        self._paths.clear()

    def _look(self) -> dict[str, object]:
        assert self._process is not None
        found: dict[str, object] = {"process": self._process.poll()}
        for target in self._targets:
            for name in self._databases:
                found[f"{target.word} {name}"] = target.observer.dump(name)
        for path in self._paths:
            status = path.stat()
            found[str(path)] = path.read_text(), status.st_ino, status.st_mtime_ns
        if self._container is not None:
            state = "{{.Id}} {{.State.Pid}} {{.State.StartedAt}}"
            found["container"] = _docker("inspect", "-f", state, self._container)
        return found


#: Labels like ours and those of testcontainers, of somebody else.
_LABELS = (
    *("--label", "org.pytest-asyncdb=notes"),
    *("--label", "org.testcontainers=true"),
    *("--label", "org.testcontainers.session-id=00000000-0000-4000-8000-000000000000"),
)


def _docker(*arguments: str) -> str:
    return subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, check=True, timeout=60
    ).stdout


@pytest.fixture(scope="session")
def foreign(servers: Servers) -> Iterator[Foreign]:
    """What belongs to others, of all kinds that can be had here."""
    targets = [target for word in SERVERS if (target := _had(servers, word))]
    container = None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        _docker("image", "inspect", _IMAGE)
        container = f"asyncdb-postgres-{os.getpid()}"
    with Foreign(targets, container).made() as found:
        yield found


def _had(servers: Servers, word: str) -> Target | None:
    try:
        return servers.target(word)
    except pytest.skip.Exception:
        return None


@pytest.fixture
def untouched(foreign: Foreign) -> Iterator[None]:
    """What belongs to others is the same after the test."""
    yield
    foreign.check()
