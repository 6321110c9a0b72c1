"""What becomes a database test, on which backends, under which name."""

from __future__ import annotations

import pytest
from fix_project import Project
from fix_servers import Servers, Target


@pytest.fixture
def sqlite(servers: Servers) -> Target:
    return servers.target("sqlite")


def collected(project: Project, *arguments: str) -> list[str]:
    result = project.pytester.runpytest_inprocess(
        *("--collect-only", "-q", "-p", "no:randomly", *arguments)
    )
    return [line.partition("::")[2] for line in result.outlines if "::" in line]


def test_every_test_that_reaches_a_fixture_runs_once_per_backend(project: Project) -> None:
    project.tests(
        """
        @pytest.fixture
        def repository(asyncdb_sessionmaker):
            return asyncdb_sessionmaker

        def test_none(): pass
        def test_direct(asyncdb_engine): pass
        def test_indirect(repository): pass
        """
    )
    assert collected(project, "--asyncdb=sqlite,postgres+psycopg@17") == [
        "test_none",
        "test_direct[sqlite]",
        "test_indirect[sqlite]",
        "test_direct[postgres-psycopg-17]",
        "test_indirect[postgres-psycopg-17]",
    ]


def test_one_backend_has_its_name_in_the_id_too(project: Project) -> None:
    project.tests("def test_it(asyncdb_session): pass")
    assert collected(project) == ["test_it[sqlite]"]


MIXED = """
    @pytest.fixture(scope="session", params=["x", "y"])
    def grouped(request): pass

    class TestSteps:
        def test_1(self): pass
        def test_2(self, database): pass
        def test_3(self): pass
        def test_4(self, database): pass

    def test_5(grouped): pass
    def test_6(database, grouped): pass
    """


def test_one_backend_leaves_the_tests_in_the_order_of_their_file(project: Project) -> None:
    """The control is a fixture without parameters; pytest sorts by other parameters as before."""
    plain = "@pytest.fixture\ndef database(): pass"
    project.tests(f"{MIXED}\n    {plain}".replace("\ndef", "\n    def"))
    expected = collected(project)
    assert expected[:4] == [f"TestSteps::test_{n}" for n in range(1, 5)]
    assert expected[4:] == ["test_5[x]", "test_6[x]", "test_5[y]", "test_6[y]"]
    project.tests(MIXED.replace("database", "asyncdb_engine"))
    found = [one.replace("[sqlite]", "").replace("sqlite-", "") for one in collected(project)]
    assert [one.replace("-sqlite", "") for one in found] == expected


def test_the_user_may_name_the_backend_behind_another_parameter(project: Project) -> None:
    """pytest allows spaces in the names."""
    project.tests(
        """
        @pytest.mark.parametrize("n, asyncdb_backend", [(1, "sqlite")], indirect=["asyncdb_backend"])
        def test_it(n, asyncdb_session): pass
        """
    )
    assert collected(project) == ["test_it[1-sqlite]"]


def test_all_stands_for_every_backend(project: Project) -> None:
    project.tests("def test_it(asyncdb_session): pass")
    assert collected(project, "--asyncdb=all") == [
        f"test_it[{name}]" for name in ("sqlite", "postgres", "mysql", "mariadb")
    ]


def test_the_users_own_parameters_are_combined(project: Project) -> None:
    project.tests(
        """
        @pytest.mark.parametrize("n", [1, 2])
        def test_it(n, asyncdb_session): pass
        """
    )
    assert sorted(collected(project, "--asyncdb=sqlite,mysql")) == [
        "test_it[mysql-1]",
        "test_it[mysql-2]",
        "test_it[sqlite-1]",
        "test_it[sqlite-2]",
    ]


def test_the_command_line_beats_the_environment_beats_the_ini(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.tests("def test_it(asyncdb_session): pass")
    project.ini(asyncdb_backends="mysql")
    assert collected(project) == ["test_it[mysql]"]
    monkeypatch.setenv("ASYNCDB_BACKENDS", "mariadb")
    assert collected(project) == ["test_it[mariadb]"]
    assert collected(project, "--asyncdb=postgres") == ["test_it[postgres]"]


def test_the_closest_marker_wins_key_by_key(project: Project) -> None:
    project.tests(
        """
        pytestmark = pytest.mark.asyncdb("sqlite", "postgres", reason="module")

        @pytest.mark.asyncdb(exclude="sqlite")
        class TestClass:
            def test_class(self, asyncdb_session): pass

            @pytest.mark.asyncdb("mysql")
            def test_function(self, asyncdb_session): pass

        def test_module(asyncdb_session): pass
        """
    )
    assert sorted(collected(project, "--asyncdb=sqlite,postgres,mysql")) == [
        "TestClass::test_class[postgres]",
        "TestClass::test_function[mysql]",
        "test_module[postgres]",
        "test_module[sqlite]",
    ]


def test_a_marker_may_name_driver_and_version(project: Project) -> None:
    project.tests(
        """
        @pytest.mark.asyncdb("postgres+psycopg", "mysql@8")
        def test_it(asyncdb_session): pass
        """
    )
    assert collected(project, "--asyncdb=postgres+asyncpg,postgres+psycopg,mysql@8,mysql@9") == [
        "test_it[postgres-psycopg]",
        "test_it[mysql-8]",
    ]


def test_requires_leaves_the_backends_that_can(project: Project) -> None:
    project.tests(
        """
        @pytest.mark.asyncdb(requires=("transactional_ddl", "several_connections"))
        def test_it(asyncdb_session): pass
        """
    )
    assert collected(project, "--asyncdb=all") == ["test_it[postgres]"]


def test_a_marker_on_a_parameter_holds_for_that_parameter(project: Project) -> None:
    project.tests(
        """
        only = pytest.mark.asyncdb("postgres")

        @pytest.mark.parametrize("n", [1, pytest.param(2, marks=only)])
        def test_it(n, asyncdb_session): pass
        """
    )
    assert sorted(collected(project, "--asyncdb=sqlite,postgres")) == [
        "test_it[postgres-1]",
        "test_it[postgres-2]",
        "test_it[sqlite-1]",
    ]


def test_a_parameter_without_a_backend_is_skipped_with_the_reason(
    project: Project, sqlite: Target
) -> None:
    """As a function is; it does not vanish."""
    project.tests(
        """
        def only(*words, **values):
            return pytest.mark.asyncdb(*words, **values)

        @pytest.fixture(params=["a", pytest.param("b", marks=only("mariadb"))])
        def letter(request): return request.param

        @pytest.mark.parametrize("n", [
            0,
            pytest.param(1, marks=only("postgres", reason="why")),
            pytest.param(2, marks=only(exclude="sqlite")),
            pytest.param(3, marks=only(requires="several_connections")),
            pytest.param(4, marks=only("sqlite")),
        ])
        def test_it(n, asyncdb_session):
            assert n in (0, 4)

        def test_letters(letter, asyncdb_engine):
            assert letter == "a"
        """
    )
    outcome = project.run(sqlite).had(passed=3, skipped=4)
    for reason in (
        "marked only postgres: why; this run has sqlite (--asyncdb=sqlite)",
        "marked not sqlite; this run has sqlite (--asyncdb=sqlite)",
        "marked requires several_connections; this run has sqlite (--asyncdb=sqlite)",
        "marked only mariadb; this run has sqlite (--asyncdb=sqlite)",
    ):
        assert outcome.text.count(reason) == 1


def test_the_marker_of_a_parameter_wins_over_that_of_its_function(project: Project) -> None:
    """The closest wins, also where it allows more."""
    project.tests(
        """
        only = pytest.mark.asyncdb

        @pytest.mark.asyncdb("sqlite", "mysql")
        @pytest.mark.parametrize("n", [
            pytest.param(1, marks=only("postgres")),
            pytest.param(2, marks=only(exclude="mysql")),
            pytest.param(3, marks=only("mariadb")),
            4,
        ])
        def test_it(n, asyncdb_session): pass
        """
    )
    assert sorted(collected(project, "--asyncdb=sqlite,postgres,mysql")) == [
        "test_it[mysql-4]",
        "test_it[postgres-1]",
        "test_it[sqlite-2]",
        "test_it[sqlite-3]",  # skipped
        "test_it[sqlite-4]",
    ]


def test_every_argument_of_the_marker_works_on_a_parameter(
    project: Project, sqlite: Target
) -> None:
    project.tests(
        """
        from sqlalchemy import inspect

        @pytest.mark.asyncdb(isolation="copy")
        @pytest.mark.parametrize(("strategy", "tables"), [
            ("copy", True),
            pytest.param("reset", True, marks=pytest.mark.asyncdb(isolation="reset")),
            pytest.param("rollback", True, marks=pytest.mark.asyncdb(isolation="rollback")),
            pytest.param("copy", False, marks=pytest.mark.asyncdb(schema=False)),
        ])
        async def test_it(asyncdb, strategy, tables):
            async with asyncdb.engine.connect() as connection:
                found = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
            assert bool(found) == tables
            if strategy == "rollback":
                with pytest.raises(Exception, match="needs connections of their own"):
                    async with asyncdb.connections(1): pass
            else:
                async with asyncdb.connections(1): pass
        """
    )
    project.pytester.runpytest_inprocess(*sqlite.arguments).assert_outcomes(passed=4)


def test_a_mistake_in_the_marker_of_a_parameter_ends_the_run(project: Project) -> None:
    project.tests(
        """
        only = pytest.mark.asyncdb("postgers")

        @pytest.mark.parametrize("n", [pytest.param(2, marks=only)])
        def test_it(n, asyncdb_session): pass
        """
    )
    result = project.pytester.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: unknown backend 'postgers' (did you mean 'postgres'?) (@pytest.mark.asyncdb of *"]
    )


def test_a_user_may_choose_the_backend_by_parametrize(project: Project, sqlite: Target) -> None:
    project.tests(
        """
        @pytest.mark.parametrize("asyncdb_backend", ["sqlite"], indirect=True)
        async def test_it(asyncdb_backend, asyncdb_session):
            assert asyncdb_backend.name == "sqlite"
            assert await names(asyncdb_session) == []
        """
    )
    project.run(sqlite).passed(1)


def test_a_test_whose_marker_leaves_no_backend_is_skipped_naming_both_sets(
    project: Project, sqlite: Target
) -> None:
    project.tests(
        """
        @pytest.mark.asyncdb("postgres", exclude="mysql", reason="uses LISTEN")
        async def test_it(asyncdb_session): pass
        """
    )
    outcome = project.run(sqlite).had(skipped=1)
    assert (
        "marked only postgres; not mysql: uses LISTEN; this run has sqlite (--asyncdb=sqlite)"
        in outcome.text
    )


def test_a_unittest_class_runs_on_the_first_backend_and_the_run_says_so(
    project: Project, sqlite: Target
) -> None:
    project.tests(
        """
        import unittest

        class TestIt(unittest.IsolatedAsyncioTestCase):
            @pytest.fixture(autouse=True)
            def _database(self, asyncdb_session, asyncdb_backend):
                self.session, self.backend = asyncdb_session, asyncdb_backend

            async def test_it(self):
                assert self.backend.name == "sqlite"
                assert await names(self.session) == []
        """
    )
    result = project.pytester.runpytest_inprocess("-p", "no:randomly", "--asyncdb=sqlite,postgres")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "asyncdb: 1 test ran on sqlite only: "
            "pytest cannot parametrise unittest classes and doctests"
        ]
    )


def test_each_unittest_class_gets_the_backend_of_its_own_marker(
    project: Project, servers: Servers
) -> None:
    """Whatever the classes before it got, or for whatever reason they were skipped."""
    project.tests(
        """
        import unittest

        class Case(unittest.TestCase):
            expected = "sqlite"

            @pytest.fixture(autouse=True)
            def _database(self, asyncdb_engine, asyncdb_backend):
                self.backend = asyncdb_backend
                assert asyncdb_engine.dialect.name.startswith(asyncdb_backend.name)

            def test_it(self):
                assert self.backend.name == self.expected

        @pytest.mark.asyncdb("mysql")
        class TestNone(Case): pass

        class TestFirst(Case): pass

        @pytest.mark.asyncdb("postgres")
        class TestPostgres(Case):
            expected = "postgres"

        class TestLast(Case): pass

        del Case
        """
    )
    postgres = servers.target("postgres+asyncpg")
    _, *rest = postgres.arguments
    result = project.pytester.runpytest_inprocess(
        "-p", "no:randomly", "--asyncdb=sqlite,postgres+asyncpg", *rest
    )
    result.assert_outcomes(passed=3, skipped=1)
