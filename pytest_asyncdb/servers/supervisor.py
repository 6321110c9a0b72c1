"""Runs server programs for a test run, and removes everything when the run ends.

``supervised.py`` runs it as ``python -I -S supervisor.py``; nothing imports it. It uses the
standard library only. The owner, the process of the test run, holds the other end of standard
input. When that closes, even because the owner was killed, the programs are killed and their folder
is removed.

Standard input: one message per line, in JSON. The first has the settings (:class:`_Programs`), each
of the others a command (:meth:`_Programs.start`). ``"stay"`` lets the server outlive the owner: its
folder is removed when the server has ended. ``null`` and the end of the file mean: stop.

Standard output: ``ready``, ``ended CODE`` for each command that ended by itself, ``staying``,
``failed TEXT``.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Seconds that a command may take to end by itself before it is killed.
_GRACE = 5.0
#: Seconds during which the removal of the folder is retried.
_REMOVAL = 5.0
#: Seconds between two checks of whether the owner is alive. Its end closes standard input, unless a
#: process that it forked holds a copy.
_CHECK = 2.0
#: https://man7.org/linux/man-pages/man2/prctl.2.html
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Follow the owner's messages until the owner ends or says stop."""
    owner = os.getppid()
    os.chdir("/")
    wakeup, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    # A handler, not SIG_IGN, because the programs would inherit that.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    programs: _Programs | None = None
    try:
        for message in _messages(owner, wakeup):
            if programs is None:
                if message is not None:
                    programs = _Programs(message)
                    _tell("ready")
            elif message is None:
                if (code := programs.exit_code()) is not None:
                    _tell(f"ended {code}")
            elif message == "stay" and programs.process is not None:
                _tell("staying")
                programs.process.wait()
                return
            else:
                programs.start(message)
    except (OSError, subprocess.SubprocessError) as error:
        _tell(f"failed {type(error).__name__}: {error}")
    finally:
        if programs is not None:
            programs.close()


def _messages(owner: int, wakeup: int) -> Iterator[Any]:
    """Yield the owner's messages until there are no more. Yield None when a signal has arrived."""
    buffer = b""
    while os.getppid() == owner:
        readable, _, _ = select.select([0, wakeup], [], [], _CHECK)
        if wakeup in readable:
            os.read(wakeup, 4096)
            yield None
        if 0 in readable:
            data = os.read(0, 65536)
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if message is None:
                    return
                yield message
            if not data:
                return


class _Programs:
    """The folder, and the one command that runs in it.

    Args:
        settings: ``folder``; ``owner`` and ``credentials``, the texts of files in it; ``user`` and
            ``group``, the ids to run as, or null.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.folder = Path(settings["folder"])
        self.user: int | None = settings["user"]
        self.group: int | None = settings["group"]
        self.process: subprocess.Popen[bytes] | None = None
        self.stop = signal.SIGKILL
        self.folder.mkdir(0o700)
        try:
            (self.folder / "owner.json").write_text(settings["owner"], encoding="utf-8")
            credentials = self.folder / "credentials"
            credentials.write_text(settings["credentials"])
            if self.user is not None and self.group is not None:
                os.chown(credentials, self.user, self.group)
                os.chown(self.folder, self.user, self.group)
        except BaseException:
            self.close()
            raise

    def start(self, message: dict[str, Any]) -> None:
        """Start ``command``; ``stop`` names the signal that ends it."""
        self.stop = signal.Signals[message["stop"]]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                message["command"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                # Temporary files must not outlive the folder.
                env={**os.environ, "TMPDIR": str(self.folder)},
                start_new_session=True,
                user=self.user,
                group=self.group,
                extra_groups=None if self.user is None else [],
                # Ends the command if this process is killed, too. Safe, because this process has
                # one thread.
                preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, self.stop),
            )

    def exit_code(self) -> int | None:
        """Return the exit code of a command that has ended since the last call."""
        if self.process is None or (code := self.process.poll()) is None:
            return None
        self.process = None
        return code

    def close(self) -> None:
        """End the command and everything that it started, then remove the folder."""
        for number in (self.stop, signal.SIGKILL):
            if self.process is not None and self.process.poll() is None:
                with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(self.process.pid, number)
                    self.process.wait(_GRACE)
        _kill_children()
        until = time.monotonic() + _REMOVAL
        while self.folder.exists() and time.monotonic() < until:
            shutil.rmtree(self.folder, ignore_errors=True)


def _kill_children() -> None:
    """Kill and reap children until none is left. This process adopts orphans (subreaper).

    A process group is not enough, because PostgreSQL gives each of its processes its own session.
    """
    while True:
        for child in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    """Return the children of this process, which has one thread. Empty on macOS, without
    ``/proc``."""
    with contextlib.suppress(FileNotFoundError):
        return [int(pid) for pid in Path("/proc/thread-self/children").read_text().split()]
    return []


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _tell(line: str) -> None:
    with contextlib.suppress(OSError):  # the owner has ended
        os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    main()
