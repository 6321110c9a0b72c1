"""The doctor, in projects that are well and in some that are not."""

from __future__ import annotations

import pytest
from fix_project import QUIET, Project


def doctor(project: Project, *arguments: str) -> pytest.RunResult:
    return project.pytester.runpytest_inprocess(*QUIET, "--asyncdb-doctor", *arguments)


def shows(result: pytest.RunResult, text: str) -> None:
    """Whole lines, in a row; how far in they stand is not compared."""
    expected = [line.strip() for line in text.strip().splitlines()]
    lines = [line.strip() for line in result.outlines]
    window = range(len(lines) - len(expected) + 1)
    assert any(lines[n : n + len(expected)] == expected for n in window), str(result.stdout)


def test_a_healthy_project_has_nothing_wrong(project: Project) -> None:
    """No test runs, and the exit code is 0."""
    project.tests("def test_it(): raise SystemExit('a test ran')")
    result = doctor(project, "--asyncdb=sqlite")
    assert result.ret == 0, str(result.stdout)
    shows(result, "  ok     asyncio_mode = auto: every async test runs")
    shows(result, "  ok     asyncdb_metadata = app.models:Base: can be imported")
    assert "  ok     sqlite: SQLite" in str(result.stdout)
    assert result.outlines[0] == "asyncdb doctor"
    assert result.outlines[-1] == "nothing is wrong"


def test_what_the_ini_names_and_is_not_there_is_wrong(project: Project) -> None:
    """All of it at once; a run would stop at the first."""
    project.ini(asyncdb_metadata="shop.models:Base", asyncdb_app_engines="app.db:engine")
    project.write("app/db.py", "raise RuntimeError('no settings')")
    result = doctor(project)
    assert result.ret == 1
    shows(
        result,
        """
          wrong  asyncdb_metadata='shop.models:Base': there is no module 'shop'
                 (asyncdb_metadata in pytest.ini)
                 To fix this, do one of:
                 - add its folder to the path: pythonpath = . in the ini file
                 - install the project: pip install -e .
        """,
    )
    assert "no settings" in str(result.stdout)
    assert result.outlines[-1] == "2 things are wrong"


def test_a_server_that_cannot_be_had_is_wrong(project: Project) -> None:
    """Only for a backend of the run."""
    result = doctor(project, "--asyncdb=postgres@9.1", "--asyncdb-server=local")
    assert result.ret == 1
    shows(
        result,
        """
          wrong  no PostgreSQL server is available (--asyncdb=postgres@9.1)
                 Tried, in this order:
        """,
    )
    assert doctor(project, "--asyncdb=sqlite", "--asyncdb-server=url").ret == 0


def test_an_unset_scope_of_fixtures_loops_is_a_note(project: Project) -> None:
    """The doctor says what pytest-asyncio would warn of in every run."""
    project.ini(asyncio_default_fixture_loop_scope=None)
    result = doctor(project, "--asyncdb=sqlite")
    assert result.ret == 0
    shows(
        result,
        """
          note   one event loop for each function; for an async fixture, the loop of its
                 own scope
                 later versions of pytest-asyncio take the loop of the function
                 to fix this: asyncio_default_fixture_loop_scope = function in the ini
                 file
        """,
    )


def test_no_line_is_longer_than_80_columns(project: Project) -> None:
    """But for words that are longer."""
    for line in doctor(project, "--asyncdb=all").outlines:
        assert len(line) <= 80 or " " not in line.strip()


def test_the_password_of_a_url_is_not_shown(project: Project) -> None:
    url = "postgresql://ada:s3cret@127.0.0.1:1/x"
    result = doctor(project, "--asyncdb=postgres", f"--asyncdb-url={url}")
    assert "s3cret" not in str(result.stdout)


def test_the_backend_is_in_junits_properties(project: Project) -> None:
    """Of database tests; others have none."""
    project.tests("async def test_a(asyncdb_session): pass", "def test_b(): pass")
    project.pytester.runpytest_inprocess(*QUIET, "--asyncdb=sqlite+aiosqlite", "--junit-xml=x.xml")
    text = (project.path / "x.xml").read_text(encoding="utf-8")
    assert text.count("<testcase") == 2
    assert text.count('<property name="asyncdb_backend" value="sqlite+aiosqlite"') == 1
