"""File locks. The kernel releases them when their process ends, also if it is killed.

They work between processes of one machine. A lock belongs to the open file: a forked process holds
it too, an executed program does not.
"""

from __future__ import annotations

import os
from pathlib import Path


def lock(path: Path, *, shared: bool = False, wait: bool = True) -> int:
    """Lock a file, and create it if it does not exist. Closing the open file releases the lock.

    Args:
        shared: Other processes may have a shared lock as well.
        wait: Wait until other processes release their locks.

    Returns:
        The open file.

    Raises:
        BlockingIOError: *wait* is false, and another process has a lock.
        OSError: The file cannot be opened.
    """
    import fcntl

    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(file, how)
    except BaseException:
        os.close(file)
        raise
    return file
