"""What dead runs have left is removed, by the next run and by ``reap``; nothing else is."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fix_observer import observer_of
from fix_project import Project
from fix_servers import Servers, Target
from sqlalchemy.engine import URL, make_url

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._config.specs import parse_spec
from pytest_asyncdb._databases.provisioner import drop_leftovers
from pytest_asyncdb._engines import selector_loop
from pytest_asyncdb._run import leftovers
from pytest_asyncdb._run.leftovers import reap as reap_machine
from pytest_asyncdb._run.run_lock import Lease
from pytest_asyncdb._run.runs import new_id, prefix_of
from pytest_asyncdb._system.process_identity import Owner
from pytest_asyncdb.abc import BackendSpec, Sourced
from pytest_asyncdb.errors import AsyncdbError

SERVERS = ("postgres+asyncpg", "mysql+aiomysql", "mariadb+asyncmy")


@pytest.fixture(params=SERVERS, ids=lambda word: word.replace("+", "-"))
def target(request: pytest.FixtureRequest, servers: Servers) -> Target:
    return servers.target(request.param)


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of this test's own, which other tests' runs do not reap."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "tmp").mkdir()
    return tmp_path


def reap(*arguments: str) -> list[str]:
    """The lines that ``reap`` prints on what is ours here."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest_asyncdb", "reap", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.splitlines()


def dead() -> Owner:
    """The owner of something, who has ended."""
    code = (
        "from pytest_asyncdb._system.process_identity import Owner\n"
        "print(Owner.current('cafe0123', 'a PostgreSQL server').to_json())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return Owner.from_json(done.stdout)


def make_folder(places: Path, name: str, record: str | None) -> Path:
    folder = places / "tmp" / name
    folder.mkdir(mode=0o700)
    (folder / "data").mkdir()
    if record is not None:
        (folder / "owner.json").write_text(record)
    return folder


def test_only_folders_of_the_dead_are_removed(places: Path) -> None:
    """What has a similar name, or a record that cannot be read, stays."""
    left = make_folder(places, "pytest-asyncdb-0123456789ab", dead().to_json())
    living = Owner.current("cafe0124", "a PostgreSQL server")
    stay = [
        make_folder(places, "pytest-asyncdb-0123456789ac", living.to_json()),
        make_folder(places, "pytest-asyncdb-0123456789ad", None),
        make_folder(places, "pytest-asyncdb-notes", dead().to_json()),
        make_folder(places, "pytest-asyncdb-0123456789ab.bak", dead().to_json()),
    ]
    line = f"folder {left}, a PostgreSQL server of run cafe0123"
    assert any(text.startswith(f"would be removed: {line}") for text in reap("--dry-run"))
    assert left.exists()
    assert any(text.startswith(f"removed: {line}") for text in reap())
    assert not left.exists()
    assert all(folder.exists() for folder in stay)


def test_a_dry_run_says_what_is_in_use(places: Path) -> None:
    owner = Owner.current("cafe0124", "a PostgreSQL server")
    folder = make_folder(places, "pytest-asyncdb-0123456789ac", owner.to_json())
    host = owner.host.partition("/")[0]
    assert (
        f"in use: folder {folder}, a PostgreSQL server of run cafe0124 "
        f"(process {os.getpid()} on {host})"
    ) in reap("--dry-run")


@contextlib.contextmanager
def working_in(folder: Path, user: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process without a terminal, as a server is."""
    command = ["sh", "-c", "echo; read line"]
    with subprocess.Popen(
        command,
        cwd=folder,
        user=user,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def test_the_processes_in_a_folder_end_with_it(places: Path) -> None:
    """The supervisor was killed, too. The control of the tests below."""
    folder = make_folder(places, "pytest-asyncdb-0123456789ab", dead().to_json())
    with working_in(folder / "data") as process:
        reap()
        assert process.wait(10) == -signal.SIGKILL
    assert not folder.exists()


@pytest.mark.parametrize("record", [None, "in-the-target"])
def test_a_symbolic_link_is_not_followed(places: Path, record: str | None) -> None:
    """Its target may be any folder of any user, with any processes in it."""
    victim = places / "victim"
    victim.mkdir(mode=0o700)
    if record is not None:
        (victim / "owner.json").write_text(dead().to_json())
    os.utime(victim, (time.time() - 7200,) * 2)
    link = places / "tmp/pytest-asyncdb-00000000beef"
    link.symlink_to(victim)
    with working_in(victim) as process:
        reap()
        leftovers.remove_unused()
        assert process.poll() is None
    assert victim.exists()
    assert link.is_symlink()


def test_a_record_that_is_a_symbolic_link_is_not_believed(places: Path) -> None:
    folder = make_folder(places, "pytest-asyncdb-0123456789ab", None)
    (places / "elsewhere.json").write_text(dead().to_json())
    (folder / "owner.json").symlink_to(places / "elsewhere.json")
    reap()
    assert folder.exists()


@pytest.mark.parametrize("record", ["", None])
def test_a_folder_without_a_record_stays(places: Path, record: str | None) -> None:
    """Nothing proves that it, and what runs in it, belongs to the plugin."""
    folder = make_folder(places, "pytest-asyncdb-0123456789ab", record)
    os.utime(folder, (time.time() - 7200,) * 2)
    with working_in(folder) as process:
        reap()
        assert process.poll() is None
    assert folder.exists()


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
#: The user nobody.
NOBODY = 65534


@as_root
def test_as_root_a_folder_of_another_user_stays(places: Path) -> None:
    """That user could have written any record into it."""
    folder = make_folder(places, "pytest-asyncdb-0123456789ab", dead().to_json())
    for path in (folder, folder / "owner.json"):
        os.chown(path, NOBODY, -1)
    places.chmod(0o711)
    with working_in(folder) as process:
        reap()
        assert process.poll() is None
    assert folder.exists()


@as_root
def test_as_root_servers_that_root_ran_as_nobody_are_removed(places: Path) -> None:
    """Root has written the record; the programs' user owns the folder."""
    folder = make_folder(places, "pytest-asyncdb-0123456789ab", dead().to_json())
    os.chown(folder, NOBODY, -1)
    with working_in(folder, NOBODY) as theirs, working_in(folder) as other:
        reap()
        assert theirs.wait(10) == -signal.SIGKILL
        assert other.poll() is None  # the user of the folder has not started it
    assert not folder.exists()


@contextlib.contextmanager
def left_database(target: Target, name: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        target.observer.query(f"CREATE DATABASE {name}")
        stack.callback(target.observer.query, f"DROP DATABASE IF EXISTS {name}")
        yield


def run_id() -> str:
    """An id that no run has; other tests use the same server at the same time."""
    return os.urandom(4).hex()


@pytest.fixture
def private(servers: Servers) -> Iterator[Target]:
    """A server on which no other test reaps at the same time."""
    servers.need("postgres", "local")
    registry, spec = Registry(), BackendSpec("postgres", written="postgres", source="a test")
    backend, provider = registry.backend("postgres"), registry.provider("local")
    found = provider.find(spec, backend, None)
    with provider.obtain(found, spec, backend, registry.driver(spec), print) as server:
        url = backend.url(server, "asyncpg", None)
        yield Target("postgres+asyncpg", url, observer_of(url))


def test_what_is_dropped_is_said(private: Target) -> None:
    left = f"asyncdb_{run_id()}_main_0_1"
    with left_database(private, left):
        url = str(private.url)
        assert f"would be removed: database {left} (command line)" in reap("--dry-run", url)
        assert left in private.observer.databases()
        assert f"removed: database {left} (command line)" in reap(url)
        assert left not in private.observer.databases()


@pytest.fixture
def restricted(private: Target) -> URL:
    """An account that may drop its own databases only."""
    private.observer.query("CREATE ROLE restricted LOGIN CREATEDB PASSWORD 'x'")
    return make_url(private.url).set(username="restricted", password="x")


def test_a_database_that_may_not_be_dropped_does_not_keep_the_others(
    private: Target, restricted: URL
) -> None:
    run = run_id()
    names = [f"asyncdb_{run}_main_0_{n}" for n in range(4)]
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(left_database(private, name))
        private.observer.query(f"ALTER DATABASE {names[2]} OWNER TO restricted")
        url = restricted.render_as_string(hide_password=False)
        done = subprocess.run(
            [sys.executable, "-m", "pytest_asyncdb", "reap", url],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.stderr, done.returncode) == ("", 1)
        assert {line for line in done.stdout.splitlines() if run in line} == {
            f"removed: database {names[2]} (command line)",
            *(
                f"could not be removed: database {name} (command line): "
                f"InsufficientPrivilegeError: must be owner of database {name}"
                for name in (names[0], names[1], names[3])
            ),
        }
        assert private.observer.databases() & {*names} == {*names} - {names[2]}


def test_the_end_of_a_run_names_the_databases_that_it_could_not_drop(
    private: Target, restricted: URL
) -> None:
    run = run_id()
    names = [f"asyncdb_{run}_main_0_{n}" for n in range(3)]
    registry, spec = Registry(), BackendSpec("postgres", "asyncpg", source="a test")
    backend, provider = registry.backend("postgres"), registry.provider("url")
    driver = registry.driver(spec)
    url = restricted.render_as_string(hide_password=False)
    found = provider.find(spec, backend, Sourced(url, "a test"))
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(left_database(private, name))
        private.observer.query(f"ALTER DATABASE {names[1]} OWNER TO restricted")
        server = stack.enter_context(provider.obtain(found, spec, backend, driver, print))
        with pytest.raises(AsyncdbError) as raised:
            selector_loop.run(drop_leftovers(server, backend, driver, f"asyncdb_{run}_"))
        assert {*raised.value.headline.split("; ")} == {
            f"{name}: InsufficientPrivilegeError: must be owner of database {name}"
            for name in (names[0], names[2])
        }
        assert names[1] not in private.observer.databases()


def test_a_run_whose_databases_could_not_be_dropped_says_so(
    project: Project, private: Target, restricted: URL
) -> None:
    """After pytest's summary, where no report can say it."""
    assert private.url is not None
    dsn = private.url.replace("+asyncpg", "")
    project.tests(
        f"""
        async def test_it(asyncdb_engine):
            connection, name = await asyncpg.connect({dsn!r}), asyncdb_engine.url.database
            await connection.execute(f"ALTER DATABASE {{name}} OWNER TO postgres")
            await connection.close()
        """,
        "import asyncpg",
    )
    target = dataclasses.replace(private, server=restricted)
    result = project.pytester.runpytest_subprocess(*target.arguments)
    result.assert_outcomes(passed=1)
    result.stderr.fnmatch_lines(
        [
            "asyncdb: databases of this run are still on the PostgreSQL server",
            "*must be owner of database asyncdb_*",
            "*run the tests again, or: python -m pytest_asyncdb reap URL",
        ]
    )


def are_dropped(target: Target, *names: str) -> bool:
    """Wait for the run of another test that may be dropping them, and holds their run's lock."""
    lock = lock_of(target, names[0].split("_")[1])
    waiting = lock.replace("pg_try_advisory_lock", "pg_advisory_lock").replace(", 0)", ", 60)")
    with contextlib.closing(target.observer.connect(None)) as connection:
        connection.cursor().execute(waiting)
        return not {*names} & target.observer.databases()


def test_databases_of_dead_runs_are_dropped(target: Target) -> None:
    left, foreign = f"asyncdb_{run_id()}_main_0_1", f"asyncdb_notes_{run_id()}"
    with left_database(target, left), left_database(target, foreign):
        reap(str(target.url))
        assert are_dropped(target, left)
        assert foreign in target.observer.databases()


def test_the_next_run_drops_them(project: Project, target: Target) -> None:
    left, foreign = f"asyncdb_{run_id()}_gw0_0_1", f"asyncdb_notes_{run_id()}"
    project.tests("async def test_it(asyncdb_session): assert await names(asyncdb_session) == []")
    with left_database(target, left), left_database(target, foreign):
        project.run_apart(target).result.assert_outcomes(passed=1)
        assert are_dropped(target, left)
        assert foreign in target.observer.databases()


def lock_of(target: Target, run: str) -> str:
    """The lock by which a run shows that it lives, as the docs say it."""
    if target.backend == "postgres":
        number = int(run, 16)
        signed = number - 2**32 if number >= 2**31 else number
        return f"SELECT pg_try_advisory_lock({0x61736462}, {signed})"
    return f"SELECT GET_LOCK('asyncdb_{run}', 0)"


@pytest.mark.everyday(("postgres+asyncpg", "high"), ("mysql+aiomysql", "low"))
@pytest.mark.parametrize("run", ["high", "low"])
def test_databases_of_a_run_that_holds_its_lock_stay(target: Target, run: str) -> None:
    """On whichever machine it is, and whatever version of the plugin it has."""
    run = {"high": "f", "low": "0"}[run] + run_id()[1:]
    left, other = f"asyncdb_{run}_main_0_1", None
    with contextlib.ExitStack() as stack:
        if target.backend == "postgres":  # a run with another maintenance database
            other = f"asyncdb_notes_{run}"
            stack.enter_context(left_database(target, other))
        with contextlib.closing(target.observer.connect(other)) as connection:
            cursor = connection.cursor()
            cursor.execute(lock_of(target, run))
            assert cursor.fetchone() in ((True,), (1,))
            # Not before: a run of another test would drop it.
            stack.enter_context(left_database(target, left))
            reap(str(target.url))
            assert left in target.observer.databases()
        reap(str(target.url))
        assert are_dropped(target, left)


def test_databases_stay_while_somebody_is_connected_to_one_of_the_run(target: Target) -> None:
    run = run_id()
    names = {f"asyncdb_{run}_main_0_1", f"asyncdb_{run}_t1"}
    with contextlib.ExitStack() as stack:
        # Until somebody is connected, runs of other tests must not take them away.
        living = target.observer.connect(None)
        with contextlib.closing(living):
            living.cursor().execute(lock_of(target, run))
            for name in sorted(names):
                stack.enter_context(left_database(target, name))
            connected = target.observer.connect(min(names))
        with contextlib.closing(connected):
            reap(str(target.url))
            assert names <= target.observer.databases()
        reap(str(target.url))
        assert are_dropped(target, *names)


def test_a_run_holds_its_lock(project: Project, target: Target) -> None:
    """Seen from inside of a test: another process cannot have the lock."""
    project.tests(
        """
        async def test_it(asyncdb_session, asyncdb_url):
            run = asyncdb_url.database.split("_")[1]
            print(f"\\nrun: {run}", flush=True)
            assert input() == "seen"
        """
    )
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:randomly", "-s", *target.arguments],
        cwd=project.path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        run = next(line.split()[1] for line in process.stdout if line.startswith("run: "))
        with contextlib.closing(target.observer.connect()) as connection:
            cursor = connection.cursor()
            cursor.execute(lock_of(target, run))
            held = cursor.fetchone()
        output, _ = process.communicate("seen\n", timeout=60)
    assert process.returncode == 0, output
    assert held in ((False,), (0,))


def test_a_server_that_is_nobodys_backend_is_a_mistake() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest_asyncdb", "reap", "oracle://user:secret@host/x"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "unknown dialect in a URL 'oracle' (command line)\n"
        "\n"
        "Known: sqlite, postgresql, postgres, mysql, mariadb.\n"
        "\n"
        "To fix this: use one of the known words in command line\n"
    )


def docker(*arguments: str) -> str:
    return subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> str:
    """A machine with a name of its own: runs of other tests cannot tell who is dead there."""
    monkeypatch.setattr(socket, "gethostname", lambda: f"machine-of-a-test-{os.getpid()}")
    return Owner.current("cafe0124", "nothing").host


def reap_here() -> list[str]:
    """The lines of ``reap``, by this process, which is on the machine of the test."""
    lines: list[str] = []
    assert reap_machine([], "", False, lines.append)
    return lines


def test_containers_of_the_dead_are_removed(servers: Servers, machine: str) -> None:
    """Ryuk was killed too, or the engine was started anew; the label is there."""
    servers.need("postgres", "container")
    command = ["create", "--label"]
    owner = dataclasses.replace(dead(), host=machine)
    left = docker(*command, f"org.pytest-asyncdb={owner.to_json()}", "postgres:17")
    living = Owner.current("cafe0124", "a PostgreSQL container")
    stays = docker(*command, f"org.pytest-asyncdb={living.to_json()}", "postgres:17")
    strange = docker(*command, "org.pytest-asyncdb=build7/41", "postgres:17")
    try:
        name = docker("inspect", "-f", "{{.Name}}", left).lstrip("/")
        reap()  # which is elsewhere, as runs of other tests are
        assert left in docker("ps", "-aq", "--no-trunc").split()
        lines = reap_here()
        assert any(line.startswith(f"removed: container {name} (postgres:17)") for line in lines)
        ids = docker("ps", "-aq", "--no-trunc").split()
        assert left not in ids
        assert {stays, strange} <= set(ids)
    finally:
        docker("rm", "-f", left, stays, strange)


REFUSED = """\
db.example.com is not known as a test server ({source})

Nothing was sent to it. The plugin creates and drops databases on such a server.
Known are this machine and names without a dot, such as postgres or db.

To fix this, do one of:
  - if it is for tests, say so: --allow-hosts={allowed}db.example.com
  - or in the environment: ASYNCDB_ALLOW_HOSTS={allowed}db.example.com
  - or leave out {source}
"""


@pytest.mark.parametrize("allowed", ["", "*.lab.example.com"])
@pytest.mark.parametrize("source", ["command line", "ASYNCDB_POSTGRES_URL"])
def test_a_server_that_may_be_somebodys_is_refused(
    source: str, allowed: str, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is removed or sent to it."""
    left = make_folder(places, "pytest-asyncdb-0123456789ab", dead().to_json())
    url = "postgresql+asyncpg://user:secret@db.example.com/app"
    monkeypatch.setenv("ASYNCDB_ALLOW_HOSTS", allowed)
    if source != "command line":
        monkeypatch.setenv(source, url)
    done = subprocess.run(
        [sys.executable, "-m", "pytest_asyncdb", "reap", *([url] if "line" in source else [])],
        capture_output=True,
        text=True,
        timeout=60,
    )
    text = REFUSED.format(source=source, allowed=allowed and f"{allowed},")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", text)
    assert left.exists()


#: The command, which here does not wait for long until it says that a server does not answer.
IMPATIENT = """
import sys
from pytest_asyncdb.__main__ import main
from pytest_asyncdb.servers import url

assert url._ANSWER >= 1
url._ANSWER = 0.2
sys.exit(main())
"""


@pytest.mark.parametrize("how", ["option", "environment"])
def test_a_server_that_is_allowed_is_asked(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not there, which is another error."""
    url = "postgresql+asyncpg://user:secret@db.invalid/app"
    monkeypatch.setenv("ASYNCDB_ALLOW_HOSTS", "*.invalid" if how == "environment" else "")
    option = ["--allow-hosts=*.invalid"] if how == "option" else []
    done = subprocess.run(
        [sys.executable, "-c", IMPATIENT, "reap", "--dry-run", *option, url],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "is not known as a test server" not in done.stderr
    assert "did not answer (command line)" in done.stderr.splitlines()[0]


def test_a_run_that_ends_at_once_drops_databases_of_dead_runs(
    target: Target, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry()
    spec = parse_spec(target.word, "test", registry)
    backend, driver = registry.backend(spec.backend), registry.driver(spec)
    names = [f"{prefix_of(new_id())}main_{number}" for number in range(3)]
    for name in names:
        target.observer.query(f"CREATE DATABASE {name}")
    listed = " UNION ALL ".join(f"SELECT '{name}'" for name in names)
    monkeypatch.setattr(backend, "list_databases", lambda: listed)  # those of other tests stay
    lease = Lease(new_id(), servers.server(target.backend), backend, driver)
    lease.take()
    lease.close()
    assert target.observer.databases().isdisjoint(names)
