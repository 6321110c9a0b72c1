"""Records which process made something that outlives a crash, and whether that process still runs.

The record is stored with the thing: in a server's folder, in a container's label. Other versions of
the plugin read it, so fields are only ever added. If in doubt, the process counts as running. A
server that may outlive its process names the folder where later runs find it (``kept``).
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from pathlib import Path

#: The name of the file in a server's folder.
FILE = "owner.json"
#: Hundredths of a second by which two readings of one start time may differ.
_TOLERANCE = 200


@dataclasses.dataclass(frozen=True)
class Owner:
    """A process, distinct from any other process that gets the same pid.

    Args:
        host: The machine's name and, after a slash, its ``machine-id``. If there is none: an id
            that changes with every boot.
        space: The process's pid namespace; empty on systems without them.
        pid: The process id in that namespace.
        started: The result of :func:`start_time`.
        run: The run id.
        what: What the process owns, in words.
        kept: The folder of the record by which later runs find the thing (``servers/reusable.py``);
            empty if the thing ends with the process.
    """

    host: str
    space: str
    pid: int
    started: str
    run: str
    what: str
    kept: str = ""

    @classmethod
    def current(cls, run: str, what: str, kept: str = "") -> Owner:
        """Return this process as the owner of *what*."""
        pid = os.getpid()
        return cls(_host(), _space(), pid, start_time(pid) or "", run, what, kept)

    @classmethod
    def from_json(cls, text: str) -> Owner:
        """Read what :meth:`to_json` wrote, in any version.

        Raises:
            ValueError: The text is no such record.
        """
        values = json.loads(text)
        kinds = {field.name: str for field in dataclasses.fields(cls)} | {"pid": int}
        known = isinstance(values, dict) and all(type(values.get(n)) is k for n, k in kinds.items())
        if not known:
            raise ValueError(f"no record of an owner: {text!r}")
        return cls(**{name: values[name] for name in kinds})

    def to_json(self) -> str:
        """Return the record as one line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    def alive(self) -> bool:
        """Return whether the process runs. True also if this cannot be determined from here."""
        here = (self.host, self.space) == (_host(), _space())
        if not here or self.pid <= 0 or not self.started.isdecimal():
            return True
        now = start_time(self.pid)
        return now is None or bool(now and abs(int(now) - int(self.started)) <= _TOLERANCE)

    def holds(self, name: str) -> bool:
        """Return whether a server of the process is in use: the process runs, or later runs can
        find it.

        Args:
            name: The name of the server's folder or container.
        """
        if self.alive():
            return True
        try:
            record = Path(self.kept, "record.json") if self.kept else None
            return record is not None and name in record.read_text(encoding="utf-8")
        except FileNotFoundError:
            return False
        except OSError:  # it belongs to another user
            return True

    def __str__(self) -> str:
        host = self.host.partition("/")[0]
        return f"{self.what} of run {self.run} (process {self.pid} on {host})"


def start_time(pid: int) -> str | None:
    """Return when a process started, in hundredths of a second since the machine's boot.

    Empty if there is no such process, or only a zombie; None if it cannot be determined.
    """
    import psutil  # 7 ms

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return ""
        # psutil counts from the epoch; this difference stays the same when the clock is set.
        return str(round(100 * (process.create_time() - psutil.boot_time())))
    except psutil.NoSuchProcess:
        return ""
    except psutil.Error:
        return None


def _host() -> str:
    # Machines may share a name, but none of these ids.
    number = _read("/etc/machine-id") or _read("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()}/{number}"


def _space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115  # the target is no path
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
