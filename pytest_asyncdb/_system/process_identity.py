"""Who made something that outlives a crash, and whether that process is still there.

The record goes where the thing is: into a server's folder, a container's label. Other
versions of the plugin read it, so fields are only ever added. In doubt the owner is alive.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import socket
import subprocess
from pathlib import Path

#: The file in a server's folder.
FILE = "owner.json"
#: Seconds for ``ps``.
_PS = 10.0


@dataclasses.dataclass(frozen=True)
class Owner:
    """A process, told from any other that bears its number.

    Args:
        host: The machine's name, and its ``machine-id`` where it has one.
        boot: What is new with every start of the machine; empty where it is not known.
        space: The process's pid namespace; empty where there are none.
        pid: Its number in there.
        started: When it began, as the system writes it.
        run: The run id.
        version: The plugin's version.
        what: What it owns, in words.
    """

    host: str
    boot: str
    space: str
    pid: int
    started: str
    run: str
    version: str
    what: str

    @classmethod
    def current(cls, run: str, what: str) -> Owner:
        """This process as the owner of *what*."""
        pid = os.getpid()
        return cls(_host(), _boot(), _space(), pid, start_time(pid) or "", run, _version(), what)

    @classmethod
    def from_json(cls, text: str) -> Owner:
        """Read what :meth:`to_json` wrote, in whatever version.

        Raises:
            ValueError: It is no such record.
        """
        values = json.loads(text)
        try:
            owner = cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})
        except (KeyError, TypeError) as error:
            raise ValueError(f"no record of an owner: {text!r}") from error
        if not all(
            type(getattr(owner, field.name)) is (int if field.name == "pid" else str)
            for field in dataclasses.fields(cls)
        ):
            raise ValueError(f"no record of an owner: {text!r}")
        return owner

    def to_json(self) -> str:
        """One line."""
        return json.dumps(dataclasses.asdict(self))

    def alive(self) -> bool:
        """Is the process there? True also where that cannot be told from here."""
        if self.host != _host():
            return True
        if self.boot != _boot():
            # Machines may share a name, but not a machine-id.
            return self.host.endswith("/")
        if self.space != _space() or not self.started:
            return True
        return _is_there(self.pid) and start_time(self.pid) in (None, self.started)

    def __str__(self) -> str:
        host = self.host.partition("/")[0]
        return f"{self.what} of run {self.run} (process {self.pid} on {host})"


def start_time(pid: int) -> str | None:
    """When a process began, as the system writes it.

    Empty when it has ended and only waits for its parent; None where it cannot be told.
    """
    try:
        # "pid (name) state ppid …", and the name may hold anything; 22 is the start time.
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text.rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists() or os.name != "posix":
            return None
    try:
        done = subprocess.run(
            ["ps", "-o", "stat=,lstart=", "-p", str(pid)],
            capture_output=True,
            text=True,
            timeout=_PS,
            env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    state, _, began = done.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else began.strip() or None


def _is_there(pid: int) -> bool:
    if os.name != "posix":  # there, signal 0 is Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True


def _host() -> str:
    return f"{socket.gethostname()}/{_read('/etc/machine-id')}"


def _boot() -> str:
    return _read("/proc/sys/kernel/random/boot_id")


def _space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115  # it leads to no path
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


@functools.cache
def _version() -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version("pytest-asyncdb")
    except importlib.metadata.PackageNotFoundError:  # a checkout on sys.path
        return "unknown"
