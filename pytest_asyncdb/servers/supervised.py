"""The test run's side of ``supervisor.py``: a process that runs server programs in a folder.

The folder exists as long as the supervisor does. This module does not know databases.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pytest_asyncdb._system.process_identity import Owner, start_time
from pytest_asyncdb.errors import AsyncdbError
from pytest_asyncdb.servers.server_folders import PREFIX, data_place

#: Seconds within which the supervisor must answer, and within which it must end and remove
#: everything.
_END = 20.0
#: The variables that server programs get from the run's environment. They get no others, such as
#: secrets of a CI job, because they may run as another user.
_PASSED_ON = ("PATH", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")


@dataclasses.dataclass(frozen=True)
class Identity:
    """The user as whom the programs run.

    Args:
        wrap: Words in front of each command.
        user: The id of the user that the supervisor changes to, or None.
        group: The same for the group.
    """

    wrap: tuple[str, ...] = ()
    user: int | None = None
    group: int | None = None


@dataclasses.dataclass
class Supervised:
    """Runs one command at a time, in a folder that the supervisor removes."""

    process: subprocess.Popen[bytes]
    identity: Identity
    folder: str
    #: True after :meth:`stay`.
    stays: bool = False

    def tell(self, message: object) -> None:
        """Send a message to the supervisor."""
        assert self.process.stdin is not None
        # If the supervisor has ended, the next event shows it.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def start(self, command: list[str], stop: str) -> None:
        """Start a command. To end it, the supervisor sends the signal with the name *stop*."""
        self.tell({"command": [*self.identity.wrap, *command], "stop": stop})

    def event(self, seconds: float) -> str | None:
        """Return the supervisor's report on the last message; None if there is none in time."""
        assert self.process.stdout is not None
        poll = select.poll()
        poll.register(self.process.stdout)
        if not poll.poll(1000 * seconds):
            return None
        data = os.read(self.process.stdout.fileno(), 4096)  # the supervisor writes a line at once
        return data.decode(errors="replace").strip() or "failed the supervisor ended"

    def stay(self, owner: Owner) -> Owner:
        """Let the folder and the command outlive this run.

        Returns:
            *owner* with the supervisor as the process.

        Raises:
            AsyncdbError: The server has ended.
        """
        self.tell("stay")
        if (answer := self.event(_END)) != "staying":
            raise AsyncdbError("the server ended before it could be kept", [str(answer)])
        self.stays = True
        pid = self.process.pid
        return dataclasses.replace(owner, pid=pid, started=start_time(pid) or "")

    def output(self) -> str:
        """Return the end of what the commands printed."""
        try:
            with Path(self.folder, "log").open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 8192))
                return log.read().decode(errors="replace")
        except OSError:
            return ""


@contextlib.contextmanager
def supervised(identity: Identity, credentials: str, owner: Owner) -> Iterator[Supervised]:
    """Start a supervisor with a new folder. At the end of the context both are gone, unless they
    stay.

    Raises:
        AsyncdbError: The supervisor did not start, or did not end.
    """
    base, _ = data_place()
    here = os.getpid()
    folder = f"{base}/{PREFIX}{secrets.token_hex(6)}"
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(__file__).with_name("supervisor.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(),
        start_new_session=True,  # Ctrl-C is for the run, not for the supervisor
    )
    programs = Supervised(process, identity, folder)
    try:
        files = {"folder": folder, "owner": owner.to_json(), "credentials": credentials}
        programs.tell({**files, "user": identity.user, "group": identity.group})
        answer = programs.event(_END) or f"no answer within {_END:g} s"
        if answer != "ready":
            raise AsyncdbError(f"cannot make a folder for a server in {base}", [answer])
        yield programs
    finally:
        if os.getpid() == here:  # in a forked child the garbage collector comes here, too
            _end(programs)


def _end(programs: Supervised) -> None:
    process = programs.process
    if programs.stays:
        # Otherwise Popen's destructor warns that the process is still running.
        process.returncode = 0
    else:
        programs.tell(None)
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()  # type: ignore[union-attr]
    try:
        process.wait(_END)
    except subprocess.TimeoutExpired:
        raise AsyncdbError(
            f"a server's processes did not end within {_END:g} s",
            [f"folder: {programs.folder}", f"supervisor: process {process.pid}"],
        ) from None
    finally:
        process.stdout.close()  # type: ignore[union-attr]


def environment() -> dict[str, str]:
    """Return the environment of server programs: what is needed to find and load them.

    Messages are in English, because this package reads some of them.
    """
    return {"LC_ALL": "C"} | {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
