"""Tests that pytest cannot parametrise: each gets what its own markers say.

Unittest methods, doctests, and tests that request a fixture while they run, as the steps of
pytest-bdd do.
"""

from __future__ import annotations

import pytest
from fix_project import Project
from fix_servers import Servers, Target

#: Session-scoped fixtures that depend on the backend, as projects have them.
CONFTEST = """
import pytest

@pytest.fixture(scope="session")
def asyncdb_engine_options(asyncdb_backend):
    return {"execution_options": {"for": asyncdb_backend.name}}

@pytest.fixture(scope="session")
def word(asyncdb_backend):
    return asyncdb_backend.name
"""

CASE = """
import unittest

NAMES = set()

class Case(unittest.TestCase):
    expected = "sqlite"

    @pytest.fixture(autouse=True)
    def _database(self, word, asyncdb_engine):
        self.word, self.engine = word, asyncdb_engine

    def test_it(self):
        assert self.word == self.expected
        assert self.engine.get_execution_options()["for"] == self.expected
        assert self.engine.dialect.name.startswith(self.expected)
        NAMES.add((self.expected, self.engine.url.database))
"""


@pytest.fixture
def both(servers: Servers) -> Target:
    return servers.target("postgres+asyncpg")


def run(project: Project, both: Target, *arguments: str) -> pytest.RunResult:
    _, *where = both.arguments
    return project.pytester.runpytest_inprocess(
        "--asyncdb=sqlite,postgres+asyncpg", *where, "-ra", *arguments
    )


def test_what_depends_on_the_backend_is_set_up_for_the_backend_of_each_test(
    project: Project, both: Target
) -> None:
    """Control: pytest caches a session's fixture for all tests without a parameter."""
    project.write("conftest.py", CONFTEST)
    project.tests(
        CASE,
        """
        @pytest.mark.asyncdb("mysql")
        class TestNone(Case): pass

        class TestFirst(Case): pass

        @pytest.mark.asyncdb("postgres")
        class TestPostgres(Case):
            expected = "postgres"

        @pytest.mark.asyncdb("sqlite")
        def test_requests_it(request):
            assert request.getfixturevalue("word") == "sqlite"

        def test_has_a_parameter(word, asyncdb_engine):
            assert asyncdb_engine.dialect.name.startswith(word)

        @pytest.mark.asyncdb("postgres")
        class TestPostgresAgain(TestPostgres): pass

        class TestLast(Case):
            @pytest.mark.asyncdb("mysql")
            def test_none(self):
                assert False

            @pytest.mark.asyncdb("postgres")
            def test_postgres(self):
                assert self.word == "postgres"

        del Case

        def test_equal_options_share_a_database():
            assert len(NAMES) == 2
        """,
    )
    run(project, both, "-p", "no:randomly").assert_outcomes(passed=9, skipped=2)


def test_the_summary_counts_by_the_backend_on_which_they_ran(
    project: Project, both: Target
) -> None:
    project.write("conftest.py", CONFTEST)
    project.tests(
        CASE,
        """
        class TestFirst(Case): pass

        @pytest.mark.asyncdb("mysql", "postgres", "mariadb")
        class TestNoChoice(Case):
            expected = "postgres"

        @pytest.mark.asyncdb(exclude="sqlite@3")
        class TestOther(Case):
            expected = "postgres"

        del Case
        """,
    )
    _, *where = both.arguments
    result = project.pytester.runpytest_inprocess(
        "--asyncdb=sqlite@3,postgres+asyncpg,mysql", *where
    )
    result.stdout.fnmatch_lines(
        [
            "asyncdb: 1 test ran on sqlite@3 only: pytest cannot parametrise unittest classes*",
            "asyncdb: 2 tests ran on postgres+asyncpg only: pytest cannot parametrise unittest*",
        ]
    )


@pytest.mark.complete
def test_xdists_workers_tell_the_controller(project: Project, both: Target) -> None:
    project.write("conftest.py", CONFTEST)
    project.tests(CASE)
    outcome = project.run_apart(both, "-n", "1", "--asyncdb=sqlite,postgres+asyncpg")
    outcome.result.assert_outcomes(passed=1)
    assert "asyncdb: 1 test ran on sqlite only: " in outcome.text


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="pytest 9 brings subtests")
def test_a_subtest_is_reported_with_its_backend(project: Project, both: Target) -> None:
    project.tests(
        """
        async def test_it(asyncdb_session, subtests):
            for n in range(3):
                with subtests.test(n=n):
                    await add(asyncdb_session, f"name {n}")
                    assert len(await names(asyncdb_session)) == n + 1
                    assert n != 1 or asyncdb_session.bind.dialect.name == "sqlite"
        """
    )
    result = run(project, both)
    result.stdout.fnmatch_lines(
        [
            "postgres+asyncpg, rollback: 4 statements*",
            "*asyncdb: 1 test differs between backends*",
            "    failed on postgres+asyncpg: *",
        ]
    )


def test_a_mistake_in_a_methods_marker_fails_that_method(project: Project, both: Target) -> None:
    project.write("conftest.py", CONFTEST)
    project.tests(
        CASE,
        """
        class TestIt(Case):
            @pytest.mark.asyncdb("postgers")
            def test_mistake(self): pass

        del Case
        """,
    )
    result = run(project, both)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*unknown backend 'postgers' (did you mean 'postgres'?) (*"])
