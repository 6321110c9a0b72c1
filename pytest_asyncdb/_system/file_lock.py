"""Locks on files, which the kernel takes back when their process ends, however it does.

Between processes of one machine. A lock belongs to the open file: a process that was forked, not
one that was executed, holds it too.
"""

from __future__ import annotations

import os
from pathlib import Path


def lock(path: Path, *, shared: bool = False, wait: bool = True) -> int | None:
    """Lock a file, which is made if it is not there; closing what is returned gives it back.

    Args:
        shared: Others may have such a lock as well.
        wait: Until whoever has the lock gives it back.

    Returns:
        The open file; None: somebody has the lock, and *wait* is false.

    Raises:
        OSError: The file cannot be opened.
    """
    import fcntl

    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        os.close(file)
        return None
    except BaseException:
        os.close(file)
        raise
    return file
