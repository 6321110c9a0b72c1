"""PgBouncer in front of the suite's PostgreSQL server, as an ordinary user on a free port.

Debian's package has it. Where it is not on ``PATH``, the tests are skipped, or fail if
``ASYNCDB_TEST_REQUIRE`` names ``pgbouncer``.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fix_servers import Servers, Target

_INI = """
[databases]
{name} = host={host} port={port} pool_size={size}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = users
pool_mode = {mode}
log_connections = 0
log_disconnections = 0
log_pooler_errors = 0
log_stats = 0
"""


class Pooler:
    """Starts PgBouncer."""

    def __init__(self, program: str, servers: Servers) -> None:
        self._program = program
        self._servers = servers

    @contextmanager
    def target(
        self, word: str, name: str = "*", mode: str = "transaction", size: int = 20
    ) -> Iterator[Target]:
        """A target whose URL leads through PgBouncer, and whose observer looks past it.

        Args:
            name: The database that it leads to; ``*``: each.
            mode: Its ``pool_mode``.
            size: Its ``pool_size``.
        """
        direct = self._servers.target(word)
        url = direct.server
        assert url is not None
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            own = one.getsockname()[1]
        with tempfile.TemporaryDirectory(prefix="asyncdb-pooler-") as folder:
            files = {
                "users": f'"{url.username}" "{url.password}"\n',
                "ini": _INI.format(
                    name=name, host=url.host, port=url.port, size=size, own=own, mode=mode
                ),
            }
            for file, text in files.items():
                Path(folder, file).write_text(text, encoding="utf-8")
            user = None
            if os.geteuid() == 0:  # it refuses to run as root
                user = "nobody"
                for path in (folder, *(f"{folder}/{file}" for file in files)):
                    shutil.chown(path, user)
            with subprocess.Popen(
                [self._program, "ini"],
                cwd=folder,
                user=user,
                extra_groups=None if user is None else [],
                stderr=subprocess.PIPE,
                text=True,
            ) as process:
                try:
                    assert process.stderr is not None
                    said = []
                    for line in process.stderr:
                        said.append(line)
                        if "process up" in line:
                            break
                    else:
                        pytest.fail("PgBouncer did not start: " + "".join(said), pytrace=False)
                    through = url.set(host="127.0.0.1", port=own)
                    yield dataclasses.replace(direct, server=through)
                finally:
                    process.kill()


@pytest.fixture(scope="session")
def pooler(servers: Servers) -> Pooler:
    """PgBouncer. Scope: session."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        said = "no pgbouncer on PATH"
        if "pgbouncer" in os.environ.get("ASYNCDB_TEST_REQUIRE", ""):
            pytest.fail(f"ASYNCDB_TEST_REQUIRE names pgbouncer: {said}", pytrace=False)
        pytest.skip(said)
    return Pooler(program, servers)
