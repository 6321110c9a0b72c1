"""What a newcomer reads when the set-up of tests fails: whole texts, provoked on real servers."""

from __future__ import annotations

import asyncio
import json
import re
import sys

import pytest
from fix_project import WITHOUT, Outcome, Project
from fix_servers import Servers, Target
from fix_suite import EACH_DRIVER, WORDS
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine

IT = "async def test_it(asyncdb_session): pass"

#: What each driver says of a password that its server refuses.
REFUSED = {
    "asyncpg": r'\w*Error: password authentication failed for user "{}"',
    "psycopg": "OperationalError: connection failed: .*"
    'password authentication failed for user "{}".*',
    "asyncmy": r"OperationalError: \(1045, .*Access denied for user '{}'@.*",
    "aiomysql": r"OperationalError: \(1045, .*Access denied for user '{}'@.*",
}
LABELS = {"postgres": "PostgreSQL", "mysql": "MySQL", "mariadb": "MariaDB"}


@pytest.mark.everyday(*EACH_DRIVER)
@pytest.mark.parametrize("target", WORDS[1:], indirect=True)
def test_a_wrong_password_in_a_url(project: Project, target: Target) -> None:
    """The server has answered; neither password is shown."""
    assert target.server is not None
    url = target.server.set(password="hunter2%")
    project.tests(IT)
    result = project.pytester.runpytest_inprocess(
        *(*WITHOUT, "--color=no", f"--asyncdb={target.word}"),
        f"--asyncdb-url={url.render_as_string(hide_password=False)}",
        f"--asyncdb-allow-hosts={url.host}",
    )
    result.assert_outcomes(errors=1)
    lines = result.outlines
    began = lines.index(
        f"the {LABELS[target.backend]} server refused the user or the password (--asyncdb-url)"
    )
    seen = lines.pop(began + 4).removeprefix("  - ")
    assert re.fullmatch(REFUSED[target.driver].format(url.username), seen), seen
    shown = re.sub(r"asked for [\d.]+ s", "asked for # s", "\n".join(lines[began + 1 : began + 8]))
    assert shown == (
        "\n"
        "Seen:\n"
        f"  - asked for # s: {url.render_as_string()}\n"
        "\n"
        "To fix this, do one of:\n"
        "  - correct the user and the password in --asyncdb-url; special characters are "
        "percent-encoded: urllib.parse.quote(password, safe='')\n"
        "  - or leave --asyncdb-url out and let a server be started: --asyncdb-server=auto"
    )
    assert "hunter2" not in str(result.stdout)


async def connect(url: URL) -> None:
    async with create_async_engine(url).connect():
        pass


@pytest.mark.parametrize("target", ["postgres+asyncpg"], indirect=True)
def test_an_argument_in_a_url_that_the_driver_does_not_have(
    project: Project, target: Target
) -> None:
    """The plain engine refuses it, too; nobody waits for an answer."""
    assert target.server is not None
    url = target.server.update_query_dict({"sslmode": "require"})
    with pytest.raises(TypeError, match="unexpected keyword argument 'sslmode'"):
        asyncio.run(connect(url))
    project.tests(IT)
    result = project.pytester.runpytest_inprocess(
        *(*WITHOUT, "--color=no", f"--asyncdb={target.word}"),
        f"--asyncdb-url={url.render_as_string(hide_password=False)}",
        f"--asyncdb-allow-hosts={url.host}",
    )
    result.assert_outcomes(errors=1)
    began = result.outlines.index(
        "the PostgreSQL server cannot be reached with these arguments (--asyncdb-url)"
    )
    shown = result.outlines[began + 3 : began + 8]
    assert re.fullmatch(r"  - asked for [0-4]\.\d s: .*\?sslmode=require", shown[0])
    assert shown[1] == "  - TypeError: connect() got an unexpected keyword argument 'sslmode'"
    remedy = "correct what follows ? in --asyncdb-url; asyncpg's is ssl=, not sslmode="
    assert shown[4] == f"  - {remedy}"


MODELS = """
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.types import UserDefinedType


class Shape(UserDefinedType):
    def get_col_spec(self, **_):
        return "SHAPE"


metadata = MetaData()
{}
"""
TABLE = 'Table("t", metadata, Column("id", Integer, primary_key=True), Column("x", {}))'
ELSEWHERE = 'Table("t", metadata, Column("id", Integer, primary_key=True), schema="nowhere")'
KEEP_OFF = "or keep their tests off it: @pytest.mark.asyncdb(exclude=…)"


def run(project: Project, target: Target, models: str) -> Outcome:
    """A run with the set-up error of other models, which never blames their portability."""
    project.write("app/models.py", MODELS.format(models))
    project.ini(asyncdb_metadata="app.models:metadata")
    project.write("test_it.py", IT)
    outcome = project.run(target, expected={"t": []}).had(errors=1)
    assert "portable" not in outcome.text
    return outcome


def test_a_type_that_the_server_lacks(project: Project, servers: Servers) -> None:
    """Perhaps of an extension."""
    outcome = run(project, servers.target("postgres+asyncpg"), TABLE.format("Shape"))
    assert re.search(
        r'^create_all failed on PostgreSQL\n\n.* type "shape" does not exist\n', outcome.text, re.M
    )
    outcome.shows(
        f"""
        To fix this, do one of:
          - if an extension has it, name that in the ini file: asyncdb_extensions = NAME
          - make create_all run on PostgreSQL, {KEEP_OFF}
        """
    )


@pytest.mark.parametrize("word", ["mysql+aiomysql", "mariadb+asyncmy"])
def test_a_schema_that_is_another_database(project: Project, servers: Servers, word: str) -> None:
    target = servers.target(word)
    label = LABELS[target.backend]
    run(project, target, ELSEWHERE).shows(
        f"""
        the table nowhere.t is not in the test's database ({label})

        On {label}, schema='nowhere' names another database. Tests use only their own.

        To fix this, do one of:
          - lead the schema to the test's database: let asyncdb_engine_options return {{'execution_options': {{'schema_translate_map': {{'nowhere': None}}}}}}
          - keep the tests off {label}: @pytest.mark.asyncdb(exclude=…)
        """
    )


def test_a_schema_that_a_migration_lacks(project: Project, servers: Servers) -> None:
    project.write(
        "conftest.py",
        """
        import pytest
        from sqlalchemy import text

        @pytest.fixture(scope="session")
        def asyncdb_migrate():
            async def migrate(connection):
                await connection.execute(text("CREATE TABLE nowhere.t (id INTEGER)"))
            return migrate
        """,
    )
    outcome = run(project, servers.target("postgres+asyncpg"), TABLE.format("Integer"))
    assert re.search(
        r'^the migration failed on PostgreSQL\n\n.* schema "nowhere" does not exist\n'
        r"\[SQL: CREATE TABLE nowhere.t \(id INTEGER\)\]\n",
        outcome.text,
        re.M,
    )
    outcome.shows(f"To fix this: make the migrations run on PostgreSQL, {KEEP_OFF}")


def test_an_extension_that_the_server_lacks(project: Project, servers: Servers) -> None:
    project.ini(asyncdb_extensions="nowhere")
    outcome = run(project, servers.target("postgres+asyncpg"), TABLE.format("Integer"))
    assert "PostgreSQL cannot create the extension 'nowhere' (asyncdb_extensions)" in outcome.text
    assert "  - name one that this server has, or leave it out" in outcome.text


def test_a_database_that_the_server_lacks(project: Project, servers: Servers) -> None:
    """The maintenance database of a URL."""
    target = servers.target("postgres+asyncpg")
    assert target.server is not None
    url = target.server.set(database="nowhere")
    project.tests(IT)
    result = project.pytester.runpytest_inprocess(
        *(*WITHOUT, "--color=no", "--asyncdb=postgres"),
        f"--asyncdb-url={url.render_as_string(hide_password=False)}",
        f"--asyncdb-allow-hosts={url.host}",
    )
    result.assert_outcomes(errors=1)
    shown = re.sub(r"asked for [\d.]+ s", "asked for # s", "\n".join(result.outlines))
    shown = re.sub(r"\w+Error: ", "Error: ", shown)  # SQLAlchemy's versions differ
    assert (
        "the PostgreSQL server refused the database (--asyncdb-url)\n"
        "\n"
        "Seen:\n"
        f"  - asked for # s: {url.render_as_string()}\n"
        '  - Error: database "nowhere" does not exist\n'
        "\n"
        "To fix this, do one of:\n"
        "  - name a database in --asyncdb-url to which the account may connect\n"
        "  - or leave --asyncdb-url out and let a server be started: --asyncdb-server=auto"
    ) in shown


def test_a_failed_set_up_is_no_difference_between_backends(
    project: Project, servers: Servers
) -> None:
    """Of some tests only: the others are compared."""
    project.write("app/network.py", MODELS.format(TABLE.format("INET")))
    project.write(
        "network/conftest.py",
        """
        import pytest

        @pytest.fixture(scope="session")
        def asyncdb_metadata():
            from app.network import metadata
            return metadata
        """,
    )
    project.write("network/test_network.py", IT)
    project.tests(IT)
    words = servers.arguments("sqlite", "postgres+asyncpg")
    result = project.pytester.runpytest_inprocess(*WITHOUT, *words, "--asyncdb-report=x.json")
    result.assert_outcomes(passed=3, errors=1)
    outcome = Outcome(result, None)  # type: ignore[arg-type]
    outcome.shows(f"To fix this: make the models portable to SQLite, {KEEP_OFF}")
    assert "between backends" not in outcome.text
    report = json.loads((project.path / "x.json").read_text(encoding="utf-8"))
    assert report["differences"] == {}
    assert report["left_out"] == []
    on = {one["test"]: one["on"] for one in report["tests"]}["network/test_network.py::test_it"]
    assert on["sqlite"]["error"]["cause"] == "set-up"
    assert on["postgres+asyncpg"]["outcome"] == "passed"


LATE = """
from sqlalchemy.orm import Mapped, mapped_column
from app.models import Base

class Tag(Base):
    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
"""


def test_a_table_that_a_test_imports_after_the_schema_was_built(
    project: Project, servers: Servers
) -> None:
    """It is missing on the first backend only, which is no difference between backends."""
    project.write("app/tags.py", LATE)
    project.tests(
        """
        async def test_it(asyncdb_session):
            from app.tags import Tag

            await asyncdb_session.scalars(select(Tag))
        """,
        "async def test_other(asyncdb_session):"
        "    await asyncdb_session.execute(text('SELECT * FROM nowhere'))",
    )
    words = servers.arguments("sqlite", "postgres+asyncpg")
    result = project.pytester.runpytest_inprocess(*WITHOUT, *words, "--color=no", "-rA")
    result.assert_outcomes(passed=1, failed=3)
    outcome = Outcome(result, None)  # type: ignore[arg-type]
    outcome.shows(
        """
        It means: the table tags was added to asyncdb_metadata after the schema was
        built
        To fix this: import its module in conftest.py, or name it, too: asyncdb_metadata
        = …, module:Base
        """
    )
    assert "between backends" not in outcome.text
    assert outcome.text.count("the table tags was added") == 1


#: How warnings are made errors.
ERRORS = {"ini": {"filterwarnings": "error"}, "flag": {"filterwarnings": None}}


@pytest.mark.parametrize("way", ERRORS)
def test_an_unset_scope_of_fixtures_loops_ends_no_run(project: Project, way: str) -> None:
    """pytest-asyncio warns of it in each; the control is a run without the plugin."""
    flag = ("-W", "error") if way == "flag" else ()
    project.ini(asyncio_default_fixture_loop_scope=None, **ERRORS[way])
    project.tests("def test_it(): pass")
    project.pytester.runpytest_inprocess(*WITHOUT, *flag).assert_outcomes(passed=1)
    project.ini(asyncdb_metadata=None)
    result = project.pytester.runpytest_inprocess(*WITHOUT, *flag, "-p", "no:asyncdb")
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    assert 'option "asyncio_default_fixture_loop_scope" is unset' in str(result.stderr)


def test_it_is_not_the_first_thing_that_a_newcomer_sees(project: Project) -> None:
    project.ini(asyncio_default_fixture_loop_scope=None, filterwarnings=None)
    project.tests(IT)
    result = project.pytester.run(sys.executable, "-m", "pytest", *WITHOUT, "--asyncdb=sqlite")
    assert result.errlines == []
    result.assert_outcomes(passed=1)
