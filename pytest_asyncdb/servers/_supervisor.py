"""Runs server programs for a test run, and removes every trace when the run is gone.

Run as ``python -I -S _supervisor.py`` by ``servers/local.py``, never imported; it uses the
standard library only. The owner holds the other end of standard input: when that closes,
however the owner ended, the programs are killed and their folder is removed.

Lines on standard input, each in JSON: first the settings, then one line per command, one
command at a time, then ``null``, or the end of the file. Lines on standard output: ``ready``,
and ``ended CODE`` for each command that ended by itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import runpy
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: How long a program may take to end by itself before it is killed.
_GRACE = 5.0
#: How often the owner is looked for. Its end closes standard input, unless a process that
#: it forked holds a copy.
_LOOK = 2.0
#: https://man7.org/linux/man-pages/man2/prctl.2.html
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Obey the owner until it is gone or says so."""
    owner = os.getppid()
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    # A handler rather than SIG_IGN, which the programs would inherit.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    programs: _Programs | None = None
    try:
        for message in _messages(awake, owner):
            if message is None:
                if programs is not None and (code := programs.ended()) is not None:
                    _say(f"ended {code}")
            elif programs is None:
                programs = _Programs(message)
                _say("ready")
            else:
                programs.start(message)
    except (OSError, subprocess.SubprocessError) as error:
        _say(f"failed {type(error).__name__}: {error}")
    finally:
        if programs is not None:
            programs.close()


def _messages(awake: int, owner: int) -> Iterator[dict[str, Any] | None]:
    """The owner's messages until there are no more; None when a signal arrived."""
    buffer = b""
    while os.getppid() == owner:
        readable, _, _ = select.select([0, awake], [], [], _LOOK)
        if awake in readable:
            os.read(awake, 4096)
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
    """The folder and the one command that runs in it.

    Args:
        settings: ``folder``; ``owner`` and ``credentials``, the texts of files in it; ``user`` and
            ``group``, the ids to run as, or null; ``environment``.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.folder = Path(settings["folder"])
        self.user: int | None = settings["user"]
        self.group: int | None = settings["group"]
        self.environment: dict[str, str] = settings["environment"]
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
        """Start a command: ``command``, and ``stop``, the signal that ends it well."""
        self.stop = signal.Signals(message["stop"])
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                message["command"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self.environment,
                start_new_session=True,
                user=self.user,
                group=self.group,
                extra_groups=None if self.user is None else [],
                # Should this process be killed too. It is its only thread.
                preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, self.stop),
            )

    def ended(self) -> int | None:
        """The exit code of a command that has ended since the last call."""
        if self.process is None or (code := self.process.poll()) is None:
            return None
        self.process = None
        return code

    def close(self) -> None:
        """End the command and all that it started, then remove the folder."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, self.stop)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_GRACE)
            if self.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
        _kill_children()
        if (self.folder / "data/postmaster.pid").exists():
            segments = runpy.run_path(str(Path(__file__).with_name("_segments.py")))
            segments["remove_segments"](self.folder / "data")
        until = time.monotonic() + _GRACE
        while self.folder.exists() and time.monotonic() < until:
            shutil.rmtree(self.folder, ignore_errors=True)


def _kill_children() -> None:
    """Kill and reap until no child is left; orphans come to us as the subreaper.

    PostgreSQL gives each of its processes a session of its own, so that the process group
    of the server does not hold them.
    """
    while True:
        for child in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> Iterator[int]:
    """Our children, where there is a ``/proc``; elsewhere the process group must do."""
    me = str(os.getpid())
    with contextlib.suppress(FileNotFoundError):
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                # "pid (name) state ppid …", and the name may hold anything.
                if entry.name.isdigit():
                    text = (entry / "stat").read_text(errors="replace")
                    if text.rpartition(")")[2].split()[1] == me:
                        yield int(entry.name)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    main()
