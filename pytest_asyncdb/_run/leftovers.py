"""Removes what outlives a run on this machine: kept servers, and what killed runs have left.

In the background, every run removes what no run uses (:func:`remove_unused`). The command ``reap``
also ends kept servers and drops kept databases. On servers at a URL it drops the databases of dead
runs. It prints what it does.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._config.urls import check_host, parse_url
from pytest_asyncdb._databases import kept_databases
from pytest_asyncdb._databases.connection import maintenance
from pytest_asyncdb._databases.provisioner import drop, try_drop
from pytest_asyncdb._engines import selector_loop
from pytest_asyncdb._record.text import in_short
from pytest_asyncdb._run.run_lock import dead_databases
from pytest_asyncdb.abc import Server, Show
from pytest_asyncdb.servers import docker_api, server_folders
from pytest_asyncdb.servers.reusable import records
from pytest_asyncdb.values import BackendSpec, Sourced

#: Seconds that a server may take to drop a database.
_DROP = 30.0


class Leftover(NamedTuple):
    """Something that outlives its run.

    Args:
        text: What it is and to whom it belongs, for a message.
        in_use: True if a run uses it.
        remove: Removes it and ends what runs in it. Blocks. Returns False if it is still there.
    """

    text: str
    in_use: bool
    remove: Callable[[], bool | None]


def remove_unused() -> None:
    """Remove what no run uses, and kept servers an hour after their last use. Blocks.

    This does not remove containers of killed runs, because that needs an import of the package
    ``docker``. The next run that starts a container removes them.
    """
    for record in records():
        if record.is_idle():
            record.end_unused()
    server_folders.remove_dead_folders()


def _on_this_machine() -> Iterator[Leftover]:
    """Yield everything that outlives its run, including what is in use.

    If machines share a Docker engine, containers of the other machines are included; they count as
    in use.
    """
    kept = set()
    for record in records():
        kept.add(Path(record.place).name)
        in_use = record.end_unused(dry_run=True) is None
        yield Leftover(str(record), in_use, record.end_unused)
    for folder, owner in server_folders.find():
        if folder.name not in kept:
            text, in_use = f"folder {folder}, {owner}", owner.holds(folder.name)
            yield Leftover(text, in_use, partial(server_folders.remove_folder, folder))
    if docker_api.ping(docker_api.engine_address()) is None:
        for one, owner in docker_api.labelled():
            if one.name not in kept:
                text = f"container {one.name} ({one.attrs['Config']['Image']}), {owner}"
                in_use = owner.holds(one.name)
                yield Leftover(text, in_use, partial(docker_api.remove, one))


def reap(urls: Sequence[str], allowed: str, dry_run: bool, write_line: Show) -> bool:
    """Remove what killed runs have left on this machine and on servers.

    Args:
        urls: Servers to look at in addition to those of ``ASYNCDB_*_URL``.
        allowed: Hosts that are for tests although they do not look like it, separated by commas.
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
        check_host(url, allowed, "--allow-hosts")
    found, complete = False, True
    for one in chain(_on_this_machine(), _kept_databases(registry)):
        done, reason = "would be removed", ""
        if one.in_use:
            done = "in use"
        elif not dry_run:
            try:
                removed = bool(one.remove())
            except Exception as error:
                removed, reason = False, f": {in_short(error)}"
            done = "removed" if removed else "could not be removed"
            complete = complete and removed
        if dry_run or not one.in_use:
            write_line(f"{done}: {one.text}{reason}")
        found = found or not one.in_use
    for name, url in targets:
        for database, reason in _dropped(registry, name, url, dry_run):
            found, complete = True, complete and not reason
            done = "would be " if dry_run else "could not be " * bool(reason)
            write_line(f"{done}removed: database {database} ({url.source}){reason}")
    if not found:
        write_line("nothing to remove")
    return complete


def _kept_databases(registry: Registry) -> Iterator[Leftover]:
    """Yield this user's databases of failed tests that were kept."""
    for record in kept_databases.records():
        text = f"database {record.name} of {record.test}"
        yield Leftover(text, record.owner.alive(), partial(_remove_kept, registry, record))


def _remove_kept(registry: Registry, record: kept_databases.Record) -> bool:
    server = record.server
    address = (server.host, server.port)
    running = {(one.server.host, one.server.port) for one in records() if one.running()}
    # If a server of the plugin has ended, its databases are gone, too.
    if server.maintenance is not None and not (server.managed and address not in running):
        backend = registry.backend(server.backend)
        driver = registry.driver(BackendSpec(server.backend, record.driver))

        async def dropping() -> None:
            async with asyncio.timeout(_DROP), maintenance(server, backend, driver) as sql:
                await drop(sql, backend, server, record.name)

        selector_loop.run(dropping())
    record.forget()
    return True


def _targets(registry: Registry, urls: Sequence[str]) -> Iterator[tuple[str, Sourced[str]]]:
    """Yield the servers to look at, each with the name of its backend."""
    named = [(os.environ.get(f"ASYNCDB_{name.upper()}_URL"), name) for name in registry.backends]
    for url, name in [*named, *((url, "") for url in urls)]:
        if url:
            source = f"ASYNCDB_{name.upper()}_URL" if name else "command line"
            key, found = parse_url(url, source, name, registry)
            yield key.partition("@")[0], found


def _dropped(
    registry: Registry, name: str, url: Sourced[str], dry_run: bool
) -> list[tuple[str, str]]:
    """Drop the databases of dead runs on a server.

    Args:
        name: The name of the backend.

    Returns:
        The name of each database, and the result of :func:`try_drop`.
    """
    driver_name = url.value.partition("://")[0].partition("+")[2] or None
    spec = BackendSpec(name, driver_name, source=url.source)
    backend, driver = registry.backend(name), registry.driver(spec)
    provider = registry.provider("url")

    async def dropping(server: Server) -> list[tuple[str, str]]:
        dropped = []
        async with maintenance(server, backend, driver) as sql:
            async for database in dead_databases(sql, backend, bool(server.behind_pooler)):
                reason = "" if dry_run else await try_drop(sql, backend, server, database)
                dropped.append((database, reason))
        return dropped

    found = provider.find(spec, backend, url)
    with provider.obtain(found, spec, backend, driver, lambda line: None) as server:
        return selector_loop.run(dropping(server))
