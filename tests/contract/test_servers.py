"""What every server provider promises, for every backend that it can give.

A provider starts nothing until it is asked to, gives a server that answers, and leaves
nothing behind, however the process that asked has ended. Processes are watched through
``/proc`` and pidfds, containers through the ``docker`` package, databases by the observer.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import pwd
import re
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fix_chaos import listen_to_ctrl_c
from fix_docker import containers, docker
from fix_observer import Observer, observer_of
from fix_servers import Servers, required
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._system.process_identity import Owner
from pytest_asyncdb.abc import (
    Backend,
    BackendSpec,
    Candidate,
    Driver,
    Server,
    ServerProvider,
    Sourced,
)
from pytest_asyncdb.errors import ProviderUnavailable, ServerStartError
from pytest_asyncdb.servers import local
from pytest_asyncdb.servers.docker_api import LABEL

REGISTRY = Registry()


def named(*words: str) -> list[str]:
    """The words, or those of them that ``ASYNCDB_TEST_REQUIRE`` names where it is set."""
    wanted = {"-".join(pair) for pair in required()}
    return [word for word in words if not wanted or word in wanted]


LOCAL = named("postgres-embedded", "postgres-local", "mysql-local", "mariadb-local")
CONTAINER = named("postgres-container", "mysql-container", "mariadb-container")

pytestmark = [
    pytest.mark.skipif(
        not (Path("/proc/self").exists() and hasattr(os, "pidfd_open")),
        reason="processes are observed through /proc and pidfds",
    ),
    pytest.mark.everyday("postgres-embedded", "mariadb-local", "postgres-container"),
]


@dataclasses.dataclass(frozen=True)
class Case:
    """A backend from a provider that can give it."""

    word: str
    backend: Backend
    provider: ServerProvider
    found: Candidate

    @property
    def spec(self) -> BackendSpec:
        return BackendSpec(self.backend.name, written=self.backend.name)

    @property
    def driver(self) -> Driver:
        return REGISTRY.driver(self.spec)

    def obtain(
        self, backend: Backend | None = None, driver: Driver | None = None
    ) -> contextlib.AbstractContextManager[Server]:
        """The server, perhaps with a backend that is not quite right."""
        return self.provider.obtain(
            self.found, self.spec, backend or self.backend, driver or self.driver, print
        )


def find(word: str) -> Case:
    """The case, or a skip with the reason; a failure where the case is required."""
    name, _, provider_name = word.partition("-")
    backend, provider = REGISTRY.backend(name), REGISTRY.provider(provider_name)
    try:
        found = provider.find(BackendSpec(name, written=name), backend, None)
    except ProviderUnavailable as reason:
        if (name, provider_name) in required():
            pytest.fail(f"ASYNCDB_TEST_REQUIRE names {word}: {reason}", pytrace=False)
        pytest.skip(f"{word}: {reason}")
    return Case(word, backend, provider, found)


@pytest.fixture(params=[*LOCAL, *CONTAINER])
def case(request: pytest.FixtureRequest) -> Case:
    return find(request.param)


@pytest.fixture(params=LOCAL)
def local_case(request: pytest.FixtureRequest) -> Case:
    return find(request.param)


@dataclasses.dataclass
class Traces:
    """What a server consists of, seen from outside; open descriptors of its processes."""

    server: Server
    folder: Path | None = None
    processes: list[int] = dataclasses.field(default_factory=list)
    container: str | None = None

    def assert_gone(self, seconds: float = 0) -> None:
        """Everything has ended, or does so within some seconds."""
        until = time.monotonic() + seconds
        for descriptor in self.processes:
            assert select.select([descriptor], [], [], max(0, until - time.monotonic()))[0]
            os.close(descriptor)
        if self.folder is not None:
            assert not self.folder.exists()
        if self.container is not None:
            with docker() as client:
                assert self.container not in [c.id for c in containers(client)]
        with pytest.raises(ConnectionError):
            socket.create_connection((self.server.host, self.server.port), timeout=5)


def traces(server: Server) -> Traces:
    """Find what belongs to *server*: by its port, which no other server has."""
    if server.provider == "container":
        with docker() as client:
            for running in containers(client):
                ports = [b for bound in running.ports.values() for b in bound or ()]
                if str(server.port) in [b["HostPort"] for b in ports]:
                    assert Owner.from_json(running.labels[LABEL]).alive()
                    return Traces(server, container=running.id)
        raise AssertionError("no container has this port")
    found = Traces(server)
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode().split("\0")
            if entry.name.isdigit() and any(
                word in (f"port={server.port}", f"--port={server.port}") for word in words
            ):
                data = next(path for path in words if "/pytest-asyncdb-" in path)
                found.folder = Path(data.partition("=")[2] or data).parent
                supervisor = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                for pid in (supervisor, int(entry.name)):
                    found.processes.append(os.pidfd_open(pid))
                for pid in descendants(int(entry.name)):
                    with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                        found.processes.append(os.pidfd_open(pid))
    assert found.folder is not None
    assert found.folder.name.startswith("pytest-asyncdb-")
    assert found.folder.stat().st_mode & 0o777 == 0o700
    return found


def descendants(pid: int) -> list[int]:
    """A server starts and ends processes at any time."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [found for child in map(int, children) for found in (child, *descendants(child))]


def observe(case: Case, server: Server) -> Observer:
    return observer_of(case.backend.url(server, case.driver.name, None))


def run_sql(case: Case, server: Server, driver: Driver, *statements: str) -> None:
    """Run statements of the backend as the plugin does: on the maintenance database."""

    async def run() -> None:
        url = case.backend.url(server, driver.name, None)
        engine = create_async_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            for statement in statements:
                await connection.execute(text(statement))
        await engine.dispose()

    asyncio.run(run())


def test_find_says_why_and_which_version_and_starts_nothing(case: Case) -> None:
    assert case.found.provider == case.provider.name
    assert case.found.reason
    assert re.match(r"\d+", case.found.version or "")
    begun = time.monotonic()
    case.provider.find(case.spec, case.backend, None)
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize("first", [True, False], ids=["default-driver", "other-driver"])
def test_a_server_answers_holds_databases_and_leaves_nothing(
    case: Case, first: bool, record_property: Callable[[str, object], None]
) -> None:
    """Entered in one thread and left in another, as the run does it."""
    driver = case.backend.drivers[0 if first else 1]()
    context = case.obtain(driver=driver)
    with ThreadPoolExecutor(1) as enters, ThreadPoolExecutor(1) as leaves:
        begun = time.monotonic()
        server = enters.submit(context.__enter__).result()
        took = f"{time.monotonic() - begun:.2f} s"
        try:
            record_property("start", took)
            print(f"{case.word} {driver.name}: started in {took}")
            left = traces(server)
            assert server.managed
            assert server.tuning == case.found.tuning
            assert server.tuning.startswith("data ")
            assert server.version.startswith(str(case.found.version))
            assert str(server.password) not in repr(server)
            observer = observe(case, server)
            name = "asyncdb_contract"
            run_sql(case, server, driver, *case.backend.create_database(name))
            assert observer.databases() == {name}
            assert (name,) in observer.query(case.backend.list_databases())
            with contextlib.closing(observer.connect(name)):
                run_sql(case, server, driver, *case.backend.drop_database(name, server))
            assert observer.databases() == set()
        finally:
            leaves.submit(context.__exit__, None, None, None).result()
    left.assert_gone()


def test_a_server_of_ours_wants_its_password(local_case: Case) -> None:
    with local_case.obtain() as server:
        stranger = dataclasses.replace(server, password="")
        with pytest.raises(Exception, match=r"(?i)password|denied"):
            observe(local_case, stranger).query("SELECT 1")


OWNER = """
import dataclasses, json, os, signal, sys
from test_servers import find
with find(sys.argv[1]).obtain() as server:
    child = os.fork() if "fork" in sys.argv else -1
    while child == 0:
        signal.pause()
    print(json.dumps([dataclasses.asdict(server), child]), flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def owner(case: Case, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], Server, int]]:
    """Another process that has a server; the process, the server, and its forked child."""
    tests = Path(__file__).parent
    paths = [str(tests), str(tests.parent), str(tests.parent.parent), *filter(None, sys.path)]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, case.word, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(paths),
                "RYUK_RECONNECTION_TIMEOUT": "1s",
            },
            start_new_session=True,
            preexec_fn=listen_to_ctrl_c,
        )
        with process:
            assert process.stdout is not None
            # A line of progress may come first.
            line = next((line for line in process.stdout if line.startswith("[")), "")
            errors.seek(0)
            assert line, errors.read()
            message, child = json.loads(line)
            try:
                yield process, Server.from_message(message), child
            finally:
                process.kill()


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGTERM, marks=pytest.mark.complete),
        pytest.param(signal.SIGINT, marks=pytest.mark.complete),
    ],
)
def test_the_end_of_the_owner_leaves_nothing(local_case: Case, number: signal.Signals) -> None:
    """SIGINT goes to the whole group, as Ctrl-C does."""
    with owner(local_case) as (process, server, _):
        left = traces(server)
        os.killpg(process.pid, number)
        process.wait(30)
    left.assert_gone(30)


def test_a_fork_of_the_owner_does_not_keep_the_server(local_case: Case) -> None:
    """It holds a copy of the pipe that tells the supervisor of the owner's end."""
    with owner(local_case, "fork") as (process, server, child):
        left = traces(server)
        try:
            process.kill()
            process.wait(30)
            left.assert_gone(30)
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.complete)]
)
def test_the_end_of_the_owner_removes_the_container(number: signal.Signals) -> None:
    case = find("postgres-container")
    with owner(case) as (process, server, _), docker() as client:
        left = traces(server)
        gone = client.events(
            since=int(time.time()),
            until=int(time.time()) + 60,
            filters={"container": left.container, "event": "destroy"},
            decode=True,
        )
        process.send_signal(number)
        process.wait(30)
        assert next(gone)["Action"] == "destroy"
        gone.close()
    left.assert_gone()


def broken(case: Case, **changes: Any) -> Backend:
    """The case's backend with other data for its provider."""
    which = "container" if case.provider.name == "container" else "local"
    recipe = getattr(case.backend, which)._replace(**changes)
    return type("Broken", (type(case.backend),), {which: recipe})()


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Servers of this test have their folders here, and leave none."""
    monkeypatch.setattr("pytest_asyncdb.servers.server_folders.MEMORY", "/none")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if os.geteuid() == 0:  # as another user the programs must get to the folder
        for path in (tmp_path, *tmp_path.parents):
            if "pytest-of-" in str(path):  # with xdist one more than without
                path.chmod(0o755)
    yield
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_start_shows_its_output(local_case: Case, alone: None) -> None:
    serve = local_case.backend.local.serve  # type: ignore[union-attr]
    option = {"postgres": ["-c", "no_such_setting=1"]}.get(
        local_case.backend.name, ["--no-such-setting"]
    )
    backend = broken(local_case, serve=lambda place, port: [*serve(place, port), *option])
    with pytest.raises(ServerStartError) as caught, local_case.obtain(backend):
        pass
    message = str(caught.value)
    assert message.startswith(
        f"the {local_case.backend.label} server of provider {local_case.provider.name} "
        "did not start\n\nSeen:\n"
    )
    assert re.search(r"  - \| .*no.such.setting", message)
    assert "ended " in message


def test_a_folder_that_is_not_filled_shows_the_output(local_case: Case, alone: None) -> None:
    initialise = local_case.backend.local.initialise  # type: ignore[union-attr]
    backend = broken(local_case, initialise=lambda place: [*initialise(place), "--no-such-option"])
    with pytest.raises(ServerStartError, match="no-such-option"), local_case.obtain(backend):
        pass


@pytest.mark.parametrize("reuse", [False, True], ids=["for-now", "to-stay"])
def test_a_container_that_does_not_start_shows_its_output(
    reuse: bool, alone: None, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    case = find("postgres-container")
    case.provider.reuse, case.provider.run = reuse, secrets.token_hex(4)
    backend = broken(case, command=("-c", "no_such_setting=1"))
    begun = int(time.time())

    def is_ours(labels: dict[str, str]) -> bool:
        return f'"run": "{case.provider.run}"' in labels[LABEL]

    with docker() as client:
        with pytest.raises(ServerStartError) as caught, case.obtain(backend):
            pass
        made = client.events(
            since=begun,
            until=int(time.time()) + 1,
            filters={"type": "container", "event": "create", "label": LABEL},
            decode=True,
        )
        assert [1 for event in made if is_ours(event["Actor"]["Attributes"])]  # the control
        made.close()
        left = [one for one in containers(client, label=LABEL) if is_ours(one.labels)]
        assert [one for one in left if "ryuk" not in one.name] == []
    assert "image postgres:17: " in str(caught.value)
    assert "no_such_setting" in str(caught.value)


def test_a_port_that_is_taken_meanwhile_is_left_for_another(
    local_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        ports = iter([taken, local._free_port()])
        monkeypatch.setattr(local, "_free_port", lambda: next(ports))
        with local_case.obtain() as server:
            assert server.port != taken
            assert observe(local_case, server).query("SELECT 1") == [(1,)]


def test_a_server_does_not_see_the_environment_of_the_run(
    local_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does any other process of it, nor its supervisor, nor the programs that are tried."""
    monkeypatch.setenv("SECRET_TOKEN", secret := secrets.token_hex(8))
    case = find(local_case.word)
    with case.obtain() as server:
        left = traces(server)
        pids = [pid_of(descriptor) for descriptor in left.processes]
        assert len(pids) >= 2
        for pid in pids:
            assert secret not in Path(f"/proc/{pid}/environ").read_text(errors="replace")
        control = Path("/proc/self/environ")  # what execve has passed on to this process
        assert b"PATH=" in control.read_bytes()
    left.assert_gone()


def pid_of(descriptor: int) -> int:
    text = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    return int(text.partition("Pid:")[2].split()[0])


def test_a_server_that_dies_leaves_nothing(local_case: Case) -> None:
    with local_case.obtain() as server:
        left = traces(server)
        assert local_case.backend.local is not None
        stop = signal.Signals[local_case.backend.local.stop]
        signal.pidfd_send_signal(left.processes[1], stop)
        assert select.select([left.processes[1]], [], [], 30)[0]
    left.assert_gone()


def test_the_programs_run_without_user_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """As root in most containers; the programs are then run as the user nobody."""
    if os.geteuid() != 0:
        pytest.skip("we are not root")
    monkeypatch.setenv("PATH", "/none")
    case = find("postgres-local")
    with case.obtain() as server:
        assert observe(case, server).query("SELECT 1") == [(1,)]
        left = traces(server)
    left.assert_gone()


@pytest.mark.everyday("postgres-embedded")
def test_an_ordinary_user_runs_the_programs_too(local_case: Case) -> None:
    if os.geteuid() != 0:
        pytest.skip("we are an ordinary user anyway")
    system = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if (
        not system
        or f"{sys.version_info[0]}.{sys.version_info[1]}"
        not in subprocess.run(
            [system, "--version"], capture_output=True, text=True, check=True
        ).stdout
    ):
        pytest.skip("no Python of this version that an ordinary user can run")
    if not _others_may_read(Path(pytest.__file__)):
        pytest.skip("an ordinary user cannot read the packages of this environment")
    nobody = pwd.getpwnam("nobody")
    code = OWNER.replace("sys.stdin.read()", "print('left', flush=True)")
    tests = Path(__file__).parent
    paths = [str(tests), str(tests.parent), str(tests.parent.parent), *filter(None, sys.path)]
    result = subprocess.run(
        [system, "-c", code, local_case.word],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        user=nobody.pw_uid,
        group=nobody.pw_gid,
        extra_groups=[],
        cwd="/",
        timeout=60,
    )
    assert result.stdout.endswith("left\n"), result.stderr


def _others_may_read(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in path.resolve().parents)


@pytest.fixture(params=["postgres", "mysql", "mariadb"])
def external(request: pytest.FixtureRequest, servers: Servers) -> tuple[Backend, Server]:
    """A server that is there, whoever started it."""
    return REGISTRY.backend(request.param), servers.server(request.param)


def obtain_by_url(backend: Backend, written: str, **spec: Any) -> Any:
    wanted = BackendSpec(backend.name, source=f"--asyncdb={backend.name}", **spec)
    given = Sourced(written, f"ASYNCDB_{backend.name.upper()}_URL")
    provider = REGISTRY.provider("url")
    found = provider.find(wanted, backend, given)
    assert found.reason == given.source
    return provider.obtain(found, wanted, backend, REGISTRY.driver(wanted), print)


def written(backend: Backend, server: Server, **changes: Any) -> str:
    url = backend.url(
        dataclasses.replace(server, **changes),
        REGISTRY.driver(BackendSpec(backend.name)).name,
        None,
    )
    return url.render_as_string(hide_password=False)


def test_a_server_by_url_is_used_and_left_alone(external: tuple[Backend, Server]) -> None:
    backend, server = external
    observer = observer_of(backend.url(server, "x", None))

    def databases() -> set[str]:
        """Without those of runs, which come and go meanwhile; the provider has no run id."""
        names = {name for (name,) in observer.query(backend.list_databases())}
        return {name for name in names if not re.match(r"asyncdb_[0-9a-f]{8}_", name)}

    before = databases()
    with obtain_by_url(backend, written(backend, server)) as found:
        assert not found.managed
        assert (found.host, found.port, found.version) == (
            server.host,
            server.port,
            server.version,
        )
        assert (found.provider, found.scheme) == ("url", None)
    assert databases() == before


def test_the_urls_parameters_are_kept(servers: Servers) -> None:
    backend, server = REGISTRY.backend("mariadb"), servers.server("mariadb")
    url = f"{written(backend, server)}&connect_timeout=7"
    with obtain_by_url(backend, url) as found:
        assert ("connect_timeout", "7") in found.query


def test_a_mariadb_server_may_be_written_as_mysql(servers: Servers) -> None:
    backend, server = REGISTRY.backend("mariadb"), servers.server("mariadb")
    with obtain_by_url(backend, written(backend, server, scheme="mysql")) as found:
        assert found.scheme == "mysql"


def test_a_server_of_another_kind_is_refused(servers: Servers) -> None:
    backend, server = REGISTRY.backend("mysql"), servers.server("mariadb")
    with (
        pytest.raises(ServerStartError) as caught,
        obtain_by_url(backend, written(backend, server)),
    ):
        pass
    assert str(caught.value).startswith("the server is not MySQL (ASYNCDB_MYSQL_URL)\n")


def test_a_server_of_another_version_is_refused(servers: Servers) -> None:
    backend, server = REGISTRY.backend("postgres"), servers.server("postgres")
    with (
        pytest.raises(ServerStartError) as caught,
        obtain_by_url(backend, written(backend, server), version="9"),
    ):
        pass
    assert str(caught.value) == (
        f"the server is PostgreSQL {server.version}, not 9 (ASYNCDB_POSTGRES_URL)\n"
        "\n"
        "Seen:\n"
        "  - the version was asked for by: --asyncdb=postgres\n"
        "\n"
        "To fix this: write postgres without @9, or give another URL"
    )


def test_a_server_that_is_too_old_is_refused(external: tuple[Backend, Server]) -> None:
    """Here the plugin would need a version that does not exist yet."""
    backend, server = external
    needs = type("Needs", (type(backend),), {"oldest": "99"})()
    with pytest.raises(ServerStartError) as caught, obtain_by_url(needs, written(backend, server)):
        pass
    variable = f"ASYNCDB_{backend.name.upper()}_URL"
    assert str(caught.value) == (
        f"the server is {backend.label} {server.version}, older than 99 ({variable})\n"
        "\n"
        f"To fix this: use {backend.label} 99 or newer"
    )


def test_a_program_that_is_too_old_is_not_taken(local_case: Case) -> None:
    needs = type("Needs", (type(local_case.backend),), {"oldest": "99"})()
    with pytest.raises(ProviderUnavailable, match=r"\d, older than 99$"):
        local_case.provider.find(local_case.spec, needs, None)


def test_a_container_that_is_too_old_is_refused_and_removed() -> None:
    case = find("postgres-container")
    needs = type("Needs", (type(case.backend),), {"oldest": "99"})()
    with (
        pytest.raises(ServerStartError, match=r"PostgreSQL 17\.\d+, older than 99 \(postgres:17\)"),
        case.obtain(needs),
    ):
        pass


def test_a_refused_password_with_special_characters(external: tuple[Backend, Server]) -> None:
    """It is not shown, and the text says how to write it."""
    backend, server = external
    wrong = written(backend, server, password="10%25#off")
    begun = time.monotonic()
    with pytest.raises(ServerStartError) as caught, obtain_by_url(backend, wrong):
        pass
    assert time.monotonic() - begun < 8, "a refusal is final"
    message = str(caught.value)
    variable = f"ASYNCDB_{backend.name.upper()}_URL"
    assert message.startswith(
        f"the {backend.label} server refused the user or the password ({variable})\n"
    )
    assert "off" not in message
    assert "special characters are percent-encoded: urllib.parse.quote(" in message


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_asyncdb.servers.url._ANSWER", 0.2)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}/name?password="
        url = f"postgresql+asyncpg://user:secret@{address}hidden"
        backend = REGISTRY.backend("postgres")
        with pytest.raises(ServerStartError) as caught, obtain_by_url(backend, url):
            pass
    message = re.sub(r"asked for \S+ s", "asked for … s", str(caught.value))
    message = re.sub(r"ConnectionRefusedError: .*", "ConnectionRefusedError: …", message)
    shown = f"postgresql+asyncpg://user:***@{address}..."
    assert message == (
        "the PostgreSQL server did not answer (ASYNCDB_POSTGRES_URL)\n"
        "\n"
        "Seen:\n"
        f"  - asked for … s: {shown}\n"
        "  - ConnectionRefusedError: …\n"
        "\n"
        "To fix this, do one of:\n"
        "  - see that the server runs and that the URL in ASYNCDB_POSTGRES_URL leads to it\n"
        "  - or leave ASYNCDB_POSTGRES_URL out and let a server be started: "
        "--asyncdb-server=auto"
    )
