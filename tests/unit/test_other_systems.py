"""What other systems' Python lacks is looked up where it is used, not where modules are imported."""

from __future__ import annotations

import subprocess
import sys

#: Imports what the package may import, then takes away what Windows lacks, then imports the package.
CODE = """
import asyncio, importlib, pkgutil, sys
import docker, pytest, sqlalchemy.ext.asyncio, testcontainers.core.container
import os, select, signal, socket

import pytest_asyncdb
names = ["pytest_asyncdb"]
names += [m.name for m in pkgutil.walk_packages(pytest_asyncdb.__path__, "pytest_asyncdb.")]
for name in [name for name in sys.modules if name.partition(".")[0] == "pytest_asyncdb"]:
    del sys.modules[name]

LACKING = {
    signal: "SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGQUIT SIGUSR1 SIGUSR2 pidfd_send_signal",
    socket: "AF_UNIX",
    select: "epoll poll",
    os: "chown fork geteuid getegid getuid getgid killpg register_at_fork setsid statvfs",
}
for module, words in LACKING.items():
    for word in words.split():
        delattr(module, word)
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for name in names:
    importlib.import_module(name)
print(len(names), "ok")
"""


def test_every_module_can_be_imported_without_what_windows_lacks() -> None:
    """A run on SQLite works there; what starts a server says that it needs Linux or macOS."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    number, word = done.stdout.split()
    assert word == "ok"
    assert int(number) > 60
