"""``--asyncdb-reuse``: servers and templates stay for later runs, what a test wrote never does.

Every run is a process of its own, in a cache of the test's own. After each test ``reap`` leaves
nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from fix_docker import containers, docker
from fix_observer import Observer, observer_of
from fix_project import QUIET, Outcome, Project
from fix_servers import Servers, Target

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._system.process_identity import Owner
from pytest_asyncdb.servers.docker_api import LABEL
from pytest_asyncdb.servers.reusable import Record

pytestmark = pytest.mark.everyday("postgres-local")

LOCAL = ["postgres-local", "mariadb-local"]
CONTAINER = ["postgres-container", "mysql-container", "mariadb-container"]

#: Seconds in which an event must have come.
IN_TIME = 60.0

SEED = """
import pathlib

import pytest
from app.models import User

HERE = pathlib.Path(__file__).parent


def helped():
    from app.people import NAMES

    return NAMES


@pytest.fixture(scope="session")
def asyncdb_seed():
    async def seed(session):
        with (HERE / "built").open("a") as file:
            file.write("seed\\n")
        names = [*helped(), *(HERE / "more.txt").read_text().split()]
        session.add_all([User(name=name) for name in names])

    return seed
"""

TESTS = """
@pytest.mark.asyncdb(isolation="copy")
async def test_copy(asyncdb_session):
    print("names:", *await names(asyncdb_session))
    await add(asyncdb_session, "of a test")
    await asyncdb_session.commit()


@pytest.mark.asyncdb(isolation="reset")
async def test_reset(asyncdb_session):
    print("names:", *await names(asyncdb_session))
    await add(asyncdb_session, "of a test")
    await asyncdb_session.commit()
"""


class Reuse:
    """A project whose runs keep their server, and what is seen of it from outside."""

    def __init__(self, project: Project, name: str, provider: str, cache: Path) -> None:
        self.project = project
        self.name = name
        #: In ``--asyncdb``.
        self.word = name
        self.cache = cache
        self.arguments = [f"--asyncdb-server={provider}", "--asyncdb-reuse"]
        project.write("conftest.py", SEED)
        project.write("app/people.py", 'NAMES = ["ada"]')
        project.write("more.txt", "bob")
        # A kept template is the plugin's own database.
        project.ini(asyncdb_inputs="app more.txt", asyncdb_other_engines="refuse")
        project.tests(TESTS)

    def run(self, *arguments: str) -> Outcome:
        target = Target(self.word, None, observer_of(None))
        return self.project.run_apart(target, *self.arguments, "-s", *arguments)

    def names(self) -> list[str]:
        """The seeded names, as the tests of a run see them."""
        outcome = self.run().passed(2)
        first, second = re.findall(r"names: (.*)", outcome.text)
        assert first == second
        return str(first).split()

    def start(self, *arguments: str, stdin: int | None = None) -> subprocess.Popen[str]:
        """A run in the background, in a process group of its own."""
        words = [*QUIET, "-s", f"--asyncdb={self.word}", *self.arguments, *arguments]
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", *words],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )

    @contextlib.contextmanager
    def started(self, *arguments: str, stdin: int | None = None) -> Iterator[subprocess.Popen[str]]:
        """The same; it is killed at the end, whatever the test has found."""
        with self.start(*arguments, stdin=stdin) as run:
            try:
                yield run
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(run.pid, signal.SIGKILL)

    @property
    def built(self) -> int:
        """How often a template was built."""
        return len((self.project.path / "built").read_text().split())

    @property
    def records(self) -> list[Record]:
        folders = (self.cache / "pytest-asyncdb/servers").glob("*")
        return [record for folder in folders if (record := Record.read(folder))]

    @property
    def record(self) -> Record:
        (record,) = self.records
        return record

    def observer(self) -> Observer:
        driver = {"postgres": "psycopg"}.get(self.name, "asyncmy")
        return observer_of(Registry().backend(self.name).url(self.record.server, driver, None))

    def databases(self) -> set[str]:
        """Ours."""
        return {name for name in self.observer().databases() if name.startswith("asyncdb_")}

    def reap(self, *arguments: str) -> list[str]:
        """What ``reap`` says of the servers that stay."""
        before = self.records
        done = subprocess.run(
            [sys.executable, "-m", "pytest_asyncdb", "reap", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        # Other servers of this machine are none of ours.
        places = [record.place for record in before]
        lines = done.stdout.splitlines()
        return [line for line in lines if any(place in line for place in places)]


def is_process(pid: int) -> bool:
    """One that has ended may wait for its parent, which is whoever has the number 1."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def there(record: Record) -> bool:
    """Is anything of the server left? Seen without our code."""
    if record.engine is None:
        return Path(record.place).exists() or is_process(record.owner.pid)
    with docker() as client:
        return container(client, record) is not None


def container(client: Any, record: Record) -> Any:
    """The server's, if it is there."""
    return next(iter(containers(client, name=f"^/{record.place}$")), None)


def wait_until(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + IN_TIME
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture(params=LOCAL)
def reuse(
    request: pytest.FixtureRequest,
    servers: Servers,
    project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Reuse]:
    name, _, provider = request.param.partition("-")
    servers.need(name, provider)
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    one = Reuse(project, name, provider, cache)
    yield one
    records = one.records
    one.reap()
    assert one.records == []
    assert not any(there(record) for record in records)


on_postgres = pytest.mark.parametrize("reuse", ["postgres-local"], indirect=True)
#: The image of the others starts slowly.
on_each = pytest.mark.parametrize("reuse", [*LOCAL, "postgres-container"], indirect=True)
in_container = pytest.mark.parametrize(
    "reuse", [pytest.param("postgres-container", marks=pytest.mark.complete)], indirect=True
)


@pytest.mark.everyday("postgres-local")
@pytest.mark.parametrize("reuse", [*LOCAL, *CONTAINER], indirect=True)
def test_the_next_run_finds_server_and_template_and_no_data(reuse: Reuse) -> None:
    assert reuse.names() == ["ada", "bob"]
    first, templates = reuse.record, reuse.databases()
    assert len(templates) == 1
    assert reuse.names() == ["ada", "bob"]
    assert reuse.record == first
    assert reuse.databases() == templates
    assert reuse.built == 1


@on_each
def test_only_this_user_can_read_the_record(reuse: Reuse) -> None:
    """It holds the password."""
    reuse.names()
    folder = reuse.record.folder
    assert [path.stat().st_mode & 0o777 for path in (folder.parent, folder)] == [0o700, 0o700]
    assert (folder / "record.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.complete
@on_each
def test_the_header_says_that_it_stays(reuse: Reuse) -> None:
    assert "kept for later runs" in reuse.run("-v").passed(2).text


CHANGES = {
    "a module of a folder that asyncdb_inputs names": (
        "app/people.py",
        'NAMES = ["cyd"]',
        ["bob", "cyd"],
    ),
    "a file that asyncdb_inputs names": ("more.txt", "dan", ["ada", "dan"]),
    "the seed": ("conftest.py", SEED.replace("in names]", "in names[:1]]"), ["ada"]),
}


@on_postgres
@pytest.mark.parametrize(
    "what",
    [
        pytest.param("a module of a folder that asyncdb_inputs names", marks=pytest.mark.complete),
        "a file that asyncdb_inputs names",
        pytest.param("the seed", marks=pytest.mark.complete),
    ],
)
def test_what_a_template_was_built_from_has_changed(reuse: Reuse, what: str) -> None:
    """It is built anew."""
    name, text, expected = CHANGES[what]
    assert reuse.names() == ["ada", "bob"]
    reuse.project.write(name, text)
    assert reuse.names() == expected
    assert reuse.names() == expected
    assert reuse.built == 2


@pytest.mark.complete
@on_postgres
def test_the_models_have_changed(reuse: Reuse) -> None:
    """Who goes back finds the first template again."""
    models = (reuse.project.path / "app/models.py").read_text()
    renamed = models.replace('"users"', '"people"').replace("users.id", "people.id")
    for other in (models.replace("String(40)", "String(41)"), renamed):
        reuse.project.write("app/models.py", models)
        assert reuse.names() == ["ada", "bob"]
        before = reuse.databases()
        reuse.project.write("app/models.py", other)
        assert reuse.names() == ["ada", "bob"]
        assert len(reuse.databases() - before) == 1
    (made,) = reuse.databases() - before
    assert list(reuse.observer().dump(made)) == ["people", "posts"]
    assert reuse.built == 3


FIRST = """
    op.create_table(
        "users",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(40), nullable=False, unique=True),
    )
"""


def revision(reuse: Reuse, name: str, down: str | None, upgrade: str) -> None:
    text = f"revision, down_revision = {name!r}, {down!r}\n\n\ndef upgrade():{upgrade}"
    head = "import sqlalchemy as sa\nfrom alembic import op\n\n"
    reuse.project.write(f"migrations/versions/{name}.py", f"{head}{text}")


def migrated(reuse: Reuse) -> str:
    """The comment on the table of the template that the next run will find."""
    assert reuse.names() == ["ada", "bob"]
    places = (reuse.record.folder / "templates").iterdir()
    name = max(places, key=lambda place: place.stat().st_mtime_ns).name
    ((comment,),) = reuse.observer().query("SELECT obj_description('users'::regclass)", name)
    return str(comment)


@pytest.mark.complete
@on_postgres
def test_a_migration_has_changed(reuse: Reuse) -> None:
    """Also where another one has come."""
    config = Config(reuse.project.path / "alembic.ini", stdout=io.StringIO())
    with contextlib.chdir(reuse.project.path), contextlib.redirect_stdout(io.StringIO()):
        command.init(config, "migrations")
    reuse.project.ini(asyncdb_migrations="alembic.ini")
    revision(reuse, "a", None, FIRST)
    assert [migrated(reuse) for _ in range(2)] == ["None", "None"]
    assert reuse.built == 1
    revision(reuse, "a", None, f"{FIRST}    op.execute(\"COMMENT ON TABLE users IS 'one'\")\n")
    assert migrated(reuse) == "one"
    revision(reuse, "b", "a", "\n    op.execute(\"COMMENT ON TABLE users IS 'two'\")\n")
    assert migrated(reuse) == "two"
    (reuse.project.path / "migrations/versions/b.py").unlink()
    assert migrated(reuse) == "one"
    assert reuse.built == 3


@pytest.mark.complete
@on_postgres
def test_what_was_only_touched_has_not_changed(reuse: Reuse) -> None:
    """As after switching to another branch and back."""
    reuse.names()
    for path in reuse.project.path.rglob("*.py"):
        os.utime(path)
    reuse.names()
    assert reuse.built == 1


@on_postgres
def test_what_the_seed_returned_stays_with_the_template(reuse: Reuse) -> None:
    """A later run, which does not call the seed, gets the value of the run that did."""
    value = 'f"{names[0]} at {uuid.uuid4()}"'
    seed = SEED.replace("import pathlib", "import pathlib\nimport uuid")
    seed = seed.replace("    return seed\n", f"        return {value}\n\n    return seed\n")
    reuse.project.write("conftest.py", seed)
    reuse.project.tests("async def test_it(asyncdb):\n    print('seeded:', asyncdb.seeded)\n")
    first, second = (
        re.findall(r"seeded: (ada at \S+)", reuse.run().passed(1).text) for _ in range(2)
    )
    assert first == second != []
    assert reuse.built == 1


@pytest.mark.complete
@on_postgres
def test_a_seed_that_nobody_can_compare_runs_in_each_run(reuse: Reuse) -> None:
    """An object without words might be another one tomorrow."""
    call = (
        "    class Seed:\n        def __call__(self, session):\n            return seed(session)\n"
    )
    text = SEED.replace("    return seed\n", f"{call}\n    return Seed()\n")
    reuse.project.write("conftest.py", text)
    for number in (1, 2):
        assert reuse.names() == ["ada", "bob"]
        assert reuse.built == number
    assert reuse.databases() == set()


@pytest.mark.complete
@on_postgres
def test_a_schema_that_a_program_builds_from_a_named_file(reuse: Reuse) -> None:
    """``asyncdb_inputs`` names what neither the metadata nor a function's source shows. The
    control: a file that it does not name changes nothing."""
    migrate = """
    import subprocess, sys, pathlib, pytest
    HERE = pathlib.Path(__file__).parent

    @pytest.fixture(scope="session")
    def asyncdb_migrate():
        def migrate(connection):
            for name in ("schema.sql", "other.sql"):
                command = [sys.executable, "-c", f"print(open({str(HERE / name)!r}).read())"]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                connection.exec_driver_sql(done.stdout)
        return migrate
    """
    show = """
    async def test_it(asyncdb_session):
        print("columns:", *await asyncdb_session.scalars(text(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' "
            "ORDER BY column_name"
        )))
    """
    reuse.project.write("conftest.py", migrate)
    reuse.project.write("schema.sql", "CREATE TABLE one (a integer)")
    reuse.project.write("other.sql", "CREATE TABLE two (b integer)")
    reuse.project.ini(asyncdb_inputs="schema*.sql")
    reuse.project.tests(show)

    def columns() -> list[str]:
        found = re.findall(r"columns: (.*)", reuse.run().passed(1).text)
        return str(found[0]).split()

    assert columns() == ["a", "b"]
    reuse.project.write("other.sql", "CREATE TABLE two (c integer)")
    assert columns() == ["a", "b"]
    reuse.project.write("schema.sql", "CREATE TABLE one (d integer)")
    assert columns() == ["c", "d"]


@pytest.mark.complete
@on_each
def test_two_runs_at_once_share_it(reuse: Reuse) -> None:
    """Whoever is first starts the server and builds the template."""
    runs = [reuse.start() for _ in range(2)]
    texts = [run.communicate(timeout=120)[0] for run in runs]
    assert all("2 passed" in text for text in texts), texts
    assert all("names: ada bob" in text for text in texts), texts
    assert reuse.built == 1
    assert len(reuse.databases()) == 1


@pytest.mark.complete
def test_all_workers_share_it(reuse: Reuse) -> None:
    reuse.run("-n", "2").had(passed=2)
    reuse.run("-n", "2").had(passed=2)
    assert reuse.built == 1
    assert len(reuse.databases()) == 1


@on_each
@pytest.mark.parametrize(
    "workers",
    [
        pytest.param((), id="alone"),
        pytest.param(("-n", "2"), id="workers", marks=pytest.mark.complete),
    ],
)
def test_a_run_that_is_killed_leaves_the_server_and_no_data(
    reuse: Reuse, workers: tuple[str, ...]
) -> None:
    reuse.project.tests(
        """
        @pytest.mark.asyncdb(isolation="reset")
        async def test_it(asyncdb_session):
            await add(asyncdb_session, "of the dead")
            await asyncdb_session.commit()
            open("here", "w").close()
            threading.Event().wait()
        """
    )
    with reuse.started(*workers) as run:
        wait_until((reuse.project.path / "here").exists)
        record, left = reuse.record, reuse.databases()
        assert reuse.reap("--dry-run") == [f"in use: {record}"]
        assert reuse.reap() == []
        os.killpg(run.pid, signal.SIGKILL)
    assert len(left) == 2  # control: it had a database
    reuse.project.tests(TESTS)
    assert reuse.names() == ["ada", "bob"]
    assert reuse.record == record
    assert reuse.built == 1
    assert len(reuse.databases()) == 1


@pytest.mark.complete
def test_a_template_whose_builder_is_killed_is_built_anew(reuse: Reuse) -> None:
    """Under the same name, without what that builder has committed."""
    killing = "        import os\n        if not (HERE / 'killed').exists():\n"
    killing += "            (HERE / 'killed').touch()\n"
    killing += "            session.add(User(name='of the dead'))\n"
    killing += "            await session.commit()\n            os.kill(os.getpid(), 9)\n"
    begin = "    async def seed(session):\n"
    reuse.project.write("conftest.py", SEED.replace(begin, begin + killing))
    with reuse.started() as run:
        assert run.wait(IN_TIME) == -signal.SIGKILL
    record, half = reuse.record, reuse.databases()
    (name,) = half
    (left,) = reuse.observer().query("SELECT name FROM users", name)
    assert left == ("of the dead",)  # the control
    assert reuse.names() == ["ada", "bob"]
    assert reuse.record == record
    assert reuse.databases() == half
    assert reuse.built == 1


@pytest.mark.complete
@on_each
def test_reap_ends_what_nobody_uses(reuse: Reuse) -> None:
    reuse.names()
    record = reuse.record
    what = f"{record.owner.what}, process {record.owner.pid} in {record.place}"
    if record.engine is not None:
        what = f"{record.owner.what}, container {record.place}"
    assert reuse.reap("--dry-run") == [f"would be removed: {what}"]
    assert there(record)
    assert reuse.reap() == [f"removed: {what}"]
    assert not there(record)
    assert reuse.reap() == []


each = pytest.mark.parametrize(
    "reuse",
    ["postgres-local", pytest.param("postgres-container", marks=pytest.mark.complete)],
    indirect=True,
)


@pytest.mark.complete
@each
@pytest.mark.parametrize(
    "kept",
    [
        pytest.param(False, id="idle"),
        pytest.param(True, id="with a database of a failed test", marks=pytest.mark.complete),
    ],
)
def test_a_server_that_was_not_used_for_an_hour_is_ended_by_the_next_run(
    reuse: Reuse, kept: bool
) -> None:
    """Also by a run that does not reuse servers. Databases of failed tests have a day."""
    reuse.names()
    record = reuse.record
    if kept:
        (record.folder / "keep").touch()
    reuse.arguments.remove("--asyncdb-reuse")
    reuse.names()
    assert there(record)  # the control
    long_ago = time.time() - 3601
    os.utime(record.folder / "use", (long_ago, long_ago))
    reuse.names()
    assert there(record) is kept
    assert bool(reuse.records) is kept


@pytest.mark.complete
@each
def test_a_server_without_a_record_is_ended_by_the_next_run(reuse: Reuse) -> None:
    """The user has emptied the cache folder."""
    reuse.names()
    record = reuse.record
    shutil.rmtree(reuse.cache)
    assert there(record)  # the control
    reuse.arguments.remove("--asyncdb-reuse")
    reuse.names()
    wait_until(lambda: not there(record))


@each
def test_a_server_that_a_run_uses_is_not_ended(reuse: Reuse) -> None:
    """However long ago that run began."""
    reuse.project.tests(
        """
        async def test_it(asyncdb_session):
            import sys

            print("names:", *await names(asyncdb_session), flush=True)
            sys.stdin.readline()
        """
    )
    with reuse.started(stdin=subprocess.PIPE) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        assert any("names: " in line for line in run.stdout)
        record = reuse.record
        long_ago = time.time() - 3601
        os.utime(record.folder / "use", (long_ago, long_ago))
        assert reuse.reap("--dry-run") == [f"in use: {record}"]
        assert reuse.reap() == []
        reuse.project.write("test_other.py", "async def test_it(asyncdb_session): pass")
        reuse.run("test_other.py").passed(1)
        assert there(record)
        run.communicate("\n", timeout=60)


def watched(record: Record) -> int:
    """The process that the supervisor watches."""
    pid = record.owner.pid
    (child,) = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return child


@pytest.mark.complete
@pytest.mark.everyday(("postgres-local", "both"))
@pytest.mark.parametrize("which", ["supervisor", "server", "both"])
def test_the_next_run_starts_another_one_when_it_was_killed(reuse: Reuse, which: str) -> None:
    reuse.names()
    record = reuse.record
    killed = {"supervisor": [record.owner.pid], "server": [watched(record)]}
    for pid in killed.get(which, [record.owner.pid, watched(record)]):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_process(record.owner.pid))
    assert reuse.names() == ["ada", "bob"]
    assert reuse.record.place != record.place
    wait_until(lambda: not there(record))


@in_container
@pytest.mark.parametrize("how", ["removed", "stopped"])
def test_the_next_run_starts_another_one_when_the_container_is_gone(reuse: Reuse, how: str) -> None:
    """That run removes what is left."""
    reuse.names()
    record = reuse.record
    with docker() as client:
        gone = container(client, record)
        if how == "removed":
            gone.remove(force=True, v=True)
        else:
            gone.stop()
    assert reuse.names() == ["ada", "bob"]
    assert reuse.record.place != record.place
    assert not there(record)
    assert there(reuse.record)


#: By this label Ryuk knows what it has to remove.
SESSION = "org.testcontainers.session-id"

CONTROL = """
async def test_it(asyncdb_session):
    import os

    import docker

    client = docker.from_env()
    labels = [one.labels for one in client.containers.list(ignore_removed=True)]
    client.close()
    mine = f'"pid": {os.getpid()},'
    (ours,) = [one for one in labels if mine in one.get("org.pytest-asyncdb", "") and SESSION in one]
    assert "testcontainers' Ryuk" not in ours["org.pytest-asyncdb"]
"""


@in_container
def test_ryuk_does_not_know_the_container(reuse: Reuse) -> None:
    """It would remove it ten seconds after the run."""
    reuse.names()
    with docker() as client:
        labels = container(client, reuse.record).labels
    assert SESSION not in labels
    assert Owner.from_json(labels[LABEL]).kept == str(reuse.record.folder)
    reuse.project.tests(CONTROL.replace("SESSION", repr(SESSION)))
    reuse.arguments.remove("--asyncdb-reuse")
    reuse.run().passed(1)


@in_container
def test_a_run_that_finds_the_container_does_not_import_testcontainers(reuse: Reuse) -> None:
    """It takes long."""
    reuse.project.tests(
        """
        async def test_it(asyncdb_session):
            import sys

            print("imported:", "testcontainers" in sys.modules)
        """
    )
    assert "imported: True" in reuse.run().passed(1).text  # the control
    assert "imported: False" in reuse.run().passed(1).text


@in_container
def test_an_image_that_has_changed_is_another_server(reuse: Reuse) -> None:
    """Though its name is the same."""
    tag = f"17-{secrets.token_hex(4)}"
    reuse.word = f"postgres@{tag}"
    with docker() as client:
        client.images.get("postgres:17").tag("postgres", tag)
        try:
            reuse.names()
            first = reuse.record
            changed = "LABEL changed=yes"
            container(client, first).commit("postgres", tag, changes=changed, pause=False)
            assert reuse.names() == ["ada", "bob"]
            assert len(reuse.records) == 2
            assert there(first)
            reuse.reap()
        finally:
            client.images.remove(f"postgres:{tag}", force=True)


CREATED = {"type": "container", "event": "create", "label": LABEL}


@in_container
def test_the_container_of_a_run_that_was_killed_while_starting_it_is_removed(reuse: Reuse) -> None:
    """By the next run: no record leads to it."""

    def is_ours(event: dict[str, Any]) -> bool:
        return Owner.from_json(event["Actor"]["Attributes"][LABEL]).pid == run.pid

    begun = int(time.time())
    with docker() as client, reuse.started() as run:
        made = client.events(since=begun, until=begun + 60, filters=CREATED, decode=True)
        number = next(event["id"] for event in made if is_ours(event))
        os.killpg(run.pid, signal.SIGKILL)
        made.close()
        run.wait()
        assert reuse.records == []
        assert number in [one.id for one in containers(client)]  # the control
        reuse.names()
        assert number not in [one.id for one in containers(client)]


def test_without_a_folder_for_the_record(reuse: Reuse, monkeypatch: pytest.MonkeyPatch) -> None:
    place = reuse.project.path / "more.txt"
    with monkeypatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place))
        reuse.run().had(errors=2).shows(
            f"""
            no server can be kept for later runs (--asyncdb-reuse)

            Seen:
              - FileExistsError: [Errno 17] File exists: '{place}'

            To fix this, do one of:
              - set XDG_CACHE_HOME to a folder that is writable
              - leave out --asyncdb-reuse
            """
        )


@pytest.mark.complete
@on_postgres
def test_a_server_that_lets_nobody_in_is_said(reuse: Reuse) -> None:
    reuse.names()
    record = reuse.record
    wrong = dataclasses.replace(record.server, password="wrong")
    dataclasses.replace(record, server=wrong).write()
    said = 'password authentication failed for user "postgres"'
    place = f"provider {record.server.provider}, 127.0.0.1:{record.server.port}"
    reuse.run().shows(
        f"""
        the PostgreSQL server that was kept for later runs does not answer ({place})

        Seen:
          - the driver said: InvalidPasswordError: {said}

        To fix this: python -m pytest_asyncdb reap, then run the tests again
        """
    )
