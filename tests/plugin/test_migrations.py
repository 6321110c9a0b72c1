"""Alembic builds the schema: the templates as they are, mistakes, and other databases."""

from __future__ import annotations

import contextlib
import io
import os
import textwrap
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from fix_project import Project, naive_database
from fix_servers import Servers, Target

FIRST = """
    op.create_table(
        "users",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(40), nullable=False, unique=True),
    )
"""
SECOND = """
    op.create_table(
        "posts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id"), nullable=False),
        sa.Column("text", sa.String(200), nullable=False),
    )
"""
#: What the observer expects: the models' tables, and Alembic's.
TABLES = {"posts": [], "users": [], "alembic_version": [("b",)]}

AGREE = """
async def test_it(asyncdb_session):
    assert await names(asyncdb_session) == []
    await add(asyncdb_session, "ada")
    await asyncdb_session.commit()

async def test_again(asyncdb_session, asyncdb):
    assert await names(asyncdb_session) == []
    assert await asyncdb.schema_differences() == []
"""


@pytest.fixture
def sqlite(servers: Servers) -> Target:
    return servers.target("sqlite")


@pytest.fixture
def postgres(servers: Servers) -> Target:
    return servers.target("postgres+asyncpg")


def init(project: Project, template: str = "generic") -> None:
    """What ``alembic init`` writes."""
    if not (Path(Config().get_template_directory()) / template).exists():
        pytest.skip(f"this Alembic has no template {template}")
    config = Config(
        project.path / "alembic.ini",
        toml_file=project.path / "pyproject.toml",
        stdout=io.StringIO(),
    )
    with contextlib.chdir(project.path), contextlib.redirect_stdout(io.StringIO()):
        command.init(config, "migrations", template)
    project.ini(asyncdb_migrations="alembic.ini")


def revision(project: Project, name: str, down: str | None, upgrade: str) -> None:
    project.write(
        f"migrations/versions/{name}.py",
        "\n".join(
            [
                "import sqlalchemy as sa",
                "from alembic import op",
                f"revision = {name!r}",
                f"down_revision = {down!r}",
                "def upgrade():",
                textwrap.indent(textwrap.dedent(upgrade).strip(), "    "),
                "def downgrade(): pass",
            ]
        ),
    )


@pytest.fixture
def alembic(project: Project) -> Project:
    """A project with the sync template and the revisions a and b."""
    init(project)
    revision(project, "a", None, FIRST)
    revision(project, "b", "a", SECOND)
    return project


def env_py(project: Project, old: str, new: str) -> None:
    """Change the template's env.py."""
    path = project.path / "migrations" / "env.py"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


# The templates.


@pytest.mark.everyday("sqlite", "postgres+asyncpg")
@pytest.mark.parametrize("template", ["generic", "async", "pyproject", "pyproject_async"])
def test_the_templates_work_as_they_are(project: Project, target: Target, template: str) -> None:
    """On every driver, with ``filterwarnings = error``, and without a change of env.py."""
    init(project, template)
    revision(project, "a", None, FIRST)
    revision(project, "b", "a", SECOND)
    project.tests(AGREE)
    project.run(target, expected=TABLES).passed(2)


def test_pyproject_toml_may_be_named(project: Project, sqlite: Target) -> None:
    init(project, "pyproject")
    revision(project, "a", None, FIRST)
    revision(project, "b", "a", SECOND)
    project.ini(asyncdb_migrations="pyproject.toml")
    project.tests(AGREE)
    project.run(sqlite, expected=TABLES).passed(2)


@pytest.mark.parametrize("before", ["", "SELECT 1"], ids=["", "begun"])
def test_an_env_py_may_take_the_connection_that_is_given(
    alembic: Project, target: Target, before: str
) -> None:
    """Alembic's own recipe for sharing a connection; also if a transaction has begun on it,
    which Alembic then leaves to whoever gave the connection."""
    path = alembic.path / "migrations" / "env.py"
    text = path.read_text(encoding="utf-8").rpartition("if context.is_offline_mode()")[0]
    path.write_text(
        text
        + textwrap.dedent(
            f"""
            given = config.attributes["connection"]
            if {before!r}:
                given.exec_driver_sql({before!r})
            context.configure(connection=given)
            with context.begin_transaction():
                context.run_migrations()
            """
        ),
        encoding="utf-8",
    )
    alembic.tests(AGREE)
    alembic.run(target, expected=TABLES).passed(2)


@pytest.mark.everyday("sqlite", "postgres+asyncpg")
def test_an_env_py_may_take_what_is_given_for_an_engine(alembic: Project, target: Target) -> None:
    """pytest-alembic passes one under the same name."""
    old = "connectable = engine_from_config("
    env_py(alembic, old, old.replace("= ", '= config.attributes.get("connection") or '))
    alembic.tests(AGREE)
    alembic.run(target, expected=TABLES).passed(2)


def test_what_env_py_leaves_in_a_pool_is_closed(alembic: Project, target: Target) -> None:
    """A pool of its own, never disposed of, neither blocks the database's end nor warns."""
    env_py(alembic, "poolclass=pool.NullPool,", "")
    alembic.tests(AGREE)
    alembic.run(target, expected=TABLES).passed(2)


def test_several_heads_are_all_reached(alembic: Project, sqlite: Target) -> None:
    revision(alembic, "c", "a", 'op.create_table("notes", sa.Column("id", sa.Integer))')
    alembic.tests("async def test_it(asyncdb_session): assert await names(asyncdb_session) == []")
    expected = {**TABLES, "notes": [], "alembic_version": [("b",), ("c",)]}
    alembic.run(sqlite, expected=expected).passed(1)


def test_pytest_may_be_started_in_another_folder(
    alembic: Project, sqlite: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where ``script_location``, ``prepend_sys_path`` and ``version_locations`` are relative to the
    ini file."""
    ini = alembic.path / "alembic.ini"
    text = ini.read_text(encoding="utf-8").replace("%(here)s/migrations", "migrations")
    assert "\npath_separator = os\n" in text
    places = f"version_locations = migrations/versions{os.pathsep}audit/versions"
    ini.write_text(text.replace("\n[post", f"\n{places}\n\n[post"), encoding="utf-8")
    revision(alembic, "c", "b", 'op.create_table("audit", sa.Column("id", sa.Integer))')
    (alembic.path / "audit" / "versions").mkdir(parents=True)
    moved = Path("versions", "c.py")
    (alembic.path / "migrations" / moved).rename(alembic.path / "audit" / moved)
    alembic.write("beside.py", "target_metadata = None")
    env_py(alembic, "target_metadata = None", "from beside import target_metadata")
    alembic.ini(pythonpath=None, asyncdb_metadata=None)
    alembic.write("sub/test_it.py", "def test_it(asyncdb_url): pass")
    monkeypatch.chdir(alembic.path / "sub")
    expected = {**TABLES, "audit": [], "alembic_version": [("c",)]}
    alembic.run(sqlite, expected=expected).passed(1)


def test_two_backends_migrate_one_after_the_other(
    alembic: Project, sqlite: Target, postgres: Target
) -> None:
    alembic.tests(AGREE)
    result = alembic.pytester.runpytest_inprocess(
        *("-p", "no:randomly", "--asyncdb=sqlite,postgres+psycopg,postgres+asyncpg"),
        f"--asyncdb-url={postgres.url}",
    )
    result.assert_outcomes(passed=6)


def test_every_worker_migrates_its_own_database(alembic: Project, postgres: Target) -> None:
    alembic.tests(
        """
        @pytest.mark.parametrize("n", range(6))
        async def test_it(n, asyncdb_session):
            assert await names(asyncdb_session) == []
            await add(asyncdb_session, "ada")
            await asyncdb_session.commit()
        """
    )
    alembic.run_apart(postgres, "-n", "2").result.assert_outcomes(passed=6)


def test_a_fixture_of_the_project_wins(alembic: Project, sqlite: Target) -> None:
    alembic.write(
        "conftest.py",
        """
        import pytest

        @pytest.fixture(scope="session")
        def asyncdb_migrate():
            return None
        """,
    )
    alembic.tests("async def test_it(asyncdb_session): assert await names(asyncdb_session) == []")
    alembic.run(sqlite).passed(1)


def test_models_are_not_needed(alembic: Project, sqlite: Target) -> None:
    alembic.ini(asyncdb_metadata=None)
    alembic.tests("async def test_it(asyncdb_session): assert await names(asyncdb_session) == []")
    alembic.run(sqlite, expected=TABLES).passed(1)


# What must stay as it was.

LOGGING = """
import logging

log = logging.getLogger("app.things")

async def test_it(asyncdb_session, caplog):
    await names(asyncdb_session)
    log.warning("seen")
    logging.getLogger().info("not seen")
    assert caplog.messages == ["seen"]
    assert not log.disabled
    assert logging.getLogger().level == logging.WARNING
"""


def test_logging_and_output_stay_as_they_were(alembic: Project, sqlite: Target) -> None:
    alembic.write("app/things.py", "import logging\nlog = logging.getLogger('app.things')")
    alembic.tests("import app.things", LOGGING)
    outcome = alembic.run(sqlite, "-s", expected=TABLES).passed(1)
    assert "alembic" not in str(outcome.result.stderr)


def test_control_the_templates_fileconfig_disables_loggers(
    alembic: Project, sqlite: Target
) -> None:
    """The naive recipe: the same test fails where Alembic is called by hand."""
    alembic.write(
        "conftest.py",
        """
        import pytest
        import alembic.command, alembic.config

        @pytest.fixture(scope="session")
        def asyncdb_migrate():
            def migrate(connection):
                config = alembic.config.Config("alembic.ini")
                config.attributes["connection"] = connection
                alembic.command.upgrade(config, "heads")
            return migrate
        """,
    )
    env_py(alembic, "if context.is_offline_mode()", CONFIGURE + "elif context.is_offline_mode()")
    alembic.write("app/things.py", "import logging\nlog = logging.getLogger('app.things')")
    alembic.tests("import app.things", LOGGING)
    outcome = alembic.run(sqlite, "-s", expected=TABLES).had(failed=1)
    assert "INFO  [alembic.runtime.migration]" in str(outcome.result.stderr)


CONFIGURE = """
if "connection" in config.attributes:
    context.configure(connection=config.attributes["connection"])
    with context.begin_transaction():
        context.run_migrations()
"""


def test_sys_path_stays_as_it_was(alembic: Project, sqlite: Target) -> None:
    alembic.write(
        "conftest.py", "import sys\nBEFORE = []\ndef pytest_runtest_setup(): BEFORE[:] = sys.path"
    )
    alembic.tests(
        """
        import sys
        def test_it(asyncdb_url, pytestconfig):
            (conftest,) = [p for p in pytestconfig.pluginmanager.get_plugins() if hasattr(p, "BEFORE")]
            assert sys.path == conftest.BEFORE
        """
    )
    alembic.run(sqlite, expected=TABLES).passed(1)


# Other databases.

SETTINGS = 'config.set_main_option("sqlalchemy.url", {url!r})\ntarget_metadata = None'


def foreign(project: Project) -> str:
    """A database of the application's, which is there and has no tables."""
    return f"sqlite+aiosqlite:///{project.path / 'real.db'}"


@pytest.mark.parametrize("template", ["generic", "async"])
@pytest.mark.parametrize("swallowed", [False, True], ids=["", "swallowed"])
def test_an_env_py_with_a_url_of_its_own_is_refused(
    project: Project, sqlite: Target, template: str, swallowed: bool
) -> None:
    """Before it connects, and even if ``env.py`` goes on as if nothing had happened."""
    init(project, template)
    revision(project, "a", None, FIRST)
    env_py(project, "target_metadata = None", SETTINGS.format(url=foreign(project)))
    if swallowed:
        call = "else:\n    run_migrations_online()"
        env_py(project, call, "else:\n  try: run_migrations_online()\n  except Exception: pass")
    project.tests("async def test_it(asyncdb_session): pass\nasync def test_b(asyncdb_url): pass")
    outcome = project.run(sqlite, expected=None).had(errors=2)
    ours = next(line for line in outcome.result.outlines if "The tests' database is" in line)
    outcome.shows(
        f"""
        refused: env.py connects to another database (asyncdb_migrations in pytest.ini)

        Nothing was sent to {foreign(project)}.
        {ours.strip()}

        To fix this, do one of:
          - take the URL that is set: config.get_main_option("sqlalchemy.url")
          - take the connection that is given: config.attributes["connection"]
          - set the URL only where none is given: if "connection" not in config.attributes: config.set_main_option("sqlalchemy.url", …)
        """
    )
    assert not (project.path / "real.db").exists()


@pytest.mark.parametrize("template", ["generic", "async"])
def test_control_alembic_by_hand_migrates_that_database(
    project: Project, sqlite: Target, template: str
) -> None:
    """The naive recipe: a URL in the configuration, which ``env.py`` overrides."""
    init(project, template)
    revision(project, "a", None, FIRST)
    url = foreign(project).replace("+aiosqlite", "" if template == "generic" else "+aiosqlite")
    env_py(project, "target_metadata = None", SETTINGS.format(url=url))
    project.write(
        "conftest.py",
        """
        import pytest
        import alembic.command, alembic.config

        @pytest.fixture(scope="session")
        def asyncdb_migrate():
            def migrate(url):
                config = alembic.config.Config("alembic.ini")
                config.set_main_option("sqlalchemy.url", str(url).replace("%", "%%"))
                alembic.command.upgrade(config, "heads")
            return migrate
        """,
    )
    project.tests("def test_it(asyncdb_url): pass")
    project.run(sqlite, expected={}).had(passed=1)
    assert (project.path / "real.db").exists()


def test_the_remedy_for_a_url_of_its_own_works(alembic: Project, sqlite: Target) -> None:
    """The last one of the error's."""
    env_py(
        alembic,
        "target_metadata = None",
        f"""
if "connection" not in config.attributes:
    config.set_main_option("sqlalchemy.url", {foreign(alembic)!r})
target_metadata = None
""",
    )
    alembic.tests(AGREE)
    alembic.run(sqlite, expected=TABLES).passed(2)


def test_the_applications_own_engine_is_refused(alembic: Project, target: Target) -> None:
    """Also where it is named by ``asyncdb_app_engines``, and on another database of a server."""
    with naive_database(alembic, target) as url:
        alembic.write(
            "app/db.py",
            f"""
            from sqlalchemy.ext.asyncio import create_async_engine
            from sqlalchemy.pool import NullPool

            engine = create_async_engine({url!r}, poolclass=NullPool)
            """,
        )
        env_py(alembic, "target_metadata = None", "from app.db import engine as own")
        path = alembic.path / "migrations" / "env.py"
        text = path.read_text(encoding="utf-8").partition("def run_migrations_offline")[0]
        text += textwrap.dedent(
            """
            import asyncio

            def migrate(connection):
                context.configure(connection=connection)
                with context.begin_transaction():
                    context.run_migrations()

            async def main():
                async with own.connect() as connection:
                    await connection.run_sync(migrate)

            asyncio.run(main())
            """
        )
        path.write_text(text, encoding="utf-8")
        alembic.ini(asyncdb_app_engines="app.db:engine")
        alembic.tests("async def test_it(asyncdb_session): pass")
        outcome = alembic.run(target).had(errors=1)
        headline = "refused: env.py connects to another database (asyncdb_migrations in pytest.ini)"
        outcome.shows(headline)
        assert "secret" not in outcome.text


def test_a_thread_of_env_py_is_refused_too(alembic: Project, sqlite: Target) -> None:
    env_py(alembic, "target_metadata = None", SETTINGS.format(url=foreign(alembic)))
    env_py(
        alembic,
        "else:\n    run_migrations_online()",
        "else:\n    import threading\n    thread = threading.Thread(target=quietly)\n"
        "    thread.start()\n    thread.join()",
    )
    env_py(
        alembic,
        "if context.is_offline_mode():",
        "def quietly():\n    try: run_migrations_online()\n    except Exception: pass\n\n"
        "if context.is_offline_mode():",
    )
    alembic.tests("async def test_it(asyncdb_session): pass")
    headline = "refused: env.py connects to another database (asyncdb_migrations in pytest.ini)"
    alembic.run(sqlite).had(errors=1).shows(headline)


def test_other_threads_may_go_on_connecting(alembic: Project, sqlite: Target) -> None:
    """A thread that was there before has a database of its own."""
    alembic.write(
        "conftest.py",
        f"""
        import threading
        import pytest
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        ASKED, DONE = threading.Event(), threading.Event()

        def work():
            ASKED.wait(30)
            engine = create_engine("sqlite:///{alembic.path / "other.db"}", poolclass=NullPool)
            engine.connect().close()
            DONE.set()

        @pytest.fixture(scope="session", autouse=True)
        def thread():
            thread = threading.Thread(target=work)
            thread.start()
            yield
            thread.join()
        """,
    )
    env_py(
        alembic,
        "target_metadata = None",
        "import sys\n(other,) = [m for m in sys.modules.values() if hasattr(m, 'ASKED')]\n"
        "other.ASKED.set()\nassert other.DONE.wait(30)\ntarget_metadata = None",
    )
    alembic.tests(AGREE)
    alembic.run(sqlite, expected=TABLES).passed(2)


# Mistakes.


def usage_error(project: Project) -> str:
    result = project.pytester.runpytest_inprocess("-p", "no:randomly")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    return str(result.stderr).removeprefix("ERROR: ").strip()


def test_a_missing_file_ends_the_run_before_it_begins(project: Project) -> None:
    project.ini(asyncdb_migrations="db/alembic.ini")
    assert (
        usage_error(project)
        == textwrap.dedent(
            f"""
        there is no file 'db/alembic.ini' (asyncdb_migrations in pytest.ini)

        Looked for {project.path}/db/alembic.ini.

        To fix this: name an alembic.ini or pyproject.toml, relative to the ini file's folder
        """
        ).strip()
    )


@pytest.mark.parametrize("name", ["", "main="])
def test_two_files_for_one_database_are_refused(project: Project, name: str) -> None:
    """The first was ignored. Control: one of them, or one for each database, is read."""
    for file in ("alembic.ini", "audit.ini"):
        project.write(file, "[alembic]")
    project.ini(asyncdb_migrations=f"{name}alembic.ini, {name}audit.ini")
    assert (
        usage_error(project)
        == textwrap.dedent(
            """
        one database has two files: 'alembic.ini', 'audit.ini' (asyncdb_migrations in pytest.ini)

        To fix this, do one of:
          - name one of them
          - run both in a function: the fixture asyncdb_migrate
        """
        ).strip()
    )
    project.tests("def test_it(): pass")
    for accepted in ("audit.ini", f"{name}alembic.ini, other=audit.ini"):
        project.ini(asyncdb_migrations=accepted)
        project.pytester.runpytest_inprocess("--asyncdb=sqlite").assert_outcomes(passed=1)


def test_a_pattern_of_asyncdb_inputs_that_matches_nothing_is_told(project: Project) -> None:
    """A misspelt name would let a stale template stay."""
    project.ini(asyncdb_inputs="app schema/*.sql")
    assert (
        usage_error(project)
        == textwrap.dedent(
            f"""
        no file matches 'schema/*.sql' (asyncdb_inputs in pytest.ini)

        Patterns are relative to {project.path}.

        To fix this: name files or folders, such as schema/*.sql or migrations
        """
        ).strip()
    )


def test_asyncdb_inputs_may_be_a_toml_list(project: Project) -> None:
    text = '[tool.pytest.ini_options]\nasyncio_default_fixture_loop_scope = "function"\nasyncdb_inputs = ["app", "none.sql"]\n'
    (project.path / "pytest.ini").unlink(missing_ok=True)
    project.write("pyproject.toml", text)
    assert usage_error(project).startswith(
        "no file matches 'none.sql' (asyncdb_inputs in pyproject"
    )


def test_alembic_is_an_extra(
    alembic: Project, sqlite: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "alembic" else real(name)
    )
    alembic.tests("def test_it(asyncdb_url): pass")
    alembic.run(sqlite).had(errors=1).shows(
        """
        the package alembic is not installed (asyncdb_migrations in pytest.ini)

        To fix this: pip install "pytest-asyncdb[alembic]"
        """
    )


@pytest.mark.parametrize(
    ("ini", "seen"),
    [
        (
            "[alembic]\nsqlalchemy.url = x\n",
            "CommandError: No 'script_location' key found in configuration.",
        ),
        (
            "[alembic]\nscript_location = nowhere\n",
            "CommandError: Path doesn't exist: nowhere.  Please use the 'init' command to create a new scripts folder.",
        ),
        (
            "[alembic]\nscript_location = migrations\nprepend_sys_path = .\n",
            "DeprecationWarning: No path_separator found in configuration; falling back to legacy splitting on spaces, commas, and colons for prepend_sys_path.  Consider adding path_separator=os to Alembic config.",
        ),
    ],
    ids=["no-location", "no-folder", "old"],
)
def test_a_configuration_that_alembic_cannot_read(
    alembic: Project, sqlite: Target, ini: str, seen: str
) -> None:
    alembic.write("alembic.ini", ini)
    alembic.tests("def test_it(asyncdb_url): pass")
    alembic.run(sqlite).had(errors=1).shows(
        f"""
        Alembic cannot read the migrations of 'alembic.ini' (asyncdb_migrations in pytest.ini)

        {seen}

        To fix this: make this work first: alembic -c alembic.ini history
        """
    )


def test_a_revision_that_cannot_be_read(alembic: Project, sqlite: Target) -> None:
    alembic.write("migrations/versions/c.py", "revision = 'c'\ndown_revision = 1 / 0\n")
    alembic.tests("def test_it(asyncdb_url): pass")
    alembic.run(sqlite).had(errors=1).shows(
        """
        Alembic cannot read the migrations of 'alembic.ini' (asyncdb_migrations in pytest.ini)

        ZeroDivisionError: division by zero
        at migrations/versions/c.py:2

        To fix this: make this work first: alembic -c alembic.ini history
        """
    )


def test_no_revision_at_all(project: Project, sqlite: Target) -> None:
    init(project)
    project.tests("def test_it(asyncdb_url): pass")
    project.run(sqlite).had(errors=1).shows(
        f"""
        the migrations of 'alembic.ini' have no revision (asyncdb_migrations in pytest.ini)

        Looked in {project.path}/migrations.

        To fix this, do one of:
          - write one: alembic -c alembic.ini revision --autogenerate -m "first"
          - leave asyncdb_migrations out: create_all builds the tables
        """
    )


@pytest.mark.parametrize("template", ["generic", "async"])
def test_a_migration_that_fails_says_where(project: Project, target: Target, template: str) -> None:
    init(project, template)
    revision(project, "a", None, FIRST)
    revision(project, "b", "a", 'raise RuntimeError("no such luck")')
    project.tests("def test_it(asyncdb_url): pass\ndef test_again(asyncdb_url): pass")
    label = {"sqlite": "SQLite", "postgres": "PostgreSQL", "mysql": "MySQL", "mariadb": "MariaDB"}
    name = label[target.backend]
    project.run(target).had(errors=2).shows(
        f"""
        the migration failed on {name}

        RuntimeError: no such luck
        at migrations/versions/b.py:6

        To fix this: make the migrations run on {name}, or keep their tests off it: @pytest.mark.asyncdb(exclude=…)
        """
    )
