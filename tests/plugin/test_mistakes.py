"""Mistakes that users make, and the whole text that they see."""

from __future__ import annotations

import re
import textwrap

import pytest
from fix_project import Project
from fix_servers import Servers, Target


@pytest.fixture
def sqlite(servers: Servers) -> Target:
    return servers.target("sqlite")


def usage_error(project: Project, *arguments: str) -> str:
    """What pytest prints when it refuses to start, without its own ``ERROR:``."""
    result = project.pytester.runpytest_inprocess("-p", "no:randomly", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    return str(result.stderr).removeprefix("ERROR: ").strip()


def text(block: str) -> str:
    return textwrap.dedent(block).strip()


def test_an_unknown_backend_is_refused_with_the_near_miss(project: Project) -> None:
    assert usage_error(project, "--asyncdb=sqlite,postgre") == text(
        """
        unknown backend 'postgre' (did you mean 'postgres'?) (--asyncdb=sqlite,postgre)

        Known: all, sqlite, postgres, mysql, mariadb.

        To fix this: use one of the known words in --asyncdb=sqlite,postgre
        """
    )


def test_another_backend_needs_the_name_of_a_database(project: Project) -> None:
    project.ini(asyncdb_databases="sqlite")
    assert usage_error(project) == text(
        """
        'sqlite' names no database (asyncdb_databases in pytest.ini)

        To fix this: write it as NAME=BACKEND: asyncdb_databases = cache=sqlite
        """
    )


def test_the_error_names_the_environment_where_the_value_came_from_there(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCDB_BACKENDS", "oracle")
    assert usage_error(project) == text(
        """
        unknown backend 'oracle' (ASYNCDB_BACKENDS=oracle)

        Known: all, sqlite, postgres, mysql, mariadb.

        To fix this: use one of the known words in ASYNCDB_BACKENDS=oracle
        """
    )


def test_a_misspelt_variable_causes_a_warning(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: a variable that resembles none of them."""
    monkeypatch.setenv("ASYNCDB", "postgres")
    monkeypatch.setenv("ASYNCDB_POSTGRESQL_URL", "postgresql://localhost/test")
    monkeypatch.setenv("ASYNCDB_COLOUR", "blue")
    project.write("test_it.py", "def test_it(): pass")
    result = project.pytester.runpytest_inprocess("-p", "no:randomly", "-Wdefault")
    result.assert_outcomes(passed=1, warnings=2)
    assert re.findall(r"PytestConfigWarning: (.*)", str(result.stdout)) == [
        "ASYNCDB is not a variable of asyncdb (did you mean ASYNCDB_BACKENDS?)",
        "ASYNCDB_POSTGRESQL_URL is not a variable of asyncdb (did you mean ASYNCDB_POSTGRES_URL?)",
    ]


def test_the_error_names_the_ini_file_where_the_value_came_from_there(project: Project) -> None:
    project.ini(asyncdb_backends="postgres+psycopg2")
    assert usage_error(project) == text(
        """
        unknown driver for PostgreSQL 'psycopg2' (did you mean 'psycopg'?) (asyncdb_backends in pytest.ini)

        Known: asyncpg, psycopg.

        To fix this: use one of the known words in asyncdb_backends in pytest.ini
        """
    )


def test_a_driver_that_is_not_installed_is_named_with_its_extra(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "asyncpg" else real(name)
    )
    assert usage_error(project, "--asyncdb=postgres+asyncpg") == text(
        """
        the driver asyncpg for PostgreSQL is not installed (--asyncdb=postgres+asyncpg)

        To fix this: pip install "pytest-asyncdb[asyncpg]"
        """
    )


def test_a_sync_driver_in_a_url_is_refused(project: Project) -> None:
    url = "postgresql+psycopg2://app:secret@localhost/app"
    assert usage_error(project, "--asyncdb=postgres", f"--asyncdb-url={url}") == text(
        """
        unknown async driver for postgresql 'psycopg2' (did you mean 'psycopg'?) (--asyncdb-url)

        Known: asyncpg, psycopg.

        To fix this: write postgresql+asyncpg://, since tests use an async engine
        """
    )


@pytest.mark.parametrize("password", ["p@ss", "p/ss", "p#ss", "p?ss"])
def test_a_password_that_ends_the_url_is_refused_and_not_shown(
    project: Project, password: str
) -> None:
    url = f"postgresql+asyncpg://app:{password}word@localhost/app"
    shown = usage_error(project, "--asyncdb=postgres", f"--asyncdb-url={url}")
    assert shown == text(
        """
        the URL's password holds a character that ends it (--asyncdb-url)

        One of @ / ? # stands in the user name or password as it is.

        To fix this: percent-encode it: python -c "import getpass, urllib.parse as u; print(u.quote(getpass.getpass(), ''))"
        """
    )


def test_something_that_is_no_url_is_refused_and_not_shown(project: Project) -> None:
    assert usage_error(project, "--asyncdb-url=localhost:5432/secret") == text(
        """
        this is not a database URL (--asyncdb-url)

        (It is not shown, since it may hold a password.)

        To fix this: write dialect+driver://user:password@host:port/name
        """
    )


def test_a_url_for_a_backend_that_is_not_in_the_run_is_refused(project: Project) -> None:
    assert usage_error(project, "--asyncdb-url=postgresql://app@localhost/app") == text(
        """
        a URL for postgres, which this run does not use (--asyncdb-url)

        The run's backends: sqlite (default).

        To fix this: add it: --asyncdb=sqlite,postgres
        """
    )


def test_a_url_and_a_provider_that_starts_servers_contradict_each_other(project: Project) -> None:
    arguments = (
        "--asyncdb=postgres",
        "--asyncdb-url=postgresql://app:secret@localhost/app",
        "--asyncdb-server=container",
    )
    assert usage_error(project, *arguments) == text(
        """
        a URL for postgres, which this run does not use (--asyncdb-url)

        The provider 'container' uses no URL (--asyncdb-server=container).

        To fix this: leave out one of the two options
        """
    )


def test_a_wrong_answer_to_whether_servers_stay_is_refused(project: Project) -> None:
    project.ini(asyncdb_reuse="maybe")
    assert usage_error(project) == text(
        """
        unknown value of asyncdb_reuse 'maybe' (asyncdb_reuse in pytest.ini)

        Known: true, yes, on, 1, false, no, off, 0.

        To fix this: use one of the known words in asyncdb_reuse in pytest.ini
        """
    )


def test_metadata_without_a_module_is_explained(project: Project, sqlite: Target) -> None:
    project.ini(asyncdb_metadata="shop.models:Base")
    project.tests("async def test_it(asyncdb_session): pass")
    project.run(sqlite).had(errors=1).shows(
        """
        asyncdb_metadata='shop.models:Base': there is no module 'shop' (asyncdb_metadata in pytest.ini)

        To fix this, do one of:
          - add its folder to the path: pythonpath = . in the ini file
          - install the project: pip install -e .
        """
    )


def test_a_model_that_is_not_imported_is_named(project: Project, sqlite: Target) -> None:
    project.write(
        "app/models.py",
        """
        from sqlalchemy import ForeignKey
        from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

        class Base(DeclarativeBase): pass

        class Task(Base):
            __tablename__ = "tasks"
            id: Mapped[int] = mapped_column(primary_key=True)
            project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
        """,
    )
    project.write("test_it.py", "async def test_it(asyncdb_session): pass")
    project.run(sqlite).had(errors=1).shows(
        """
        the table 'projects' is not in asyncdb_metadata

        Foreign key associated with column 'tasks.project_id' could not find table 'projects' with which to generate a foreign key to target column 'id'

        To fix this: import the modules of all models in the one that asyncdb_metadata names, or name several: app.users:Base, app.orders:Base
        """
    )


def test_metadata_without_the_attribute_is_explained(project: Project, sqlite: Target) -> None:
    project.ini(asyncdb_metadata="app.models:Bass")
    project.tests("async def test_it(asyncdb_session): pass")
    project.run(sqlite).had(errors=1).shows(
        """
        asyncdb_metadata='app.models:Bass': there is no 'Bass' in app.models (did you mean 'Base'?) (asyncdb_metadata in pytest.ini)

        To fix this: name a MetaData or a declarative base of that module
        """
    )


def test_metadata_without_tables_is_explained(project: Project, sqlite: Target) -> None:
    project.write("app/base.py", "from sqlalchemy import MetaData\nmetadata = MetaData()")
    project.ini(asyncdb_metadata="app.base:metadata")
    project.tests("async def test_it(asyncdb_session): pass")
    project.run(sqlite).had(errors=1).shows(
        """
        asyncdb_metadata='app.base:metadata' has no tables (asyncdb_metadata in pytest.ini)

        app.base was imported, and no model of it is defined in what it imports.

        To fix this: name a module that imports all models, or several: app.users:Base, app.orders:Base
        """
    )


def test_a_module_that_fails_to_import_is_shown_with_its_place(
    project: Project, sqlite: Target
) -> None:
    project.write("app/broken.py", "\nraise RuntimeError('no settings')")
    project.ini(asyncdb_metadata="app.broken:Base")
    project.tests("async def test_it(asyncdb_session): pass")
    project.run(sqlite).had(errors=1).shows(
        f"""
        asyncdb_metadata='app.broken:Base': importing it failed (asyncdb_metadata in pytest.ini)

        RuntimeError: no settings
        at {project.path}/app/broken.py:1

        To fix this: make it importable: python -c 'import app.broken'
        """
    )


def test_a_project_that_names_no_tables_is_told_how(project: Project, sqlite: Target) -> None:
    project.ini(asyncdb_metadata=None)
    project.tests("async def test_it(asyncdb_session): pass")
    project.run(sqlite).had(errors=1).shows(
        """
        no tables are named for database tests (asyncdb_metadata is not set)

        To fix this, do one of:
          - add to the ini file: asyncdb_metadata = app.models:Base
          - or, with Alembic: asyncdb_migrations = alembic.ini
          - override the fixture asyncdb_metadata or asyncdb_migrate in a conftest.py
          - ask for an empty database: @pytest.mark.asyncdb(schema=False)
        """
    )


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        (
            '"postgers"',
            """
            unknown backend 'postgers' (did you mean 'postgres'?) (@pytest.mark.asyncdb of test_it at test_it.py:{line})

            Known: sqlite, postgres, mysql, mariadb.

            To fix this: use one of the known words in @pytest.mark.asyncdb of test_it at test_it.py:{line}
            """,
        ),
        (
            "excluded='sqlite'",
            """
            unknown argument 'excluded' (did you mean 'exclude'?) (@pytest.mark.asyncdb of test_it at test_it.py:{line})

            Known: exclude, isolation, requires, schema, reset_sequences, reason.

            To fix this: use one of the known words in @pytest.mark.asyncdb of test_it at test_it.py:{line}
            """,
        ),
        (
            "requires='ddl'",
            """
            unknown capability 'ddl' (@pytest.mark.asyncdb of test_it at test_it.py:{line})

            Known: transactional_ddl, several_connections, sequences_roll_back, schemas, deadlock_ends_transaction.

            To fix this: use one of the known words in @pytest.mark.asyncdb of test_it at test_it.py:{line}
            """,
        ),
    ],
)
def test_a_mistake_in_the_marker_is_a_collection_error(
    project: Project, sqlite: Target, marker: str, expected: str
) -> None:
    project.tests(f"@pytest.mark.asyncdb({marker})\nasync def test_it(asyncdb_session): pass")
    lines = (project.path / "test_it.py").read_text().splitlines()
    line = next(n for n, content in enumerate(lines, 1) if "pytest.mark.asyncdb" in content)
    outcome = project.run(sqlite).had(errors=1)
    outcome.shows(expected.format(line=line))
    assert outcome.result.ret == pytest.ExitCode.INTERRUPTED


def test_trio_is_refused_with_the_reason(project: Project, sqlite: Target) -> None:
    project.ini(asyncio_mode="strict")
    project.tests(
        """
        @pytest.fixture
        def anyio_backend():
            return "trio"

        @pytest.mark.anyio
        async def test_it(asyncdb_session):
            pass
        """
    )
    project.run(sqlite, "-p", "anyio").had(errors=1).shows(
        """
        the test runs on trio, which no async SQLAlchemy driver supports (anyio_backend)

        test: test_it.py::test_it[sqlite]

        To fix this: keep database tests on asyncio: override anyio_backend to return 'asyncio'
        """
    )


def test_no_server_to_be_had_lists_everything_that_was_tried(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    project.tests("async def test_it(asyncdb_session): pass")
    result = project.pytester.runpytest_inprocess("-p", "no:randomly", "--asyncdb=mysql@5.0")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "no MySQL server is available (--asyncdb=mysql@5.0)",
            "",
            "Tried, in this order:",
            "  - url: ASYNCDB_MYSQL_URL is not set",
            "  - container: no Docker engine answers at unix:///nowhere/docker.sock*",
            "  - local: *mysqld*",
            "",
            "To fix this, do one of:",
            "  - export ASYNCDB_MYSQL_URL=mysql://user:password@host/name",
            '  - start Docker, with pip install "pytest-asyncdb[[]container[]]"',
            "  - install the server programs of MySQL 5.0",
            "  - or skip these tests: --asyncdb-missing=skip",
        ],
        consecutive=True,
    )


def test_no_server_skips_where_the_user_says_so(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    project.tests("async def test_it(asyncdb_session): pass\ndef test_other(): pass")
    result = project.pytester.runpytest_inprocess(
        "-p", "no:randomly", "--asyncdb=mysql@5.0", "--asyncdb-missing=skip", "-rs"
    )
    result.assert_outcomes(skipped=1, passed=1)
    result.stdout.fnmatch_lines(["*no MySQL server is available (--asyncdb=mysql@5.0)*"])


def test_getfixturevalue_on_several_backends_is_explained(project: Project, sqlite: Target) -> None:
    project.tests("async def test_it(request): request.getfixturevalue('asyncdb_session')")
    result = project.pytester.runpytest_inprocess("-p", "no:randomly", "--asyncdb=sqlite,postgres")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "a database fixture was requested while the test ran, on several backends",
            "",
            "test: test_it.py::test_it",
            "The run's backends: sqlite, postgres.",
            "",
            "To fix this, do one of:",
            '  - name it before: @pytest.mark.usefixtures("asyncdb_backend") on the test',
            '  - or name one backend: @pytest.mark.asyncdb("sqlite")',
        ],
        consecutive=True,
    )


FOREIGN = "postgresql+asyncpg://app:secret@db.example.com/shop"


def test_a_server_that_may_be_a_real_one_is_refused(project: Project) -> None:
    """A host whose name has a dot is used only if the user allows it."""
    assert usage_error(project, "--asyncdb=postgres", f"--asyncdb-url={FOREIGN}") == text(
        """
        db.example.com is not known as a test server (--asyncdb-url)

        Nothing was sent to it. The plugin creates and drops databases on such a server.
        Known are this machine and names without a dot, such as postgres or db.

        To fix this, do one of:
          - if it is for tests, say so: --asyncdb-allow-hosts=db.example.com
          - or in the environment: ASYNCDB_ALLOW_HOSTS=db.example.com
          - or leave out --asyncdb-url
        """
    )


def test_what_is_allowed_already_stays_allowed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCDB_POSTGRES_URL", FOREIGN)
    project.ini(asyncdb_allow_hosts="*.lab.example.com")
    shown = usage_error(project, "--asyncdb=postgres")
    assert "say so: --asyncdb-allow-hosts=*.lab.example.com,db.example.com\n" in shown


@pytest.mark.parametrize("pattern", ["db.example.com", "other,*.EXAMPLE.com", "*"])
@pytest.mark.parametrize("way", ["flag", "environment", "ini"])
def test_an_allowed_host_is_taken(
    project: Project, monkeypatch: pytest.MonkeyPatch, pattern: str, way: str
) -> None:
    """As far as the header: nothing is connected to where no test runs."""
    monkeypatch.setenv("ASYNCDB_POSTGRES_URL", FOREIGN)
    arguments = ["--asyncdb=postgres", "--collect-only", "-v"]
    if way == "flag":
        arguments.append(f"--asyncdb-allow-hosts={pattern}")
    elif way == "environment":
        monkeypatch.setenv("ASYNCDB_ALLOW_HOSTS", pattern)
    else:
        project.ini(asyncdb_allow_hosts=pattern)
    result = project.pytester.runpytest_inprocess(*arguments)
    result.stdout.fnmatch_lines(["asyncdb: postgres: PostgreSQL, *, url (ASYNCDB_POSTGRES_URL)*"])


@pytest.mark.parametrize(
    "arguments",
    [["--asyncdb=sqlite"], ["--asyncdb=postgres", "--asyncdb-server=local"]],
    ids=["another backend", "another provider"],
)
def test_a_url_that_the_run_does_not_use_is_left_alone(
    project: Project, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("ASYNCDB_POSTGRES_URL", FOREIGN)
    result = project.pytester.runpytest_inprocess(*arguments, "--collect-only")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
