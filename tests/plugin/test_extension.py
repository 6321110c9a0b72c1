"""What authors of third-party backends meet."""

from __future__ import annotations

import json

import pytest
from fix_project import Project

BACKEND = """
from pytest_asyncdb.backends.postgres import Postgres
from pytest_asyncdb.backends.sqlite import Aiosqlite, SQLite


class Standard(Aiosqlite):
    module = "sqlite3"  # of the standard library, so of no distribution


class Lite(SQLite):
    name = "lite"
    label = "Lite"
    drivers = (Standard,)


class OtherImage(Postgres):
    name = "pgvector"
    label = "PostgreSQL with vectors"


class UrlOnly(Postgres):
    name = "urlonly"
    label = "Company DB"
    schemes = ("urlonly",)
    local = container = None


class Missing(Aiosqlite):
    name = "others"
    module = "no_such_module"
    extra = ""


class NotInstalled(SQLite):
    name = "notinstalled"
    label = "Not installed"
    drivers = (Missing,)
"""


@pytest.fixture
def extension(project: Project) -> Project:
    project.write("our_backend.py", BACKEND)
    project.write(
        "conftest.py",
        """
        def pytest_asyncdb_register(registry):
            registry.add_backend("lite", "our_backend:Lite")
            registry.add_backend("pgvector", "our_backend:OtherImage")
            registry.add_backend("urlonly", "our_backend:UrlOnly")
            registry.add_backend("notinstalled", "our_backend:NotInstalled")
        """,
    )
    project.tests("async def test_it(asyncdb_session): assert await names(asyncdb_session) == []")
    return project


def test_a_driver_without_a_distribution_has_no_version_in_the_header(extension: Project) -> None:
    """The run and its header work; the version of a module is found by its distribution only."""
    result = extension.pytester.runpytest_inprocess("-p", "no:randomly", "-v", "--asyncdb=lite")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["asyncdb: lite: Lite 3.*, aiosqlite, memory (in this process)*"])


def test_a_backend_that_inherits_schemes_leaves_urls_to_its_parent(extension: Project) -> None:
    """A URL for it begins with its name: ``pgvector=postgresql://…``."""
    url = "postgresql://app@127.0.0.1:1/app"
    arguments = ("-p", "no:randomly", "--collect-only", "-v", "--asyncdb=postgres,pgvector")
    result = extension.pytester.runpytest_inprocess(
        *arguments, f"--asyncdb-url={url}", f"--asyncdb-url=pgvector={url}"
    )
    result.stdout.fnmatch_lines(
        [
            "asyncdb: postgres: PostgreSQL, * url (--asyncdb-url)*",
            "asyncdb: pgvector: PostgreSQL with vectors, * url (--asyncdb-url)*",
        ]
    )
    result = extension.pytester.runpytest_inprocess(
        "--collect-only", "--asyncdb=pgvector", f"--asyncdb-url={url}"
    )
    result.stderr.fnmatch_lines(
        ["ERROR: a URL for postgres, which this run does not use (--asyncdb-url)"]
    )


def test_a_backend_without_recipes_is_reached_by_url(extension: Project) -> None:
    """It is not taken for one that lives in this process; only what could work was tried."""
    result = extension.pytester.runpytest_inprocess("-p", "no:randomly", "--asyncdb=urlonly")
    result.assert_outcomes(errors=1)
    shown = str(result.stdout)
    assert (
        "no Company DB server is available (--asyncdb=urlonly)\n\n"
        "Tried, in this order:\n"
        "  - url: ASYNCDB_URLONLY_URL is not set\n\n"
        "To fix this, do one of:\n"
        "  - export ASYNCDB_URLONLY_URL=urlonly://user:password@host/name\n"
        "  - or skip these tests: --asyncdb-missing=skip\n"
    ) in shown


def test_a_report_is_written_without_the_version_of_a_missing_driver(extension: Project) -> None:
    words = "--asyncdb=sqlite,notinstalled", "--asyncdb-missing=skip", "--asyncdb-report=x.json"
    result = extension.pytester.runpytest_inprocess("-p", "no:randomly", *words)
    result.assert_outcomes(passed=1, skipped=1)
    report = json.loads((extension.path / "x.json").read_text(encoding="utf-8"))
    assert "no_such_module" not in report["versions"]
    assert "is not installed" in report["servers"]["notinstalled"]


def test_a_driver_of_another_package_is_named(extension: Project) -> None:
    """There is no extra of pytest-asyncdb that installs it."""
    result = extension.pytester.runpytest_inprocess("-p", "no:randomly", "--asyncdb=notinstalled")
    result.stderr.fnmatch_lines(
        [
            "ERROR: the driver others for Not installed is not installed (--asyncdb=notinstalled)",
            "To fix this: install the package with the module no_such_module",
        ]
    )
