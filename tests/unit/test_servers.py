"""Server providers without a server: what they find, what they say, what they leave."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._engines import selector_loop
from pytest_asyncdb._system.process_identity import Owner
from pytest_asyncdb.abc import BackendSpec, Sourced
from pytest_asyncdb.errors import ConfigError, ProviderUnavailable
from pytest_asyncdb.servers import readiness
from pytest_asyncdb.servers.container import ContainerProvider
from pytest_asyncdb.servers.docker_api import engine_address
from pytest_asyncdb.servers.embedded import EmbeddedProvider
from pytest_asyncdb.servers.local import LocalProvider
from pytest_asyncdb.servers.memory import MemoryProvider
from pytest_asyncdb.servers.supervised import Identity, Supervised, supervised
from pytest_asyncdb.servers.url import UrlProvider

REGISTRY = Registry()
SQLITE = REGISTRY.backend("sqlite")
POSTGRES = REGISTRY.backend("postgres")
MARIADB = REGISTRY.backend("mariadb")
OWNER = Owner.current("cafe0123", "a program")


def unavailable(provider: object, backend: object, spec: BackendSpec | None = None) -> str:
    """Why the provider cannot give the server."""
    with pytest.raises(ProviderUnavailable) as caught:
        provider.find(spec or BackendSpec("any"), backend, None)  # type: ignore[attr-defined]
    return str(caught.value)


@pytest.mark.parametrize(
    ("version", "wanted", "expected"),
    [
        ("17.11", None, True),
        ("17.11", "17", True),
        ("17.11", "17.11", True),
        ("17.11", "17.1", False),
        ("17.11", "1", False),
        ("10.11.6", "10.11", True),
    ],
)
def test_a_version_is_asked_for_by_its_beginning(
    version: str, wanted: str | None, expected: bool
) -> None:
    assert readiness.fits(version, wanted) is expected


@pytest.mark.parametrize(
    ("version", "oldest", "expected"),
    [
        ("13.23", "14", True),
        ("9.6.24", "14", True),
        ("14", "14", False),
        ("14.0", "14", False),
        ("18beta1", "14", False),
        ("10.5.27", "10.6", True),
        ("10.11.6", "10.6", False),
        ("8.0.36", "8.0", False),
        ("5.7.44", "8.0", True),
        ("3.45.1", "", False),
        ("latest", "14", False),
    ],
)
def test_a_version_is_too_old_if_its_numbers_are_lower(
    version: str, oldest: str, expected: bool
) -> None:
    """A version without numbers is believed."""
    assert readiness.too_old(version, oldest) is expected


def test_a_long_wait_gives_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_PATIENCE", 0.0)
    lines: list[str] = []
    told = threading.Event()

    def progress(line: str) -> None:
        lines.append(line)
        told.set()

    with readiness.patience(progress, "getting the image"):
        assert told.wait(10)
    assert lines == ["getting the image"]


def test_a_short_wait_gives_no_line_and_leaves_no_thread() -> None:
    before = threading.active_count()
    with readiness.patience(pytest.fail, "never"):
        pass
    assert threading.active_count() == before


def test_a_wait_ends_although_a_test_has_frozen_the_time_when_it_began() -> None:
    """Tests run while a server starts, and freezegun replaces the clock of all event loops.

    Control: on another loop the wait does not end, because it was to end in the frozen time.
    """

    async def ends(limit: float) -> bool:
        with pytest.MonkeyPatch.context() as frozen:
            frozen.setattr(time, "monotonic", lambda: 1e9)
            waits = asyncio.create_task(asyncio.sleep(0.01))
            await asyncio.sleep(0)
        done, _ = await asyncio.wait([waits], timeout=limit)
        waits.cancel()
        return waits in done

    assert selector_loop.run(ends(10))
    assert not asyncio.run(ends(0.1))


def test_sqlite_is_in_this_process() -> None:
    found = MemoryProvider().find(BackendSpec("sqlite"), SQLITE, None)
    assert (found.reason, found.version) == ("in this process", sqlite3.sqlite_version)


def test_sqlite_has_the_version_that_python_has() -> None:
    reason = unavailable(MemoryProvider(), SQLITE, BackendSpec("sqlite", version="2"))
    assert reason == f"this Python has SQLite {sqlite3.sqlite_version}"


def test_providers_say_what_they_are_not_for() -> None:
    assert unavailable(MemoryProvider(), POSTGRES) == "PostgreSQL needs a server"
    assert unavailable(LocalProvider(), SQLITE) == "SQLite has no server programs"
    assert unavailable(ContainerProvider(), SQLITE) == "SQLite has no image"
    assert unavailable(EmbeddedProvider(), MARIADB) == "there is a package with PostgreSQL only"
    assert unavailable(UrlProvider(), MARIADB) == "ASYNCDB_MARIADB_URL is not set"


def executable(path: Path, script: str) -> Path:
    """A program of our own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, readable by everyone, that is all of PATH; MariaDB's usual ones are empty."""
    recipe = MARIADB.local
    assert recipe is not None
    monkeypatch.setattr(type(MARIADB), "local", recipe._replace(folders=(f"{tmp_path}/opt/*/bin",)))
    monkeypatch.setenv("PATH", f"{tmp_path}/path")
    return tmp_path


def test_programs_that_are_nowhere(programs: Path) -> None:
    assert unavailable(LocalProvider(), MARIADB) == (
        f'no "mariadbd" on PATH or in {programs}/opt/*/bin'
    )


def test_the_highest_version_in_the_folders_is_taken(programs: Path) -> None:
    for version in ("9.6", "10.11", "10.6"):
        executable(programs / f"opt/{version}/bin/mariadbd", f"echo Ver {version}.1-MariaDB")
        executable(programs / f"opt/{version}/bin/mariadb-install-db", "")
    found = LocalProvider().find(BackendSpec("mariadb"), MARIADB, None)
    assert (found.version, found.reason) == (
        "10.11.1",
        f"programs in {programs}/opt/10.11/bin",
    )


def test_programs_on_path_come_first_unless_the_version_does_not_fit(programs: Path) -> None:
    executable(programs / "path/mariadbd", "echo Ver 10.6.1-MariaDB")
    executable(programs / "path/mariadb-install-db", "")
    executable(programs / "opt/11/bin/mariadbd", "echo Ver 11.8.1-MariaDB")
    find = LocalProvider().find
    assert find(BackendSpec("mariadb"), MARIADB, None).version == "10.6.1"
    assert find(BackendSpec("mariadb", version="11.8"), MARIADB, None).version == "11.8.1"
    assert unavailable(LocalProvider(), MARIADB, BackendSpec("mariadb", version="12")) == (
        "version 12 was asked for, found: 10.6.1, 11.8.1"
    )


def test_a_program_that_is_too_old_is_not_taken(programs: Path) -> None:
    """The next one is tried."""
    old = executable(programs / "path/mariadbd", "echo Ver 10.5.27-MariaDB")
    executable(programs / "path/mariadb-install-db", "")
    reason = f"{old} is MariaDB 10.5.27, older than 10.6"
    assert unavailable(LocalProvider(), MARIADB) == reason
    executable(programs / "opt/10.6/bin/mariadbd", "echo Ver 10.6.1-MariaDB")
    assert LocalProvider().find(BackendSpec("mariadb"), MARIADB, None).version == "10.6.1"


def test_what_is_wrong_with_each_program_is_said(programs: Path) -> None:
    stranger = executable(programs / "path/mariadbd", "echo mysqld Ver 9.7.4")
    executable(programs / "path/mariadb-install-db", "")
    broken = executable(programs / "opt/1/bin/mariadbd", "echo libaio is missing >&2; exit 1")
    assert unavailable(LocalProvider(), MARIADB) == (
        f"{stranger} is not MariaDB (mysqld Ver 9.7.4); {broken}: libaio is missing"
    )


def test_a_server_without_its_helper_is_not_taken(programs: Path) -> None:
    server = executable(programs / "path/mariadbd", "echo Ver 11.8.1-MariaDB")
    assert unavailable(LocalProvider(), MARIADB) == f'no "mariadb-install-db" beside {server}'


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Something at DOCKER_HOST that gives the answers in the list, one a connection."""
    path = str(tmp_path / "docker.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    answers: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            while True:
                connection, _ = listener.accept()
                with connection:
                    request = connection.recv(1024)
                    if not request.startswith(b"GET /"):
                        return
                    if request.startswith(b"GET /_ping HTTP/1.1\r\n"):
                        connection.sendall(answers.pop(0))
                    elif request.startswith(b"GET /images/postgres:17/json HTTP/1.1\r\n"):
                        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n{}")
                    else:
                        connection.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n{}")

        thread = threading.Thread(target=serve)
        thread.start()
        yield answers
        with socket.socket(socket.AF_UNIX) as end:
            end.connect(path)
            end.sendall(b"end")
        thread.join()


def test_an_engine_that_answers_is_taken(engine: list[bytes]) -> None:
    engine.append(b"HTTP/1.1 200 OK\r\n\r\nOK")
    found = ContainerProvider().find(BackendSpec("postgres"), POSTGRES, None)
    assert found.reason == f"Docker answers at {os.environ['DOCKER_HOST']}"
    assert found.version == "17"


def test_a_version_is_the_tag(engine: list[bytes]) -> None:
    engine.append(b"HTTP/1.1 200 OK\r\n\r\nOK")
    spec = BackendSpec("postgres", version="16-alpine")
    assert ContainerProvider().find(spec, POSTGRES, None).detail == "postgres:16-alpine"


def test_an_image_that_would_have_to_be_downloaded_is_not_at_hand(engine: list[bytes]) -> None:
    engine += [b"HTTP/1.1 200 OK\r\n\r\nOK"] * 2
    find = ContainerProvider().find
    assert find(BackendSpec("postgres"), POSTGRES, None).at_hand
    assert not find(BackendSpec("postgres", version="16"), POSTGRES, None).at_hand


def test_an_engine_in_trouble_is_not_taken(engine: list[bytes]) -> None:
    engine.append(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
    assert unavailable(ContainerProvider(), POSTGRES) == (
        f"no Docker engine answers at {os.environ['DOCKER_HOST']}: "
        "it answers 'HTTP/1.1 503 Service Unavailable'"
    )


def test_an_engine_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    assert unavailable(ContainerProvider(), POSTGRES) == (
        f"no Docker engine answers at unix://{tmp_path}/none: No such file or directory"
    )


def test_the_engine_of_dockers_context_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert engine_address() == "unix:///var/run/docker.sock"
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": "colima"}))
    meta = tmp_path / "contexts/meta" / hashlib.sha256(b"colima").hexdigest() / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Endpoints": {"docker": {"Host": "unix:///colima.sock"}}}))
    assert engine_address() == "unix:///colima.sock"


def test_a_url_that_cannot_be_read_is_not_shown() -> None:
    given = Sourced("postgresql//user:secret@host/name", "ASYNCDB_POSTGRES_URL")
    with pytest.raises(ConfigError) as caught:
        UrlProvider().find(BackendSpec("postgres"), POSTGRES, given)
    assert str(caught.value) == (
        "this is not a URL of a PostgreSQL server (ASYNCDB_POSTGRES_URL)\n"
        "\n"
        "The value is not shown, as it may hold a password.\n"
        "\n"
        "To fix this: write it as postgresql+asyncpg://user:password@host/postgres"
    )


@pytest.fixture
def ours() -> Iterator[Supervised]:
    """A supervisor with its folder. Afterwards the folder is gone."""
    with supervised(Identity(), "secret", OWNER) as found:
        yield found
    assert not Path(found.folder).exists()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_the_folder_is_ours_alone_and_holds_the_credentials(ours: Supervised) -> None:
    assert Path(ours.folder).name.startswith("pytest-asyncdb-")
    assert Path(ours.folder).stat().st_mode & 0o777 == 0o700
    assert Path(ours.folder, "credentials").read_text() == "secret"


def test_the_folder_says_whose_it_is(ours: Supervised) -> None:
    assert Owner.from_json(Path(ours.folder, "owner.json").read_text()) == OWNER


def test_commands_run_one_after_the_other(ours: Supervised) -> None:
    ours.start(python("print('one')"), "SIGTERM")
    assert ours.event(30) == "ended 0"
    ours.start(python("print('two'); raise SystemExit(3)"), "SIGTERM")
    assert ours.event(30) == "ended 3"
    assert ours.output() == "one\ntwo\n"


def test_a_program_gets_the_environment_that_it_needs_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may run as another user, who must not read a CI job's secrets; nor may settings for the
    user's own servers, such as ``PGOPTIONS``, change this one."""
    given = {"TZ": "Europe/Vienna", "LD_LIBRARY_PATH": "/opt/lib"}
    others = {"SECRET_TOKEN": "secret", "PGOPTIONS": "-c work_mem=64kB", "LANG": "de_AT.UTF-8"}
    for name, value in {**given, **others}.items():
        monkeypatch.setenv(name, value)
    with supervised(Identity(), "", OWNER) as ours:
        ours.start(["env"], "SIGTERM")
        assert ours.event(30) == "ended 0"
        found = dict(line.split("=", 1) for line in ours.output().splitlines())
        supervisor = Path(f"/proc/{ours.process.pid}/environ")
        if supervisor.exists():
            assert b"SECRET_TOKEN" not in supervisor.read_bytes()
    found.pop("_", None)
    assert found == {
        **given,
        "PATH": os.environ["PATH"],
        "LC_ALL": "C",
        "TMPDIR": ours.folder,
    }


def test_a_program_that_is_not_there_is_said(ours: Supervised) -> None:
    ours.start(["/no/such/program"], "SIGTERM")
    event = ours.event(30)
    assert event == (
        "failed FileNotFoundError: [Errno 2] No such file or directory: '/no/such/program'"
    )


def test_signals_do_not_end_the_supervisor(ours: Supervised) -> None:
    import signal

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        ours.process.send_signal(number)
    ours.start(python("print('still here')"), "SIGTERM")
    assert ours.event(30) == "ended 0"


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="observes processes by pidfd")
def test_processes_that_left_the_group_and_ignore_signals_end_too() -> None:
    """PostgreSQL's processes lead sessions of their own; some programs ignore SIGTERM."""
    code = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
print(os.getpid(), flush=True)
with open("there", "a") as there:
    there.write(f"{os.getpid()}\\n")
signal.pause()
"""
    with supervised(Identity(), "", OWNER) as ours:
        ours.start(python(code), "SIGKILL")
        there = Path(ours.folder, "there")
        while not (there.exists() and there.read_text().count("\n") == 2):
            assert ours.event(0.01) is None
        descriptors = [os.pidfd_open(int(line)) for line in there.read_text().split()]
    import select

    for descriptor in descriptors:
        assert select.select([descriptor], [], [], 0)[0]  # ended before the context was left
        os.close(descriptor)
    assert not Path(ours.folder).exists()
