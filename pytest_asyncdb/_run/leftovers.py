"""Removing what dead runs have left: by the next run, and by ``python -m pytest_asyncdb reap``.

What is left is found in ``traces.py`` and, on servers by URL, in ``run_lock.py``.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_asyncdb import errors
from pytest_asyncdb._config.hosts import check_host
from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._run.runs import forget_dead
from pytest_asyncdb.abc import BackendSpec, Server, Sourced

if TYPE_CHECKING:
    from pytest_asyncdb._databases.kept_databases import Record

#: Seconds for a server to drop a database.
_PATIENCE = 30.0
_DONE = {True: "removed", False: "could not be removed"}


def reap_in_thread() -> threading.Thread:
    """Remove what dead runs have left on this machine, without waiting for it."""
    thread = threading.Thread(target=_reap_quietly, name="asyncdb-reap", daemon=True)
    thread.start()
    return thread


def _reap_quietly() -> None:
    from pytest_asyncdb._run.traces import traces

    # Nobody asked for it, and the next run tries again.
    with contextlib.suppress(Exception):
        forget_dead()
        for trace in traces():
            if trace.abandoned:
                trace.remove()


def reap(urls: Sequence[str], allowed: str, dry: bool, say: Callable[[str], None]) -> bool:
    """Remove what dead runs have left on this machine and on servers.

    Args:
        urls: Servers to look at besides those of ``ASYNCDB_*_URL``.
        allowed: Hosts that are for tests though they do not look so, with commas.
        dry: Only say what would be done, and what is in use.
        say: Takes a line for each thing.

    Returns:
        Whether all that should be removed has been, or could be.

    Raises:
        AsyncdbError: A URL is wrong or leads to what may be somebody's real server, or its server
            does not answer.
    """
    registry = Registry()
    targets = [*_from_environment(registry), *(_target(registry, url) for url in urls)]
    for _, url in targets:
        check_host(url, allowed, os.environ, "--allow-hosts")
    from pytest_asyncdb._run.traces import traces

    if not dry:
        forget_dead()
    staying, found, complete = _end_unused(dry, say)
    for trace in traces():
        if trace.name in staying:
            continue
        if not trace.abandoned:
            if dry:
                say(f"in use: {trace}, {trace.owner or 'of an unknown owner'}")
            continue
        found = True
        removed = dry or trace.remove()
        complete = complete and removed
        done = "would be removed" if dry else _DONE[removed]
        say(f"{done}: {trace}, {trace.owner or 'of an unknown owner'}")
    some, gone = _remove_kept(registry, dry, say)
    found, complete = found or some, complete and gone
    for spec, url in targets:
        for name in _reap_server(registry, spec, url, dry):
            found = True
            say(f"{'would be removed' if dry else 'removed'}: database {name} ({url.source})")
    if not found:
        say("nothing to remove")
    return complete


def _end_unused(dry: bool, say: Callable[[str], None]) -> tuple[set[str], bool, bool]:
    """End this user's servers that stay for later runs, if no run uses them.

    Returns:
        The names of the folders of those that were there; was one of them not in use, and are
        these gone?
    """
    from pytest_asyncdb.servers.reusable import end_unused, records

    told: set[str] = set()
    found, complete = False, True
    for path, record in records():
        if record.owner.alive():  # else what is left of it has to be removed
            told.add(Path(record.folder).name)
        ended = end_unused(path, record, dry)
        what = f"{record.owner.what}, process {record.owner.pid} in {record.folder}"
        if ended is None:
            say(f"in use: {what}")
            continue
        found, complete = True, complete and ended
        say(f"{'would be removed' if dry else _DONE[ended]}: {what}")
    return told, found, complete


def _remove_kept(registry: Registry, dry: bool, say: Callable[[str], None]) -> tuple[bool, bool]:
    """Remove this user's databases of failed tests that were kept, if their runs have ended.

    Returns:
        Was there one, and are they gone?
    """
    from pytest_asyncdb._databases import kept_databases

    found, complete = False, True
    for record in kept_databases.records():
        what = f"database {record.name} of {record.test}"
        if record.running:
            if dry:
                say(f"in use: {what}")
            continue
        found = True
        if dry:
            say(f"would be removed: {what}")
            continue
        try:
            if record.server.maintenance is not None and not _has_ended(record.server):
                _drop_kept(registry, record)
        except Exception as error:
            complete = False
            reason = str(error).partition("\n")[0]
            say(f"could not be removed: {what}: {type(error).__name__}: {reason}")
        else:
            record.forget()
            say(f"removed: {what}")
    return found, complete


def _has_ended(server: Server) -> bool:
    """Is it one of ours that does not stay any more, and its databases with it?"""
    from pytest_asyncdb.servers.reusable import records

    address = (server.host, server.port)
    there = [r for _, r in records() if r.owner.alive()]
    return server.managed and all((r.server.host, r.server.port) != address for r in there)


def _drop_kept(registry: Registry, record: Record) -> None:
    import asyncio

    from pytest_asyncdb._databases.connection import AutocommitConnection
    from pytest_asyncdb._databases.provisioner import drop

    server = record.server
    backend = registry.backend(server.backend)
    driver = registry.driver(BackendSpec(server.backend, record.driver), None)

    async def dropping() -> None:
        async with (
            asyncio.timeout(_PATIENCE),
            AutocommitConnection(backend.url(server, driver.name, None), driver) as sql,
        ):
            await drop(sql, backend, server, record.name)

    asyncio.run(dropping())


def _from_environment(registry: Registry) -> list[tuple[BackendSpec, Sourced[str]]]:
    found = []
    for name in registry.backends:
        variable = f"ASYNCDB_{name.upper()}_URL"
        if url := os.environ.get(variable):
            found.append((BackendSpec(name, source=variable), Sourced(url, variable)))
    return found


def _target(registry: Registry, url: str) -> tuple[BackendSpec, Sourced[str]]:
    scheme = url.partition("://")[0].partition("+")[0]
    for name in registry.backends:
        if scheme in (name, *registry.backend(name).schemes):
            return BackendSpec(name, source="command line"), Sourced(url, "command line")
    raise errors.ConfigError(
        "this is not the URL of a database server (command line)",
        ["The value is not shown, as it may hold a password."],
        ["write it as postgresql+asyncpg://user:password@host/postgres"],
    )


def _reap_server(registry: Registry, spec: BackendSpec, url: Sourced[str], dry: bool) -> list[str]:
    import asyncio

    backend = registry.backend(spec.backend)
    driver = registry.driver(spec, url.value.partition("://")[0].partition("+")[2] or None)
    provider = registry.provider("url")
    found = provider.find(spec, backend, url)
    with provider.obtain(found, spec, backend, driver, lambda line: None) as server:
        return asyncio.run(_drop_dead(server, registry, spec, url, dry))


async def _drop_dead(
    server: Server, registry: Registry, spec: BackendSpec, url: Sourced[str], dry: bool
) -> list[str]:
    from pytest_asyncdb._databases.connection import AutocommitConnection
    from pytest_asyncdb._databases.provisioner import drop
    from pytest_asyncdb._run.run_lock import dead_databases

    backend = registry.backend(spec.backend)
    driver = registry.driver(spec, url.value.partition("://")[0].partition("+")[2] or None)
    names = []
    async with AutocommitConnection(backend.url(server, driver.name, None), driver) as sql:
        async for name in dead_databases(sql, backend):
            if not dry:
                await drop(sql, backend, server, name)
            names.append(name)
    return names
