"""PostgreSQL's shared memory, which the kernel keeps when every process was killed.

A server of ours makes one System V segment, of a page's size, by which it knows that nobody else
uses its folder. ``initdb`` may besides choose POSIX shared memory, whose files are found from
there. ``postmaster.pid`` says which segment it was; after an orderly end it is gone.

Also run by path, from ``supervisor.py``: the standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import struct
from pathlib import Path

_SHM_RDONLY = 0o10000
_IPC_RMID = 0
#: ``PGShmemHeader``: magic, pid of the creator, two sizes, handle of the control segment.
_HEADER = struct.Struct("iiNNI")
_MAGIC = 679834894
#: ``dsm_control_header``: magic, items in use, items in all; items follow.
_CONTROL = struct.Struct("III4x")
_CONTROL_MAGIC = 0x9A503D32
#: Sizes of a ``dsm_control_item``, which begins with a handle and a reference count.
_ITEMS = (40, 24)


def remove_segments(folder: Path) -> None:
    """Remove what the dead server of a data folder has left in shared memory."""
    with contextlib.suppress(OSError, ValueError, IndexError, struct.error):
        lines = (folder / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        # In its single-user mode the number is negative.
        creator, segment = abs(int(lines[0])), int(lines[6].split()[1])
        if _is_left(segment, creator):
            for handle in _handles(segment, creator):
                Path(f"/dev/shm/PostgreSQL.{handle}").unlink(missing_ok=True)  # noqa: S108
            ctypes.CDLL(None).shmctl(segment, _IPC_RMID, None)


def _is_left(segment: int, creator: int) -> bool:
    """Is it the creator's, and has nobody attached it?"""
    for line in Path("/proc/sysvipc/shm").read_text(encoding="utf-8").splitlines()[1:]:
        _, number, _, _, made_by, _, attached, *_ = map(int, line.split())
        if number == segment:
            return made_by == creator and attached == 0
    return False


def _handles(segment: int, creator: int) -> list[int]:
    """The POSIX segments that belong to a System V segment, the control segment last."""
    libc = ctypes.CDLL(None)
    libc.shmat.restype = ctypes.c_void_p
    address = libc.shmat(segment, None, _SHM_RDONLY)
    if address in (None, ctypes.c_void_p(-1).value):
        return []
    try:
        magic, pid, _, _, control = _HEADER.unpack(ctypes.string_at(address, _HEADER.size))
    finally:
        libc.shmdt(ctypes.c_void_p(address))
    if magic != _MAGIC or abs(pid) != creator or control == 0:
        return []
    try:
        data = Path(f"/dev/shm/PostgreSQL.{control}").read_bytes()  # noqa: S108
    except FileNotFoundError:  # it is in the folder, as with the server's own settings
        return []
    magic, used, items = _CONTROL.unpack_from(data)
    if magic != _CONTROL_MAGIC:
        return []
    # The size of an item depends on the version.
    size = next((n for n in _ITEMS if _CONTROL.size + items * n == len(data)), 0)
    places = range(_CONTROL.size, _CONTROL.size + used * size, size) if size else ()
    pairs = [struct.unpack_from("II", data, place) for place in places]
    return [*(handle for handle, count in pairs if count), control]
