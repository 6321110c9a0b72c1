"""Our end of ``supervisor.py``: a process that runs server programs in a folder of its own.

The folder exists only while the supervisor does. Knows nothing of databases.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pytest_asyncdb._system.process_identity import Owner, start_time
from pytest_asyncdb.errors import AsyncdbError

#: How the name of a folder begins.
PREFIX = "pytest-asyncdb-"
#: Seconds in which the supervisor must have ended and removed everything.
_END = 20.0
#: Seconds that a command may take to end by itself before it is killed.
GRACE = 5.0
#: A file system in memory that every Linux has.
MEMORY = "/dev/shm"  # noqa: S108  # our folder in it has a random name and mode 0700
#: Free space for the data to be put in memory.
_ENOUGH = 512 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Identity:
    """Whom the programs run as.

    Args:
        wrap: What stands before each command.
        user: The id of the user that the supervisor changes to, or None.
        group: The same for the group.
    """

    wrap: tuple[str, ...] = ()
    user: int | None = None
    group: int | None = None


class Supervised:
    """Our end of the supervisor: one command at a time in a folder that it watches."""

    def __init__(
        self, process: subprocess.Popen[bytes], identity: Identity, folder: str, where: str
    ) -> None:
        self.folder = folder
        #: Where its files are, in words.
        self.where = where
        #: The number of the supervisor.
        self.pid = 0
        self._process = process
        self._identity = identity
        self._events = b""
        self._ended = False
        #: Has it been told to stay?
        self.stays = False

    def tell(self, message: object) -> None:
        """Send a line to the supervisor."""
        assert self._process.stdin is not None
        # A supervisor that has ended shows in the next event.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def start(self, command: list[str], stop: signal.Signals, grace: float = GRACE) -> None:
        """Start a command, to be ended with the signal *stop*, and *grace* seconds later killed."""
        words = [*self._identity.wrap, *command]
        self.tell({"command": words, "stop": int(stop), "grace": grace})

    def as_owner(self, owner: Owner) -> Owner:
        """The supervisor in the place of *owner*."""
        return dataclasses.replace(owner, pid=self.pid, started=start_time(self.pid) or "")

    def event(self, seconds: float) -> str | None:
        """The next line from the supervisor; None when there is none in time."""
        assert self._process.stdout is not None
        until = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._events:
                if not selector.select(max(0.0, until - time.monotonic())):
                    return None
                data = os.read(self._process.stdout.fileno(), 4096)
                if not data:
                    self._ended = True
                    return f"failed the supervisor ended: {self._events.decode(errors='replace')}"
                self._events += data
        line, _, self._events = self._events.partition(b"\n")
        return line.decode(errors="replace")

    def stay(self, record: Path, idle: float, keeping: float, owner: Owner) -> None:
        """Let the folder and the command outlive us; see ``supervisor.py``.

        Args:
            record: The file that leads to the folder; to be written when this has returned.
            idle: Seconds without use after which all of it ends.
            keeping: The same where the file ``keep`` is in the folder.
            owner: The supervisor as the owner of the folder.

        Raises:
            AsyncdbError: The supervisor has ended.
        """
        message = {"stay": str(record), "idle": idle, "keeping": keeping, "owner": owner.to_json()}
        self.tell(message)
        answer = self.event(_END)
        if answer != "staying":
            raise AsyncdbError("a server that was to stay has ended", [str(answer)])
        self.stays = True

    def wait(self, seconds: float) -> None:
        """Wait until the supervisor says nothing more: it has ended, or stays.

        Raises:
            subprocess.TimeoutExpired: It is still there.
        """
        until = time.monotonic() + seconds
        while not self._ended:
            if self.event(max(0.0, until - time.monotonic())) is None:
                raise subprocess.TimeoutExpired("the supervisor", seconds)

    def output(self) -> str:
        """The end of what the commands printed."""
        try:
            with Path(self.folder, "log").open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 8192))
                return log.read().decode(errors="replace")
        except OSError:
            return ""


@contextlib.contextmanager
def supervised(
    identity: Identity, credentials: str, owner: Owner, *, detached: bool = False
) -> Iterator[Supervised]:
    """A supervisor with a fresh folder; on leaving, both are gone.

    Args:
        detached: It may stay, if it is told to (:meth:`Supervised.stay`).

    Raises:
        AsyncdbError: The supervisor did not start, or did not end.
    """
    base, where = data_place()
    folder = f"{base}/{PREFIX}{secrets.token_hex(6)}"
    path = str(Path(__file__).with_name("supervisor.py"))
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", path, *(["stay"] if detached else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for us, not for it
    )
    ours = Supervised(process, identity, folder, where)
    try:
        ours.tell(
            {
                "folder": folder,
                "owner": owner.to_json(),
                "credentials": credentials,
                "user": identity.user,
                "group": identity.group,
                # Messages are read by us; temporary files must not outlive the folder.
                "environment": {**os.environ, "LC_ALL": "C", "TMPDIR": folder},
            }
        )
        answer = ours.event(_END) or f"no answer within {_END:g} s"
        if not answer.startswith("ready "):
            raise AsyncdbError(f"no folder for a server could be made in {base}", [answer])
        ours.pid = int(answer.split()[1])
        yield ours
    finally:
        ours.tell(None)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()  # type: ignore[union-attr]
        try:
            process.wait(_END)
            if detached:
                ours.wait(_END)
        except subprocess.TimeoutExpired:
            raise AsyncdbError(
                f"a server's processes did not end within {_END:g} s",
                [f"folder: {folder}", f"supervisor: process {ours.pid or process.pid}"],
            ) from None
        finally:
            process.stdout.close()  # type: ignore[union-attr]


def data_place() -> tuple[str, str]:
    """Where a server's folder would be made now, and that in words."""
    if _has_room(MEMORY):
        return MEMORY, "data in memory"
    return tempfile.gettempdir(), "data on disk"


def _has_room(folder: str) -> bool:
    """Is *folder* a file system of its own, writable, with room for databases?"""
    if not (os.path.ismount(folder) and os.access(folder, os.W_OK | os.X_OK)):
        return False
    space = os.statvfs(folder)
    return space.f_bavail * space.f_frsize >= _ENOUGH
