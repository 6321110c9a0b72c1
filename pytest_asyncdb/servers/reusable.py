"""Servers that stay for later runs (``--asyncdb-reuse``): finding one, starting one, ending one.

What a server is decides its key. By it two files in the user's cache are called: the record of the
server that runs, and a lock for whoever looks for one, so that two runs do not start two. A run
that uses a server has a shared lock on the file ``use`` in its folder; the kernel takes it back
however the run ends, and the server's supervisor ends what nobody uses.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from pytest_asyncdb._system.cache_dir import cache_folder, private_folder, write_private
from pytest_asyncdb._system.file_lock import lock
from pytest_asyncdb._system.process_identity import Owner
from pytest_asyncdb.abc import Server, ServerProvider
from pytest_asyncdb.servers.messages import nowhere_to_keep
from pytest_asyncdb.servers.supervised import Supervised

_Started = contextlib.AbstractContextManager[tuple[Supervised, Server]]

#: Seconds without use after which a server ends.
IDLE = 3600.0
#: The same where databases of failed tests are on it.
KEEPING = 86400.0
#: Changes when another version of the plugin could not use what this one has started.
_LAYOUT = "1"
#: Seconds in which a server that is told to must have ended.
_END = 30.0
#: Seconds after which the files of a key that no run has asked for are removed.
_UNUSED = 30 * 86400.0


@dataclasses.dataclass(frozen=True)
class Record:
    """A server that stays.

    Args:
        server: How to reach it, its password included.
        folder: Where it and its supervisor's file ``use`` are.
        owner: The supervisor.
    """

    server: Server
    folder: str
    owner: Owner

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """What is written there; None: nothing, or nothing that can be read."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            owner = Owner.from_json(json.dumps(values["owner"]))
            return cls(Server.from_message(values["server"]), values["folder"], owner)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Write it for this user only, all of it or nothing."""
        new = path.with_suffix(".new")
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        write_private(new, json.dumps(dataclasses.asdict(self)))
        new.replace(path)


def obtained(
    provider: ServerProvider,
    name: str,
    kind: str,
    words: Callable[[], Sequence[str]],
    started: Callable[[Owner], _Started],
    runs: Callable[[Record], bool] = lambda record: True,
) -> contextlib.AbstractContextManager[Server]:
    """A server for as long as *provider* is to have one.

    Args:
        name: Of the backend.
        kind: What it is, such as ``a PostgreSQL server``.
        words: Everything that decides what the server is.
        started: Starts one. The owner is this process, as far as it is one.
        runs: Is a server of which there is a record still there?
    """
    owner = Owner.current(provider.run, kind)
    if provider.reuse:
        owner = dataclasses.replace(owner, what=f"{kind} that stays")
        return _kept(name, words, owner, partial(started, owner), runs)
    if provider.needed is not None:
        stays = dataclasses.replace(owner, what=f"{kind} with databases that were kept")
        return _if_needed(name, stays, partial(started, owner), provider.needed)
    return _only(started(owner))


@contextlib.contextmanager
def _only(started: _Started) -> Iterator[Server]:
    """For this run only."""
    with started as (_, server):
        yield server


@contextlib.contextmanager
def _kept(
    name: str,
    words: Callable[[], Sequence[str]],
    owner: Owner,
    started: Callable[[], _Started],
    runs: Callable[[Record], bool],
) -> Iterator[Server]:
    """The server of these *words*, which stays; nobody ends it meanwhile.

    Raises:
        ServerUnavailable: The user's cache cannot be written to.
        AsyncdbError: The server did not start.
    """
    key = _key(words())
    with _writable():
        path = private_folder("servers") / f"{name}-{key}.json"
        guard = path.with_suffix(".lock")
        waiting = lock(guard)
        assert waiting is not None
    try:
        os.utime(guard)
        server, use = _join(path, runs) or _start(path, owner, started)
    finally:
        os.close(waiting)
    try:
        yield server
    finally:
        os.close(use)


@contextlib.contextmanager
def _if_needed(
    name: str, owner: Owner, started: Callable[[], _Started], needed: Callable[[Server], bool]
) -> Iterator[Server]:
    """A server for this run, which stays after it if it is *needed*.

    Args:
        name: Of the backend.
        owner: This process, as far as it is the owner of a server that stays.
        started: Starts it, with a detached supervisor.
        needed: Asked on leaving.
    """
    with started() as (ours, server):
        yield server
        if needed(server):
            with _writable():
                Path(ours.folder, "keep").touch()
                path = private_folder("servers") / f"{name}-{Path(ours.folder).name}.json"
                os.close(_stay(path, ours, server, owner))


def _stay(path: Path, ours: Supervised, server: Server, owner: Owner) -> int:
    """Let a server outlive this run. Returns the file that is locked while we use it."""
    use = lock(Path(ours.folder, "use"), shared=True)
    assert use is not None
    try:
        owner = ours.as_owner(owner)
        ours.stay(path, IDLE, KEEPING, owner)
        with _writable():
            Record(server, ours.folder, owner).write(path)
    except BaseException:
        os.close(use)
        raise
    return use


def stays_already(name: str, words: Sequence[str], runs: Callable[[Record], bool]) -> bool:
    """Is there a server of these *words*? See :func:`obtained`."""
    with contextlib.suppress(RuntimeError):
        record = Record.read(_folder() / f"{name}-{_key(words)}.json")
        return record is not None and record.owner.alive() and runs(record)
    return False


def _folder() -> Path:
    return cache_folder() / "servers"


def records() -> Iterator[tuple[Path, Record]]:
    """This user's servers that stay, each with the file that says so."""
    with contextlib.suppress(RuntimeError):
        for path in sorted(_folder().glob("*.json")):
            if (record := Record.read(path)) is not None:
                yield path, record


def end_unused(path: Path, record: Record, dry: bool) -> bool | None:
    """End a server that stays, if no run uses it; blocks.

    Args:
        path: The record's.
        dry: Only say.

    Returns:
        None: it is in use; whether it has ended, or could.
    """
    if record.owner.alive():
        try:
            use = lock(Path(record.folder, "use"), wait=False)
        except FileNotFoundError:
            use = -1  # its folder was removed
        if use is None:
            return None
        if use != -1:
            os.close(use)
    if dry:
        return True
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    # It looks at the record, and ends as there is none.
    until = time.monotonic() + _END
    while record.owner.alive():
        with contextlib.suppress(OSError):
            os.kill(record.owner.pid, signal.SIGTERM)
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def _key(words: Sequence[str]) -> str:
    here = Owner.current("", "")
    try:
        network = str(Path("/proc/self/ns/net").readlink())
    except OSError:
        network = ""
    everything = [_LAYOUT, str(os.geteuid()), here.host, here.space, network, *words]
    return hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:16]


def _join(path: Path, runs: Callable[[Record], bool]) -> tuple[Server, int] | None:
    """The server that runs, and the file that is locked while we use it."""
    record = Record.read(path)
    if record is None or not record.owner.alive():
        return None
    use = None
    with contextlib.suppress(FileNotFoundError):
        use = lock(Path(record.folder, "use"), shared=True)
    if use is None:
        return None
    # Before we had the lock its supervisor may have found that nobody uses it.
    if Record.read(path) != record or not runs(record):
        os.close(use)
        return None
    os.utime(use)
    return record.server, use


def _start(path: Path, owner: Owner, started: Callable[[], _Started]) -> tuple[Server, int]:
    _sweep(path.parent)
    path.unlink(missing_ok=True)
    with started() as (ours, server):
        server = dataclasses.replace(server, kept=ours.folder)
        Path(ours.folder, "templates").mkdir(mode=0o700)
        use = _stay(path, ours, server, owner)
    return server, use


@contextlib.contextmanager
def _writable() -> Iterator[None]:
    """The user's cache can be written to, or that is the error."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise nowhere_to_keep(error) from error


def _sweep(folder: Path) -> None:
    """Remove what belongs to servers that nobody has asked for in a long time."""
    for path in folder.glob("*.lock"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _UNUSED:
                path.unlink()
                path.with_suffix(".json").unlink(missing_ok=True)
