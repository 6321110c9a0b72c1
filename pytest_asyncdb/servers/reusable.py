"""Servers that outlive a run (``--asyncdb-reuse``, ``--asyncdb-keep``): find, keep and end them.

Everything that decides what a server is makes its key, and the key names a folder in the user's
cache. ``record.json`` says how to reach the server. Every run that uses it holds a shared lock on
the file ``use``, whose time says when that was. ``lock`` lets only one run start a server. If
``keep`` exists, the server holds databases of failed tests. The kernel releases the locks, however
a process ends.

Whoever ends a server has the lock on ``use`` alone, and first removes the record. A program that
is not used for an hour is ended by its supervisor, a container by the next run (:func:`end_idle`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pytest_asyncdb._system.cache_dir import cache_folder, private_folder, write_private
from pytest_asyncdb._system.file_lock import lock
from pytest_asyncdb._system.process_identity import Owner
from pytest_asyncdb.abc import Server, ServerProvider
from pytest_asyncdb.errors import AsyncdbError
from pytest_asyncdb.servers.docker_api import engine_address, is_running, remove_container
from pytest_asyncdb.servers.messages import cannot_keep

#: Seconds without use after which a server ends, and the same if it holds databases of failed
#: tests.
IDLE, KEEP_IDLE = 3600.0, 86400.0
#: Changes when this version of the plugin cannot use what earlier ones have started.
_LAYOUT = "2"
#: Seconds within which a server that is told to end has ended.
_END = 30.0
#: Seconds after which the folder of a server that no run has asked for is removed.
_UNUSED = 30 * 86400.0


@dataclasses.dataclass(frozen=True)
class Record:
    """How to reach a server that was kept, and how to end it.

    Args:
        server: With its password; ``kept`` is the folder of this record.
        owner: The supervisor; of a container, the process that started it.
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
        """Is the server there?"""
        return self.owner.alive() if self.engine is None else is_running(self.place)

    def end_unused(self, dry_run: bool = False) -> bool | None:
        """End the server if no run uses it.

        Args:
            dry_run: Change nothing.

        Returns:
            None if a run uses it; else whether it has ended, or would.
        """
        use = lock(self.folder / "use", wait=False)
        if use is None:
            return None
        try:
            if not dry_run:
                (self.folder / "record.json").unlink(missing_ok=True)
        finally:
            os.close(use)
        return dry_run or self._end()

    def _end(self) -> bool:
        if self.engine is not None:
            return remove_container(self.place)
        until = time.monotonic() + _END
        while self.owner.alive():  # a signal makes the supervisor look for its record
            with contextlib.suppress(OSError):
                os.kill(self.owner.pid, signal.SIGTERM)
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def __str__(self) -> str:
        if self.engine is not None:
            return f"{self.owner.what}, container {self.place}"
        return f"{self.owner.what}, process {self.owner.pid} in {self.place}"


#: Lets a server that was started outlive the run. The server comes with the folder of its record
#: in ``kept``, the owner is this process.
Keep = Callable[[Server, Owner], Record]
#: Starts a server that ends with its context unless it is kept. The folder is where its record
#: will be; None: it cannot be kept.
Start = Callable[[Owner, Path | None], contextlib.AbstractContextManager[tuple[Server, Keep]]]


def obtained(
    provider: ServerProvider, kind: str, words: Callable[[], Sequence[str]], start: Start
) -> contextlib.AbstractContextManager[Server]:
    """Return a server that lives as long as *provider* is told to keep it.

    Args:
        kind: What it is, such as ``a PostgreSQL server``.
        words: Returns everything that decides what the server is; the first word names its folder.
        start: Starts one.
    """
    if provider.reuse and provider.keeps:
        return _kept(words, Owner.current(provider.run, f"{kind} kept for later runs"), start)
    if provider.needed is not None and provider.keeps:
        owner = Owner.current(provider.run, f"{kind} kept with databases of failed tests")
        return _kept_if_needed(owner, start, provider.needed)
    return _for_this_run(Owner.current(provider.run, kind), start)


@contextlib.contextmanager
def _for_this_run(owner: Owner, start: Start) -> Iterator[Server]:
    with start(owner, None) as (server, _):
        yield server


@contextlib.contextmanager
def _kept_if_needed(
    owner: Owner, start: Start, needed: Callable[[Server], bool]
) -> Iterator[Server]:
    """A server for this run, which is kept if it is *needed* at the end."""
    folder = cache_folder() / "servers" / f"failed-{secrets.token_hex(6)}"
    with start(owner, folder) as (server, keep):
        yield server
        if needed(server):
            with _cache_is_writable():
                private_folder(folder)
                (folder / "keep").touch()
                use = lock(folder / "use", shared=True)
            assert use is not None
            try:
                _record(server, keep, owner, folder)
            finally:
                os.close(use)


@contextlib.contextmanager
def _kept(words: Callable[[], Sequence[str]], owner: Owner, start: Start) -> Iterator[Server]:
    """The server of these *words*, found or started; it cannot end meanwhile.

    Raises:
        ServerUnavailable: The user's cache is not writable.
        AsyncdbError: The server did not start.
    """
    folder = _folder(words())
    with _cache_is_writable():
        private_folder(folder)
        starting = lock(folder / "lock")
        # While the server is being ended, this waits.
        use = lock(folder / "use", shared=True)
        assert starting is not None
        assert use is not None
        os.utime(starting)
        os.utime(use)
    try:
        try:
            record = Record.read(folder)
            if record is None or not record.running():
                record = _start(folder, owner, start)
        finally:
            os.close(starting)
        yield record.server
        os.utime(use)
    finally:
        os.close(use)


def _start(folder: Path, owner: Owner, start: Start) -> Record:
    _sweep(folder.parent)
    for name in ("record.json", "keep"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "templates", ignore_errors=True)
    (folder / "templates").mkdir(mode=0o700)
    with start(owner, folder) as (server, keep):
        return _record(server, keep, owner, folder)


def _record(server: Server, keep: Keep, owner: Owner, folder: Path) -> Record:
    record = keep(dataclasses.replace(server, kept=str(folder)), owner)
    with _cache_is_writable():
        record.write()
    return record


def is_kept(words: Sequence[str]) -> bool:
    """Does a server of these *words* run? See :func:`obtained`."""
    with contextlib.suppress(RuntimeError):
        record = Record.read(_folder(words))
        return record is not None and record.running()
    return False


def records() -> Iterator[Record]:
    """This user's servers that were kept, without containers of other engines."""
    with contextlib.suppress(RuntimeError, OSError, AsyncdbError):
        for folder in sorted(private_folder("servers").iterdir()):
            record = Record.read(folder)
            if record is not None and record.engine in (None, engine_address()):
                yield record


def may_be_kept(container: str, folder: str | None) -> bool:
    """Is there a record of a container in *folder*, or one that this user cannot read?"""
    if folder is None:
        return False
    try:
        return container in Path(folder, "record.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    except OSError:
        return True


def end_idle() -> None:
    """End containers that no run has used for an hour; a program's supervisor does that itself."""
    for record in records():
        if record.engine is not None:
            limit = KEEP_IDLE if (record.folder / "keep").exists() else IDLE
            if _age(record.folder / "use") > limit:
                record.end_unused()


def _folder(words: Sequence[str]) -> Path:
    here = Owner.current("", "")
    everything = [_LAYOUT, str(os.geteuid()), here.host, here.space, *words]
    key = hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:16]
    return cache_folder() / "servers" / f"{words[0]}-{key}"


@contextlib.contextmanager
def _cache_is_writable() -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise cannot_keep(error) from error


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _sweep(servers: Path) -> None:
    """Remove the folders of servers that no run has asked for in a long time."""
    for folder in servers.iterdir():
        if _age(folder / "use") > _UNUSED and not (folder / "record.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
