"""``-p like_windows``: takes away what Python on Windows lacks, and gives asyncio a default loop
like that of Windows.

Paths, files, processes and the drivers' C code stay those of this system, so a green run here is no
green run on Windows.
"""

from __future__ import annotations

import asyncio
import asyncio.events
import contextlib

# What chooses by the name of the system at its import, and must find this system.
import ctypes  # noqa: F401
import functools
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import types
from typing import NoReturn

import platformdirs  # noqa: F401
import psutil  # noqa: F401
import pytest

LACKING: dict[object, str] = {
    signal: "SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGQUIT SIGTSTP SIGUSR1 SIGUSR2 alarm "
    "pidfd_send_signal pthread_sigmask setitimer",
    socket: "AF_UNIX",
    select: "epoll poll",
    os: "O_CLOEXEC WNOHANG chown fchmod fork forkpty geteuid getegid getgid getpgid "
    "getuid killpg pidfd_open register_at_fork setsid statvfs uname",
}
MODULES = ("fcntl", "grp", "pwd", "pty", "resource", "termios")


def _refuse(*_: object) -> NoReturn:
    raise NotImplementedError


class ProactorEventLoop(asyncio.SelectorEventLoop):
    """Watches no file descriptors and no signals, like the default loop of Windows."""

    add_reader = remove_reader = add_writer = add_signal_handler = _refuse


def take_away() -> None:
    """From now on, for all modules."""
    # Windows makes pairs of sockets of another family.
    socket.socketpair = functools.partial(socket.socketpair, socket.AF_UNIX)
    # It ends processes in another way, too: xdist ends workers that take long to end.
    subprocess.signal = types.SimpleNamespace(**vars(signal))
    for module, words in LACKING.items():
        for word in words.split():
            if hasattr(module, word):
                delattr(module, word)
    for name in MODULES:
        sys.modules[name] = None
    os.environ.setdefault("USERNAME", "someone")  # Windows sets it; others have the module pwd
    selectors.DefaultSelector = selectors.SelectSelector
    get_policy = getattr(asyncio.events, "_get_event_loop_policy", asyncio.get_event_loop_policy)
    type(get_policy())._loop_factory = ProactorEventLoop
    asyncio.ProactorEventLoop = ProactorEventLoop  # psycopg looks for it


def pytest_addoption() -> None:
    """Called for a plugin of ``-p`` before the plugins of entry points are imported."""
    take_away()


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    # "nt" and "win32" would lead other libraries to what is not here.
    os.name = "neither posix nor nt"
    with contextlib.suppress(ImportError):
        import psycopg.connection_async

        psycopg.connection_async.sys = types.SimpleNamespace(platform="win32")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    os.name = "posix"
