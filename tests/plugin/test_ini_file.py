"""Lines of the ini file in every format that pytest reads, and lines that are wrong."""

from __future__ import annotations

import json

import pytest
from fix_project import INI, Project
from fix_servers import Servers, Target
from plugin.test_mistakes import text, usage_error

#: What the file is called, and its table.
TOML = {"pyproject.toml": "tool.pytest.ini_options"}
if pytest.version_tuple >= (9, 0):
    TOML |= {"pytest.toml": "pytest", "./pyproject.toml": "tool.pytest"}

TEST = """
async def test_it(asyncdb_session):
    from app.db import engine, other

    await add(asyncdb_session, "Ada")
    await asyncdb_session.commit()
    assert engine.url.database != "never"
    assert other.url.database == "other"
"""


@pytest.fixture
def sqlite(servers: Servers) -> Target:
    return servers.target("sqlite")


def write_toml(project: Project, file: str, **values: object) -> None:
    """Replace ``pytest.ini`` by *file*; JSON's texts, lists and booleans are TOML's."""
    (project.path / "pytest.ini").unlink()
    lists = {"pythonpath": ["."], "filterwarnings": ["error"]}
    lines = [f"{key} = {json.dumps(value)}" for key, value in {**INI, **lists, **values}.items()]
    project.write(file, f"[{TOML[file]}]\n" + "\n".join(lines) + "\n")


@pytest.mark.parametrize("form", ["lists", "texts"])
@pytest.mark.parametrize("file", TOML)
def test_toml_gives_lists_texts_and_booleans(
    project: Project, sqlite: Target, file: str, form: str
) -> None:
    values = {
        "asyncdb_backends": ["sqlite", "postgres"],
        "asyncdb_urls": ["postgres=postgresql://one.example.com", "mysql://two.example.com"],
        "asyncdb_allow_hosts": ["one.example.com", "two.example.com"],
        "asyncdb_metadata": ["app.models:Base"],
        "asyncdb_app_engines": ["app.db:engine", "-app.db:other"],
    }
    if form == "texts":
        join = {"asyncdb_urls": " "}
        texts = {key: join.get(key, ", ").join(value) for key, value in values.items()}
        write_toml(project, file, asyncdb_reuse="no", **texts)
    else:
        write_toml(project, file, asyncdb_reuse=False, **values)
    project.write(
        "app/db.py",
        """
        from sqlalchemy.ext.asyncio import create_async_engine

        engine = create_async_engine("sqlite+aiosqlite:///never")
        other = create_async_engine("sqlite+aiosqlite:///other")
        """,
    )
    project.tests(TEST)
    result = project.pytester.runpytest_inprocess("-p", "no:randomly", "-k", "sqlite")
    result.assert_outcomes(passed=1, deselected=1)


def test_an_ini_file_gives_lines(project: Project, sqlite: Target) -> None:
    project.ini(asyncdb_backends="\n  sqlite\n  postgres", asyncdb_server="\n  local\n  mysql=url")
    project.tests("async def test_it(asyncdb_session): pass")
    result = project.pytester.runpytest_inprocess("-p", "no:randomly", "-k", "sqlite")
    result.assert_outcomes(passed=1, deselected=1)


def test_a_boolean_that_is_none_is_refused(project: Project) -> None:
    project.ini(asyncdb_reuse="perhaps")
    assert usage_error(project) == text(
        """
        unknown value of asyncdb_reuse 'perhaps' (asyncdb_reuse in pytest.ini)

        Known: true, yes, on, 1, false, no, off, 0.

        To fix this: use one of the known words in asyncdb_reuse in pytest.ini
        """
    )


def test_a_misspelt_line_is_named_with_the_near_miss(project: Project) -> None:
    project.ini(asyncdb_metdata="app.models:Base")
    assert usage_error(project) == text(
        """
        unknown option 'asyncdb_metdata' (did you mean 'asyncdb_metadata'?) (pytest.ini)

        Known: asyncdb_backends, asyncdb_urls, asyncdb_allow_hosts, asyncdb_server, asyncdb_image, asyncdb_isolation, asyncdb_missing, asyncdb_reuse, asyncdb_sql, asyncdb_metadata, asyncdb_databases, asyncdb_migrations, asyncdb_seed, asyncdb_inputs, asyncdb_extensions, asyncdb_server_settings, asyncdb_app_engines, asyncdb_other_engines.

        To fix this: correct the name, or delete the line
        """
    )


def test_the_word_of_the_command_line_is_answered_with_the_line_of_the_ini_file(
    project: Project,
) -> None:
    """The option is ``--asyncdb``."""
    project.ini(asyncdb="sqlite")
    near = "unknown option 'asyncdb' (did you mean 'asyncdb_backends'?) (pytest.ini)"
    assert usage_error(project).startswith(near)


def test_a_line_of_another_plugin_is_not_ours(project: Project, sqlite: Target) -> None:
    project.ini(asyncdb_of_another="1")
    project.write(
        "conftest.py",
        """
        def pytest_addoption(parser):
            parser.addini("asyncdb_of_another", "help")
        """,
    )
    project.tests("async def test_it(asyncdb_session): pass")
    project.run(sqlite).passed(1)


def test_an_empty_url_in_the_environment_is_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCDB_POSTGRES_URL", " ")
    assert usage_error(project) == text(
        """
        ASYNCDB_POSTGRES_URL is empty

        To fix this: give a URL, or unset it: unset ASYNCDB_POSTGRES_URL
        """
    )
