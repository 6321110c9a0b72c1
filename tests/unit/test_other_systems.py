"""What other systems' Python lacks is looked up where it is used, not where modules are imported."""

from __future__ import annotations

import os
import subprocess
import sys

from fix_project import INNER

#: Imports what the package may import, then takes away what Windows lacks, then imports the package.
CODE = """
import importlib, pkgutil, sys
import docker, sqlalchemy.ext.asyncio, testcontainers.core.container
from like_windows import take_away

import pytest_asyncdb
names = ["pytest_asyncdb"]
names += [m.name for m in pkgutil.walk_packages(pytest_asyncdb.__path__, "pytest_asyncdb.")]
for name in [name for name in sys.modules if name.partition(".")[0] == "pytest_asyncdb"]:
    del sys.modules[name]

take_away()
for name in names:
    importlib.import_module(name)
print(len(names), "ok")
"""


def test_every_module_can_be_imported_without_what_windows_lacks() -> None:
    """Also those that start servers; ``tests/plugin/test_windows.py`` runs tests."""
    environment = os.environ | {"PYTHONPATH": str(INNER)}
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.returncode == 0, done.stderr
    number, word = done.stdout.split()
    assert word == "ok"
    assert int(number) > 60
