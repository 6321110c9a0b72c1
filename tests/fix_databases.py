"""A worker's database for tests that use the classes of the plugin without an inner run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from fix_servers import Servers, Target

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._databases.plan import SchemaPlan
from pytest_asyncdb._databases.provisioner import Provisioner, drop_leftovers
from pytest_asyncdb._databases.worker_databases import WorkerDatabase
from pytest_asyncdb._engines.host_loop import HostLoop
from pytest_asyncdb.abc import BackendSpec, Server

#: Stands in the names of databases where a run id does: other processes use the server too.
RUN = f"{os.getpid():08x}"


@contextmanager
def worker_database(
    target: Target, servers: Servers, name: str, plan: SchemaPlan, one_connection: bool = False
) -> Iterator[tuple[WorkerDatabase, HostLoop]]:
    """A database on the target's server, and the loop for a strategy on it.

    Args:
        name: A part of the names of its databases.
        one_connection: As the strategy has it.
    """
    registry = Registry()
    backend = registry.backend(target.backend)
    driver = type(registry.driver(BackendSpec(target.backend, target.driver), None))()
    if target.server is None:
        server = Server("sqlite", "3", "memory", "the test suite", True)
    else:
        server = servers.server(target.backend)
    with ExitStack() as stack:
        host = HostLoop()
        stack.callback(host.close)
        prefix = f"asyncdb_{name}_{RUN}"  # others take what is named as a run's for a dead one's
        if target.server is not None:
            stack.callback(lambda: asyncio.run(drop_leftovers(server, backend, driver, prefix)))
        provisioner = Provisioner(server, backend, driver, prefix, host, None, 5)
        stack.callback(provisioner.close)
        database = WorkerDatabase(provisioner, plan, {}, one_connection)
        stack.callback(database.close)
        yield database, host
