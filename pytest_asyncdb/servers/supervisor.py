"""Runs server programs for a test run, and removes every trace when the run is gone.

Run as ``python -I -S supervisor.py`` by ``servers/local.py``, never imported; it uses the
standard library only. The owner holds the other end of standard input: when that closes,
however the owner ended, the programs are killed and their folder is removed.

Lines on standard input, each in JSON: first the settings, then one line per command, one
command at a time, then ``null``, or the end of the file. Lines on standard output: ``ready PID``,
and ``ended CODE`` for each command that ended by itself.

With the argument ``stay`` it is nobody's child, and a last line, ``stay``, lets it and the command
outlive the owner, until nobody has used them for a while; see :func:`_stay`.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

#: How long the removal of the folder is tried.
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
    detached = sys.argv[1:] == ["stay"]
    if detached and os.fork():
        os._exit(0)

    def is_there() -> bool:
        return _exists(owner) if detached else os.getppid() == owner

    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    # A handler rather than SIG_IGN, which the programs would inherit.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    programs: _Programs | None = None
    try:
        for message in _messages(awake, is_there):
            if message is None:
                if programs is not None and (code := programs.ended()) is not None:
                    _say(f"ended {code}")
            elif programs is None:
                programs = _Programs(message)
                _say(f"ready {os.getpid()}")
            elif "stay" in message:
                programs.give_owner(message["owner"])
                _say("staying")
                _stay(programs, awake, Path(message["stay"]), message["idle"], message["keeping"])
                return
            else:
                programs.start(message)
    except (OSError, subprocess.SubprocessError) as error:
        _say(f"failed {type(error).__name__}: {error}")
    finally:
        if programs is not None:
            programs.close()


def _stay(programs: _Programs, awake: int, record: Path, idle: float, keeping: float) -> None:
    """Return when the command has ended, or when nobody uses it any more.

    Whoever uses it has a shared lock on the file ``use`` in the folder, has touched it, and has
    found it by *record*, a file that names the folder. Nobody does when there has been no such
    lock for *idle* seconds, or when there is none and the record is gone, or is another one's.
    Where a file ``keep`` is in the folder, *keeping* takes the place of *idle*.
    """
    import fcntl

    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    use = os.open(programs.folder / "use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    keep = programs.folder / "keep"
    touched, used = 0, 0.0
    while programs.ended() is None:
        if touched != (touched := os.fstat(use).st_mtime_ns):
            used = time.monotonic()
        try:
            fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            used = time.monotonic()
        else:
            limit = keeping if keep.exists() else idle
            if time.monotonic() - used > limit or not _names(record, programs.folder):
                break
            fcntl.flock(use, fcntl.LOCK_UN)
        if select.select([awake], [], [], min(_LOOK, idle))[0]:
            os.read(awake, 4096)
    # Who comes now looks at the record once more when it has the lock.
    if _names(record, programs.folder):
        record.unlink()
    os.close(use)


def _names(record: Path, folder: Path) -> bool:
    try:
        return bool(json.loads(record.read_text(encoding="utf-8"))["folder"] == str(folder))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _messages(awake: int, is_there: Callable[[], bool]) -> Iterator[dict[str, Any] | None]:
    """The owner's messages until there are no more; None when a signal arrived."""
    buffer = b""
    while is_there():
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
        self.grace = 0.0
        # Now: what it is in may be gone when a server that stays ends.
        self._segments = runpy.run_path(str(Path(__file__).with_name("segments.py")))
        self.folder.mkdir(0o700)
        try:
            self.give_owner(settings["owner"])
            credentials = self.folder / "credentials"
            credentials.write_text(settings["credentials"])
            if self.user is not None and self.group is not None:
                os.chown(credentials, self.user, self.group)
                os.chown(self.folder, self.user, self.group)
        except BaseException:
            self.close()
            raise

    def give_owner(self, owner: str) -> None:
        """Write down whose the folder is."""
        written = self.folder / "owner.json.new"
        written.write_text(owner, encoding="utf-8")
        written.replace(self.folder / "owner.json")

    def start(self, message: dict[str, Any]) -> None:
        """Start a command: ``command``; ``stop``, the signal that ends it well, and ``grace``, the
        seconds that this may take."""
        self.stop = signal.Signals(message["stop"])
        self.grace = message["grace"]
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
                self.process.wait(self.grace)
            if self.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
        _kill_children()
        if (self.folder / "data/postmaster.pid").exists():
            self._segments["remove_segments"](self.folder / "data")
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
