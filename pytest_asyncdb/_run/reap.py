"""``python -m pytest_asyncdb reap``: what it removes, here and on servers by URL."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from pytest_asyncdb import errors
from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._config.urls import check_host
from pytest_asyncdb._databases import kept_databases
from pytest_asyncdb._databases.connection import AutocommitConnection
from pytest_asyncdb._databases.provisioner import drop
from pytest_asyncdb._run.leftovers import Leftover, containers, server_folders
from pytest_asyncdb._run.run_lock import dead_databases
from pytest_asyncdb.abc import BackendSpec, Server, Sourced
from pytest_asyncdb.servers import reusable

#: Seconds for a server to drop a database.
_PATIENCE = 30.0


def reap(
    urls: Sequence[str], allowed: str, dry_run: bool, write_line: Callable[[str], None]
) -> bool:
    """Remove what killed runs have left on this machine and on servers.

    Args:
        urls: Servers to look at in addition to those of ``ASYNCDB_*_URL``.
        allowed: Hosts that are for tests although they do not look so, separated by commas.
        dry_run: Only report what would be removed, and what is in use.
        write_line: Called with one line for each thing.

    Returns:
        Whether everything that should be removed was removed.

    Raises:
        AsyncdbError: A URL is wrong or leads to a server that may not be for tests, or its server
            does not answer.
    """
    registry = Registry()
    targets = list(_targets(registry, urls))
    for _, url in targets:
        check_host(url, allowed, os.environ, "--allow-hosts")
    found, complete = False, True
    for one in chain(_on_this_machine(), _kept_databases(registry)):
        done, reason = "would be removed", ""
        if one.in_use:
            done = "in use"
        elif not dry_run:
            try:
                removed = one.remove()
            except Exception as error:
                first_line = str(error).partition("\n")[0]
                removed, reason = False, f": {type(error).__name__}: {first_line}"
            done = "removed" if removed else "could not be removed"
            complete = complete and removed
        if dry_run or not one.in_use:
            write_line(f"{done}: {one.text}{reason}")
        found = found or not one.in_use
    for name, url in targets:
        for database in _dropped(registry, name, url, dry_run):
            found = True
            done = "would be removed" if dry_run else "removed"
            write_line(f"{done}: database {database} ({url.source})")
    if not found:
        write_line("nothing to remove")
    return complete


def _on_this_machine() -> Iterator[Leftover]:
    """Servers that are kept for later runs; then what killed runs have left."""
    kept = set()
    for record in reusable.records():
        name = Path(record.place).name
        if record.running():  # otherwise the rest of it is a leftover
            kept.add(name)
        in_use = record.end_unused(dry_run=True) is None
        yield Leftover(name, str(record), in_use, partial(_end, record))
    for leftover in chain(server_folders(), containers()):
        if leftover.name not in kept:
            yield leftover


def _end(record: reusable.Record) -> bool:
    return bool(record.end_unused())


def _kept_databases(registry: Registry) -> Iterator[Leftover]:
    """This user's databases of failed tests that were kept."""
    for record in kept_databases.records():
        text = f"database {record.name} of {record.test}"
        yield Leftover("", text, record.running, partial(_remove_kept, registry, record))


def _remove_kept(registry: Registry, record: kept_databases.Record) -> bool:
    server = record.server
    address = (server.host, server.port)
    running = {(one.server.host, one.server.port) for one in reusable.records() if one.running()}
    # A server of the plugin that was ended has taken its databases with it.
    if server.maintenance is not None and not (server.managed and address not in running):
        backend = registry.backend(server.backend)
        driver = registry.driver(BackendSpec(server.backend, record.driver))

        async def dropping() -> None:
            url = backend.url(server, driver.name, None)
            async with asyncio.timeout(_PATIENCE), AutocommitConnection(url, driver) as sql:
                await drop(sql, backend, server, record.name)

        asyncio.run(dropping())
    record.forget()
    return True


def _targets(registry: Registry, urls: Sequence[str]) -> Iterator[tuple[str, Sourced[str]]]:
    """The servers to look at, each with the name of its backend."""
    for name in registry.backends:
        variable = f"ASYNCDB_{name.upper()}_URL"
        if url := os.environ.get(variable):
            yield name, Sourced(url, variable)
    for url in urls:
        scheme = url.partition("://")[0].partition("+")[0]
        for name in registry.backends:
            if scheme in (name, *registry.backend(name).schemes):
                yield name, Sourced(url, "command line")
                break
        else:
            raise errors.ConfigError(
                "this is not the URL of a database server (command line)",
                ["The value is not shown, as it may hold a password."],
                ["write it as postgresql+asyncpg://user:password@host/postgres"],
            )


def _dropped(registry: Registry, name: str, url: Sourced[str], dry_run: bool) -> list[str]:
    """Drop the databases of dead runs on a server; their names.

    Args:
        name: The backend's.
    """
    driver_name = url.value.partition("://")[0].partition("+")[2] or None
    spec = BackendSpec(name, driver_name, source=url.source)
    backend, driver = registry.backend(name), registry.driver(spec)
    provider = registry.provider("url")

    async def dropping(server: Server) -> list[str]:
        names = []
        async with AutocommitConnection(backend.url(server, driver.name, None), driver) as sql:
            async for database in dead_databases(sql, backend):
                if not dry_run:
                    await drop(sql, backend, server, database)
                names.append(database)
        return names

    found = provider.find(spec, backend, url)
    with provider.obtain(found, spec, backend, driver, lambda line: None) as server:
        return asyncio.run(dropping(server))
