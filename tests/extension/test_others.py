"""A package with two backends, as others write them, passes the exported contract.

``others/`` is such a package: PostgreSQL's schemas as databases (by URL only, without templates, with
another dialect and another spelling of savepoints), SQLite files in this process, and a server
provider.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from fix_example import run, run_on
from fix_observer import left_behind
from fix_project import Project
from fix_servers import Servers, Target

OTHERS = "../extension/others"
PACKAGE = Path(__file__).parent / "others" / "asyncdb_others"
#: Every module that an extension may import of the plugin.
PUBLIC = ("pytest_asyncdb.abc", "pytest_asyncdb.errors", "pytest_asyncdb.backends.")
#: The number of tests in the contract, and of those that are for real connections only.
TESTS, LOCKS = 75, 6


def test_an_extension_imports_what_is_public(tmp_path: Path) -> None:
    """``abc``, ``errors``, and other backends as examples; nothing that begins with ``_``."""
    imported = {name for path in PACKAGE.glob("*.py") for name in _imported(path)}
    assert imported
    assert {name for name in imported if not name.startswith(PUBLIC) or "._" in name} == set()
    private = tmp_path / "private.py"  # control
    private.write_text("from pytest_asyncdb.abc import _Selector\n", encoding="utf-8")
    assert [*_imported(private)] == ["pytest_asyncdb.abc._Selector"]


def _imported(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in found if name.startswith("pytest_asyncdb")]


def test_a_backend_in_this_process_passes_the_contract() -> None:
    """Three strategies, each test twice; then its files are gone."""
    output = run(OTHERS, "--asyncdb=files")
    assert f"{TESTS - LOCKS} passed, {LOCKS} skipped" in output


@pytest.mark.complete
def test_a_backend_by_url_passes_the_contract(servers: Servers) -> None:
    """It leaves no schema on its server."""
    target = servers.target("postgres+asyncpg")
    assert target.server is not None
    url = target.server.set(drivername="pgschema").render_as_string(hide_password=False)
    hosts = f"--asyncdb-allow-hosts={target.server.host}"
    output = run(OTHERS, "--asyncdb=pgschema", f"--asyncdb-url={url}", hosts)
    assert f"{TESTS - 2} passed, 2 skipped" in output
    schemas = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'asyncdb%'"
    assert target.observer.query(schemas) == []
    assert left_behind(target.observer, output) == set()


@pytest.mark.complete
def test_a_server_provider_lends_its_server(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To tests of the contract, in every strategy. Control: without a server it gives the reason."""
    target = servers.target("postgres+asyncpg")
    assert target.server is not None
    arguments = (
        OTHERS,
        "--asyncdb=postgres+asyncpg",
        "--asyncdb-server=lent",
        "-k",
        "test_commits",
    )
    assert "  - lent: OTHERS_LENT_SERVER is not set" in run(*arguments, passes=False)
    url = target.server.set(drivername="postgresql").render_as_string(hide_password=False)
    monkeypatch.setenv("OTHERS_LENT_SERVER", url)
    output = run(*arguments[:-1], "commits or definitions or outlives", "-v")
    assert "lent (OTHERS_LENT_SERVER)" in output
    assert "13 passed" in output
    assert left_behind(target.observer, output) == set()


@pytest.mark.complete
def test_the_backends_of_the_plugin_pass_the_contract(target: Target) -> None:
    """Each word, on the server that other tests use, too."""
    summary = run_on(OTHERS, [target]).splitlines()[-1]
    assert sum(map(int, re.findall(r"(\d+) (?:passed|skipped)", summary))) == TESTS


BROKEN = """
from pytest_asyncdb.backends.sqlite import Aiosqlite, SQLite, SQLiteRestorer


class Forgetful(SQLiteRestorer):
    async def changed(self):
        return []


class KeepsRows(SQLite):
    '''Its restorer sees no change.'''
    name, label = "broken", "Broken"

    def restorer(self, sql, database, template):
        return Forgetful(database.keeper, template.keeper)


class Unclean(Aiosqlite):
    async def reset_session(self, connection, first, then):
        await super().reset_session(connection, first, then)
        return True


class KeepsSessions(SQLite):
    '''Its driver does not notice what changed the session.'''
    name, label, drivers = "broken", "Broken", (Unclean,)


class LosesCopies(SQLite):
    '''Its copies are empty.'''
    name, label = "broken", "Broken"

    def hold(self, url, source=None):
        return super().hold(url)
"""


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        ("KeepsRows", "commits and reset"),
        ("KeepsSessions", "sessions_end and reset"),
        ("LosesCopies", "commits and copy"),
    ],
)
def test_a_broken_backend_fails_the_contract(project: Project, broken: str, test: str) -> None:
    """The control: the contract finds what each of these does wrong, and nothing in SQLite's own."""
    project.write("broken.py", BROKEN)
    project.write(
        "conftest.py",
        f"""
        def pytest_asyncdb_register(registry):
            registry.add_backend("broken", "broken:{broken}")
        """,
    )
    project.write(
        "test_contract.py",
        """
        from pytest_asyncdb.testing import BackendContract

        class TestContract(BackendContract):
            pass
        """,
    )
    arguments = ("-p", "no:randomly", "-k", test)
    result = project.pytester.runpytest_inprocess(*arguments, "--asyncdb=broken")
    outcomes = result.parseoutcomes()
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) > 0
    result = project.pytester.runpytest_inprocess(*arguments, "--asyncdb=sqlite")
    result.assert_outcomes(passed=2, deselected=TESTS - 2)


def test_a_new_database_is_prepared_before_its_schema(project: Project, servers: Servers) -> None:
    """``after_create`` runs in each template, also in an empty one; ``super()`` creates the
    extensions. An error of the hook names it."""
    project.write(
        "prepared.py",
        """
        from pytest_asyncdb.backends.postgres import Postgres

        class Prepared(Postgres):
            name, label = "prepared", "Prepared PostgreSQL"

            async def after_create(self, sql, server, extensions):
                await super().after_create(sql, server, extensions)
                ((version,),) = await sql.fetch("SELECT current_setting('server_version_num')")
                assert int(version) > 100_000
                await sql.script(["CREATE DOMAIN positive AS integer CHECK (VALUE > 0)"])

        class Wrong(Postgres):
            name, label = "wrong", "Wrong PostgreSQL"

            async def after_create(self, sql, server, extensions):
                await sql.script(["CREATE NONSENSE"])
        """,
    )
    project.write(
        "conftest.py",
        """
        def pytest_asyncdb_register(registry):
            registry.add_backend("prepared", "prepared:Prepared")
            registry.add_backend("wrong", "prepared:Wrong")
        """,
    )
    project.ini(asyncdb_metadata="models:Base")
    project.write(
        "models.py",
        """
        from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
        from sqlalchemy.types import UserDefinedType

        class Positive(UserDefinedType):
            cache_ok = True

            def get_col_spec(self, **kw):
                return "positive"

        class Base(DeclarativeBase):
            pass

        class Price(Base):
            __tablename__ = "price"
            amount: Mapped[int] = mapped_column(Positive, primary_key=True)
        """,
    )
    project.tests(
        """
        @pytest.mark.parametrize("strategy", [
            pytest.param(word, marks=pytest.mark.asyncdb(isolation=word))
            for word in ("rollback", "reset", "copy")])
        async def test_schema(asyncdb_session, strategy):
            await asyncdb_session.execute(text("INSERT INTO price VALUES (1)"))
            with pytest.raises(IntegrityError):
                await asyncdb_session.execute(text("INSERT INTO price VALUES (0)"))

        @pytest.mark.asyncdb(schema=False)
        async def test_empty(asyncdb_session):
            assert await asyncdb_session.scalar(text("SELECT 2::positive")) == 2
        """
    )
    target = servers.target("postgres+asyncpg")
    assert target.server is not None

    def inner(name: str) -> pytest.RunResult:
        return project.pytester.runpytest_inprocess(
            *("-p", "no:randomly", f"--asyncdb={name}", f"--asyncdb-url={name}={target.url}"),
            f"--asyncdb-allow-hosts={target.server and target.server.host}",
        )

    inner("prepared").assert_outcomes(passed=4)
    result = inner("wrong")
    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines(
        [
            "after_create failed on Wrong PostgreSQL",
            '*syntax error at or near "NONSENSE"*',
            "To fix this: correct Wrong.after_create() of the backend wrong",
        ]
    )
