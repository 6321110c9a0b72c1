"""A server by URL that cannot be reached any more, and a disk that is full.

The network is taken away in the middle of a run: the way to the server is a proxy of the test's.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
import selectors
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fix_chaos import TESTS_OF_MANY, Chaos, Run, at_moments, moments
from fix_servers import Servers, Target
from sqlalchemy.engine import URL

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._databases.connection import AutocommitConnection
from pytest_asyncdb._run import run_lock
from pytest_asyncdb._run.runs import new_id, prefix_of
from pytest_asyncdb.abc import Backend, BackendSpec, Driver, Server
from pytest_asyncdb.errors import AsyncdbError

pytestmark = pytest.mark.usefixtures("untouched")


class Proxy:
    """A way to a server that can be taken away.

    Args:
        most: So many connections come through; further ones are a hole. None: all do.
    """

    def __init__(self, host: str, port: int, most: int | None = None) -> None:
        self._to = (host, port)
        self._left = most
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._wake, self._awake = socket.socketpair()
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._selector.register(self._awake, selectors.EVENT_READ, None)
        self._command = ""
        self._obeyed = threading.Event()
        self._sockets: list[socket.socket] = []
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def tell(self, command: str) -> None:
        """``close``: nobody listens any more. ``hole``: what is sent comes to nothing."""
        self._command = command
        self._obeyed.clear()
        self._wake.send(b"x")
        self._obeyed.wait(30)

    @property
    def used(self) -> bool:
        """Has anybody gone this way?"""
        return bool(self._sockets)

    def _work(self) -> None:
        silent = False
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._awake:
                    self._awake.recv(1)
                    if self._command in ("close", "end"):
                        for one in [self._listener, *self._sockets]:
                            with contextlib.suppress(KeyError, ValueError):
                                self._selector.unregister(one)
                            one.close()
                    if self._command == "end":
                        self._obeyed.set()
                        return
                    silent = self._command == "hole"
                    self._obeyed.set()
                    break  # the other keys may be of sockets that are closed now
                if key.fileobj is self._listener:
                    one, _ = self._listener.accept()
                    self._sockets.append(one)
                    if self._left is not None:
                        silent = silent or self._left == 0
                        self._left -= 1
                    if not silent:
                        other = socket.create_connection(self._to)
                        self._sockets.append(other)
                        self._selector.register(one, selectors.EVENT_READ, other)
                        self._selector.register(other, selectors.EVENT_READ, one)
                else:
                    self._pass_on(key.fileobj, key.data, silent)

    def _pass_on(self, source: socket.socket, to: socket.socket, silent: bool) -> None:
        try:
            data = source.recv(65536)
            if data and not silent:
                to.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(source)
            with contextlib.suppress(OSError):
                if not silent:
                    to.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.tell("end")
        self._thread.join()
        self._wake.close()
        self._awake.close()
        self._selector.close()


#: Each seed takes the next one, and then the other number of workers.
WORDS = ("postgres+asyncpg", "mariadb+asyncmy", "postgres+psycopg")


@pytest.fixture
def target(seed: int, servers: Servers) -> Target:
    return servers.target(WORDS[seed % len(WORDS)])


def way_to(target: Target, most: int | None = None) -> contextlib.closing[Proxy]:
    assert target.server is not None
    return contextlib.closing(Proxy(target.server.host or "", target.server.port or 0, most))


@pytest.fixture
def proxy(target: Target) -> Iterator[Proxy]:
    with way_to(target) as made:
        yield made


def through(proxy: Proxy, target: Target) -> list[str]:
    assert isinstance(target.server, URL)
    url = target.server.set(host="127.0.0.1", port=proxy.port)
    return [f"--asyncdb={target.word}", f"--asyncdb-url={url.render_as_string(False)}"]


@pytest.mark.complete
@at_moments
def test_the_network_is_taken_away(chaos: Chaos, target: Target, proxy: Proxy, seed: int) -> None:
    """The run ends in time, says that the server is gone, and the next run removes the rest."""
    workers = 2 * (seed // len(WORDS) % 2)

    def act(run: Run) -> bool:
        if not proxy.used:
            return False
        proxy.tell("close")
        return True

    at = moments(seed, f"close {target.word} {workers}", start=2.5)
    run, begun = chaos.strike(at, act, *through(proxy, target), f"-n{workers}")
    code = run.end()
    assert code == 1 or (code == 0 and begun >= TESTS_OF_MANY - 2), run.text
    run.says_that_the_server_is_gone(target.backend, "url", begun=begun)
    proxy.tell("close")
    run.lets_go_of(target)
    chaos.next(*target.arguments)
    run.leaves_nothing(target)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.complete) for n in range(1, len(WORDS)))]
)
def test_the_network_is_taken_away_when_the_server_has_answered_once(
    chaos: Chaos, target: Target
) -> None:
    """It was found: now it is asked for the run's lock, and how many connections are free."""
    with way_to(target, most=1) as way:
        run = chaos.start(*through(way, target), "-p", "short_answers", "-x")
        assert run.end() == 1, run.text
        run.says_that_the_server_is_gone(target.backend, "url", begun=0)
        run.leaves_nothing(target)


def through_proxy(target: Target, servers: Servers, proxy: Proxy) -> tuple[Backend, Driver, Server]:
    """For code of the plugin that this process runs."""
    registry = Registry()
    server = dataclasses.replace(servers.server(target.backend), host="127.0.0.1", port=proxy.port)
    driver = registry.driver(BackendSpec(target.backend, target.driver), None)
    return registry.backend(target.backend), driver, server


def ends_in_time(lease: run_lock.Lease) -> None:
    """It says what it could not drop."""
    begun = time.monotonic()
    with pytest.raises(AsyncdbError, match="databases of this run are still on"):
        lease.close()
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("seed", range(len(WORDS)), ids=WORDS)
def test_a_silent_server_does_not_keep_the_end_of_a_run(
    target: Target, servers: Servers, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection that holds the run's lock ends with the run, whatever the network does."""
    monkeypatch.setattr(run_lock, "_ANSWER", 0.2)
    backend, driver, server = through_proxy(target, servers, proxy)
    lease = run_lock.Lease(new_id(), server, backend, driver)
    lease.take()
    proxy.tell("hole")
    ends_in_time(lease)


@pytest.mark.complete
@pytest.mark.parametrize("seed", range(len(WORDS)), ids=WORDS)
def test_a_server_that_falls_silent_at_last_does_not_keep_the_end_of_a_run(
    target: Target, servers: Servers, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the run's databases are dropped."""
    monkeypatch.setattr(run_lock, "_END", 0.5)
    backend, driver, server = through_proxy(target, servers, proxy)
    drop = run_lock.drop_leftovers

    async def fall_silent(*arguments: Any) -> None:
        proxy.tell("hole")
        await drop(*arguments)

    monkeypatch.setattr(run_lock, "drop_leftovers", fall_silent)
    lease = run_lock.Lease(new_id(), server, backend, driver)
    lease.take()
    ends_in_time(lease)


@pytest.mark.complete
@pytest.mark.parametrize("seed", range(len(WORDS)), ids=WORDS)
def test_a_server_that_falls_silent_early_does_not_keep_the_end_of_a_run(
    target: Target, servers: Servers, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is asked whether a dead run has databases."""
    monkeypatch.setattr(run_lock, "_ANSWER", 0.2)
    backend, driver, server = through_proxy(target, servers, proxy)
    listed = f"SELECT '{prefix_of(new_id())}main_1'"
    monkeypatch.setattr(backend, "list_databases", lambda: listed)
    hold_lock, own, silent = backend.hold_lock, new_id(), threading.Event()

    def fall_silent(run: str) -> str | None:
        if run != own:
            proxy.tell("hole")
            silent.set()
        return hold_lock(run)

    monkeypatch.setattr(backend, "hold_lock", fall_silent)
    lease = run_lock.Lease(own, server, backend, driver)
    lease.take()
    assert silent.wait(30)
    ends_in_time(lease)


@pytest.mark.complete
@pytest.mark.parametrize("seed", range(len(WORDS)), ids=WORDS)
def test_a_silent_server_does_not_keep_the_lock_of_a_dead_run(
    target: Target, servers: Servers, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a run may cancel the dropping of dead runs' databases at any moment."""
    monkeypatch.setattr(run_lock, "_ANSWER", 0.2)
    backend, driver, server = through_proxy(target, servers, proxy)
    listed = f"SELECT '{prefix_of(new_id())}main_1'"
    monkeypatch.setattr(backend, "list_databases", lambda: listed)  # those of other tests stay

    async def cancel() -> None:
        url = backend.url(server, driver.name, None)
        async with AutocommitConnection(url, driver) as sql:
            names = run_lock.dead_databases(sql, backend)
            assert await anext(names)
            proxy.tell("hole")
            with contextlib.suppress(TimeoutError):
                await names.aclose()

    begun = time.monotonic()
    asyncio.run(asyncio.wait_for(cancel(), 40))
    assert time.monotonic() - begun < 30


SEED = """
import pathlib

import pytest
from sqlalchemy import text


@pytest.fixture(scope="session")
def asyncdb_seed():
    async def seed(session):
        pathlib.Path("seeding").touch()
        while True:
            await session.execute(text("SELECT 1"))

    return seed
"""


@pytest.mark.complete
@pytest.mark.parametrize("seed", [0, 1])
def test_the_network_is_taken_away_while_one_worker_builds_for_all(
    chaos: Chaos, target: Target, proxy: Proxy
) -> None:
    """The others say, too, that the server is gone, and not only what the builder has met with."""
    chaos.project.write("conftest.py", SEED)
    run = chaos.start(*through(proxy, target), "-n2")
    while not (chaos.project.path / "seeding").exists():
        assert run.at(run.age + 0.005), run.text
    proxy.tell("close")
    assert run.end() == 1, run.text
    run.says_that_the_server_is_gone(target.backend, "url", begun=TESTS_OF_MANY)
    (chaos.project.path / "conftest.py").unlink()
    run.lets_go_of(target)
    chaos.next(*target.arguments)
    run.leaves_nothing(target)


FULL = """
    import os

    @pytest.mark.parametrize("n", range(5))
    async def test_each(n, asyncdb_session):
        await asyncdb_session.execute(text("CREATE TABLE much (t TEXT)"))
        for _ in range(100 if n == 2 else 1):
            more = {"more": os.urandom(1_000_000).hex()[:60_000]}
            for _ in range(30):
                await asyncdb_session.execute(text("INSERT INTO much VALUES (:more)"), more)
        await asyncdb_session.commit()
"""


@pytest.mark.complete
@pytest.mark.parametrize("backend", ["postgres", "mariadb"])
@pytest.mark.parametrize("size", ["20M", "160M"])
def test_the_disk_of_the_data_folder_is_full(
    chaos: Chaos, servers: Servers, backend: str, size: str
) -> None:
    """While the folder is filled, or by a test: an error, and nothing is left."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root can mount a small file system")
    servers.need(backend, "local")
    chaos.project.tests(FULL, name="test_many.py")
    # In a mount namespace of its own, so that nobody else's disk is full.
    script = (
        f"mount -t tmpfs -o size={size} small /dev/shm; export TMPDIR=/dev/shm; "
        '"$@"; code=$?; ls -A /dev/shm | sed "s/^/left in the folder: /"; exit $code'
    )
    run = Run(
        chaos.project,
        *("test_many.py", f"--asyncdb={backend}", "--asyncdb-server=local"),
        "--asyncdb-isolation=reset",
        wrap=("unshare", "--mount", "--fork", "sh", "-c", script, "sh"),
    )
    assert run.end() == 1, run.text
    assert re.search(FULL_DISK, " ".join(run.text.split())), run.text
    assert "left in the folder" not in run.text, run.text
    run.leaves_nothing()


#: What the servers say of it, or what we say of a server that has ended for it.
FULL_DISK = (
    "No space left on device|The table 'much' is full|Cannot set log file|is full|"
    "the (PostgreSQL|MariaDB) server (is gone|of provider \\w+ did not start)"
)


#: Full from the start, and full while something is kept: there is space, but not for many files.
FULL_CACHE = {"full": "size=1M", "half way": "size=2G,nr_inodes=60"}


@pytest.mark.complete
@pytest.mark.parametrize(
    ("word", "how"),
    [
        ("mariadb-local", "full"),
        ("postgres-local", "half way"),
        ("mariadb-local", "half way"),
        ("postgres-url", "full"),
    ],
)
def test_the_disk_of_the_cache_is_full(chaos: Chaos, servers: Servers, word: str, how: str) -> None:
    """The run passes without the cache and leaves nothing half there; with room again it is used."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root can mount a small file system")
    backend, _, provider = word.partition("-")
    if provider == "url":
        arguments = servers.target("postgres+asyncpg").arguments
    else:
        servers.need(backend, provider)
        arguments = [f"--asyncdb={backend}", f"--asyncdb-server={provider}"]
    look = 'find "$XDG_CACHE_HOME" -type f ! -name filling -o -type d -path "*/data/*" | sed "s/^/'
    script = (
        'export XDG_CACHE_HOME="$PWD/cache"; mkdir cache; '
        f"mount -t tmpfs -o {FULL_CACHE[how]} small cache; "
        + ("cat /dev/zero > cache/filling 2> /dev/null; " if how == "full" else "")
        + f'"$@"; first=$?; {look}after the first: /"; rm -f cache/filling; '
        f'mount -o remount,size=2G,nr_inodes=0 cache; "$@"; second=$?; {look}after the second: /"; '
        'echo "codes: $first $second"'
    )
    wrap = ("unshare", "--mount", "--fork", "sh", "-c", script, "sh")
    run = Run(chaos.project, "test_one.py", *arguments, wrap=wrap)
    assert run.end() == 0, run.text
    assert run.text.endswith("codes: 0 0\n"), run.text
    assert run.text.count("1 passed") == 2
    assert "after the first: " not in run.text, run.text
    kept = re.findall(r"after the second: \S+/data/([\w-]+)/entry\.json$", run.text, re.MULTILINE)
    assert len(kept) == (provider == "local"), run.text
    run.leaves_nothing()
