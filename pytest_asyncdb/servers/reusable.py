"""Servers that outlive a run (``--asyncdb-reuse``, ``--asyncdb-keep``): find, keep and end them.

Everything that decides what a server is makes its key. The key names a folder in the user's cache.
``record.json`` in it says how to reach the server. Every run that uses the server holds a shared
lock on the file ``use``; the time of this file is that of the last use. A lock on ``lock`` lets
only one run start a server. If ``keep`` exists, the server holds databases of failed tests. The
kernel releases the locks, even if a process is killed.

The next run of any kind, or ``reap``, ends a server that was not used for an hour. To end it, a
process takes the exclusive lock on ``use``, and removes the record first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pytest_asyncdb._system.cache_dir import cache_folder, key_of, private_folder, write_private
from pytest_asyncdb._system.file_lock import lock
from pytest_asyncdb._system.process_identity import Owner
from pytest_asyncdb.abc import Server, ServerProvider
from pytest_asyncdb.errors import AsyncdbError, ServerUnavailable
from pytest_asyncdb.servers.docker_api import engine_address, is_running, remove_container
from pytest_asyncdb.servers.server_folders import remove_folder

#: Seconds without use after which a server is idle, and the same for a server that holds databases
#: of failed tests.
_IDLE, _KEEP_IDLE = 3600.0, 86400.0
#: Changes when this version of the plugin cannot use servers that earlier versions have started.
_LAYOUT = "3"


@dataclasses.dataclass(frozen=True)
class Record:
    """How to reach a server that was kept, and how to end it.

    Args:
        server: The server with its password; ``kept`` is the folder of this record.
        owner: The supervisor. For a container: the process that started it.
        place: The folder of a program's data, or the container's name.
        engine: The container engine's address; None for a program.
    """

    server: Server
    owner: Owner
    place: str
    engine: str | None = None

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """Read the record in a server's folder; None if there is none."""
        try:
            values = json.loads((folder / "record.json").read_text(encoding="utf-8"))
            values["server"] = Server.from_message(values["server"])
            values["owner"] = Owner.from_json(json.dumps(values["owner"]))
            return cls(**values)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def folder(self) -> Path:
        return Path(str(self.server.kept))

    def write(self) -> None:
        """Write the record for this user only, completely or not at all."""
        new = self.folder / "record.json.new"
        new.unlink(missing_ok=True)
        write_private(new, json.dumps(dataclasses.asdict(self)))
        new.replace(self.folder / "record.json")

    def running(self) -> bool:
        """Return whether the server runs."""
        return self.owner.alive() if self.engine is None else is_running(self.place)

    def is_idle(self) -> bool:
        """Return whether the server was unused for so long that it should end. A run may still use
        it."""
        limit = _KEEP_IDLE if (self.folder / "keep").exists() else _IDLE
        with contextlib.suppress(OSError):
            return time.time() - (self.folder / "use").stat().st_mtime > limit
        return False

    def end_unused(self, dry_run: bool = False) -> bool | None:
        """End the server if no run uses it. Blocks.

        Args:
            dry_run: Change nothing.

        Returns:
            None if a run uses it; else whether it has ended, or would end.
        """
        try:
            use = lock(self.folder / "use", wait=False)
        except BlockingIOError:
            return None
        try:
            if not dry_run:
                (self.folder / "record.json").unlink(missing_ok=True)
        finally:
            os.close(use)
        return dry_run or self.end()

    def end(self) -> bool:
        """End the server and remove its data. Return False if it is still there."""
        if self.engine is not None:
            return remove_container(self.place)
        if self.owner.alive():
            with contextlib.suppress(OSError):
                os.kill(self.owner.pid, signal.SIGKILL)
        return remove_folder(Path(self.place))

    def __str__(self) -> str:
        if self.engine is not None:
            return f"{self.owner.what}, container {self.place}"
        return f"{self.owner.what}, process {self.owner.pid} in {self.place}"


#: Lets a started server outlive the run. In the server, ``kept`` is the folder of its record.
Keep = Callable[[Server], Record]
#: Starts a server that ends with its context, unless it is kept. It can be kept if the owner names
#: the folder of its record.
Start = Callable[[Owner], contextlib.AbstractContextManager[tuple[Server, Keep]]]


@contextlib.contextmanager
def obtained(
    provider: ServerProvider, kind: str, words: Callable[[], Sequence[str]], start: Start
) -> Iterator[Server]:
    """Provide a server. *provider* says whether it stays for later runs.

    Args:
        kind: What the server is, such as ``a PostgreSQL server``.
        words: Returns everything that decides what the server is. The folder's name begins with the
            first word.
        start: Starts a server.

    Raises:
        ServerUnavailable: The server is to be kept, and the user's cache is not writable.
        AsyncdbError: The server did not start.
    """
    run, needed = provider.run, provider.needed if provider.keeps else None
    if provider.reuse and provider.keeps:
        with _shared(_folder(words()), run, f"{kind} kept for later runs", start) as server:
            yield server
        return
    folder = cache_folder() / "servers" / f"failed-{secrets.token_hex(6)}" if needed else None
    what = f"{kind} kept with databases of failed tests" if needed else kind
    with start(Owner.current(run, what, str(folder or ""))) as (server, keep):
        yield server
        if needed and folder and needed(server):
            with _cache_is_writable():
                private_folder(folder)
                for name in ("keep", "use"):
                    (folder / name).touch(mode=0o600)
            _record(server, keep, folder)


@contextlib.contextmanager
def _shared(folder: Path, run: str, what: str, start: Start) -> Iterator[Server]:
    """Yield the server with its record in *folder*, found or started. It cannot end meanwhile."""
    with _cache_is_writable():
        private_folder(folder)
        starting = lock(folder / "lock")
        # If the server is being ended, this waits.
        use = lock(folder / "use", shared=True)
        os.utime(use)
    try:
        try:
            record = Record.read(folder)
            if record is not None and not record.running():
                record.end()
                record = None
            if record is None:
                record = _started(folder, Owner.current(run, what, str(folder)), start)
        finally:
            os.close(starting)
        yield record.server
        os.utime(use)
    finally:
        os.close(use)


def _started(folder: Path, owner: Owner, start: Start) -> Record:
    for name in ("record.json", "keep"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "templates", ignore_errors=True)
    (folder / "templates").mkdir(mode=0o700)
    with start(owner) as (server, keep):
        return _record(server, keep, folder)


def _record(server: Server, keep: Keep, folder: Path) -> Record:
    record = keep(dataclasses.replace(server, kept=str(folder)))
    with _cache_is_writable():
        record.write()
    return record


def records() -> Iterator[Record]:
    """Yield this user's kept servers, without containers of other engines."""
    with contextlib.suppress(RuntimeError, OSError, AsyncdbError):
        for folder in sorted(private_folder("servers").iterdir()):
            record = Record.read(folder)
            if record is not None and record.engine in (None, engine_address()):
                yield record


def _folder(words: Sequence[str]) -> Path:
    here = Owner.current("", "")
    everything = [_LAYOUT, str(os.geteuid()), here.host, here.space, *words]
    return cache_folder() / "servers" / f"{words[0]}-{key_of(everything)}"


@contextlib.contextmanager
def _cache_is_writable() -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise ServerUnavailable(
            "no server can be kept for later runs (--asyncdb-reuse)",
            [f"{type(error).__name__}: {error}"],
            ["set XDG_CACHE_HOME to a folder that is writable", "leave out --asyncdb-reuse"],
            "Seen:",
        ) from error
