"""What authors of third-party backends meet."""

from __future__ import annotations

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
