"""Mistakes in the fixtures that projects override, and the whole text that users see.

The first test gets the same error as every later one, in every strategy.
"""

from __future__ import annotations

import pytest
from fix_project import Project
from fix_servers import Servers, Target


@pytest.fixture
def sqlite(servers: Servers) -> Target:
    return servers.target("sqlite")


def override(project: Project, fixture: str, value: str, above: str = "") -> None:
    project.write(
        "conftest.py",
        f"""
        import pytest
        from app.models import Base, User

        {above}

        @pytest.fixture(scope="session")
        def {fixture}():
            return {value}
        """,
    )
    project.tests(
        """
        strategies = [
            pytest.param(name, marks=pytest.mark.asyncdb(isolation=name))
            for name in ("rollback", "reset", "copy")
        ]

        @pytest.mark.parametrize("n", range(2))
        @pytest.mark.parametrize("strategy", strategies)
        async def test_it(asyncdb_session, strategy, n):
            await asyncdb_session.execute(select(User))
        """
    )


def check(project: Project, target: Target, text: str) -> None:
    """All six tests have *text*, and nothing else is said of why."""
    outcome = project.run(target).had(errors=6).shows(text)
    assert outcome.text.count("\n\nTo fix this") == 1
    assert outcome.text.count("\nthe same as in test_it.py::") == 5
    assert "Traceback" not in outcome.text


@pytest.mark.parametrize("value", ["None", "[]", "{'echo'}"])
@pytest.mark.parametrize("fixture", ["asyncdb_engine_options", "asyncdb_session_options"])
def test_options_that_are_no_mapping_are_refused(
    project: Project, sqlite: Target, fixture: str, value: str
) -> None:
    override(project, fixture, value)
    found = {"None": "NoneType", "[]": "list"}.get(value, "set")
    check(
        project,
        sqlite,
        f"""
        {fixture} is not a mapping but {found} (the fixture {fixture})

        To fix this: return a dict of arguments; an empty one if there are none
        """,
    )


@pytest.mark.parametrize(
    ("fixture", "name"),
    [
        ("asyncdb_engine_options", "url"),
        ("asyncdb_session_options", "bind"),
        ("asyncdb_session_options", "binds"),
    ],
)
def test_options_that_lead_to_another_database_are_refused(
    project: Project, sqlite: Target, fixture: str, name: str
) -> None:
    """Control: with "binds" a session would write to the application's own database."""
    override(project, fixture, f"{{{name!r}: None}}")
    check(
        project,
        sqlite,
        f"""
        {name!r} is not an option of a test's database (the fixture {fixture})

        The plugin sets it: engines and sessions belong to the database of the test.

        To fix this: leave out {name!r}; for the application's engines there is asyncdb_app_engines
        """,
    )


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("{'ecko': True}", "TypeError: Invalid argument(s) 'ecko' sent to create_engine(), *"),
        ("{'poolclass': 'NullPool'}", "TypeError: poolclass='NullPool' is not a class"),
        ("{'connect_args': [1]}", "TypeError: *"),
        ("{'connect_args': {'nonsense': 1}}", "*nonsense*"),
        ("{'execution_options': [1]}", "TypeError: *must be a mapping, not list"),
        ("{'isolation_level': 'CHAOS'}", "ArgumentError: Invalid value 'CHAOS' for isolation_le*"),
        ("{'isolation_level': 3}", "ArgumentError: Invalid value 3 for isolation_level. Valid *"),
        (
            "{'execution_options': {'isolation_level': 'CHAOS'}}",
            "ArgumentError: Invalid value 'CHAOS' for isolation_level. Valid isolation levels fo*",
        ),
    ],
)
@pytest.mark.everyday("sqlite")
def test_engine_options_that_do_not_work_are_explained(
    project: Project, target: Target, value: str, error: str
) -> None:
    override(project, "asyncdb_engine_options", value)
    outcome = project.run(target).had(errors=6)
    outcome.result.stdout.fnmatch_lines(
        [
            "*the options of the engine do not work (the fixture asyncdb_engine_options)",
            "*",
            f"*{error.replace('[', '[[]')}",
            "*",
            "To fix this, do one of:",
            "  - return arguments that create_async_engine() accepts on this backend",
            "  - for other arguments on each backend, let the fixture request asyncdb_backend",
        ]
    )
    assert outcome.text.count("\n\nTo fix this") == 1
    assert outcome.text.count("\nthe same as in test_it.py::") == 5
    assert "Traceback" not in outcome.text


@pytest.mark.parametrize("level", ["serializable", "autocommit"])
def test_options_of_the_pool_and_levels_in_small_letters_do_no_harm(
    project: Project, target: Target, level: str
) -> None:
    override(
        project,
        "asyncdb_engine_options",
        "{'pool_size': 5, 'max_overflow': 2, 'poolclass': None, 'isolation_level': level}",
        f"level = {level!r}",
    )
    project.pytester.runpytest_inprocess(*target.arguments).assert_outcomes(passed=6)


@pytest.mark.everyday("sqlite")
def test_a_level_that_the_backend_does_not_have_is_the_same_error_as_in_production(
    project: Project, target: Target
) -> None:
    """Also on an engine of the application that is for another backend."""
    project.ini(asyncdb_app_engines="app.db:ENGINE")
    project.write(
        "app/db.py",
        """
        from sqlalchemy.ext.asyncio import create_async_engine

        ENGINE = create_async_engine("mysql+aiomysql://nobody@127.0.0.1:1/none")
        """,
    )
    project.tests(
        """
        from app.db import ENGINE
        from sqlalchemy.exc import ArgumentError

        strategies = [
            pytest.param(name, marks=pytest.mark.asyncdb(isolation=name))
            for name in ("rollback", "reset", "copy")
        ]

        @pytest.mark.parametrize("strategy", strategies)
        @pytest.mark.parametrize("level", ["CHAOS", "repeatable_chaos"])
        async def test_it(asyncdb_engine, strategy, level):
            for engine in (asyncdb_engine, ENGINE):
                async with engine.connect() as connection:
                    with pytest.raises(ArgumentError, match="Invalid value '.* CHAOS|'CHAOS"):
                        await connection.execution_options(isolation_level=level)
        """
    )
    project.run(target).passed(6)


@pytest.mark.parametrize(
    ("fixture", "what"),
    [
        ("asyncdb_metadata", "asyncdb_metadata is not a MetaData but {}"),
        ("asyncdb_seed", "asyncdb_seed is not a function but {}"),
        ("asyncdb_app_engines", "asyncdb_app_engines='{}' is not an engine but {}"),
    ],
)
@pytest.mark.parametrize("value", ["(one for one in [])", "{}"])
def test_what_only_the_first_test_could_read_is_refused(
    project: Project, sqlite: Target, fixture: str, what: str, value: str
) -> None:
    """Control: a generator is empty in the second test, which has no tables, seed or engines."""
    override(project, fixture, value)
    outcome = project.run(sqlite).had(errors=6)
    found = "dict" if value == "{}" else "generator"
    assert outcome.text.count(what.format(found, found) + f" (the fixture {fixture})") >= 1
    assert outcome.text.count("\nthe same as in test_it.py::") == 5


@pytest.mark.parametrize("fixture", ["asyncdb_seed", "asyncdb_migrate"])
@pytest.mark.parametrize("word", ["async def", "def"])
def test_a_function_with_yield_is_refused(
    project: Project, sqlite: Target, fixture: str, word: str
) -> None:
    """Control: a call of it runs nothing, so the test would miss its rows without a word."""
    override(project, fixture, "work", f"{word} work(connection):\n            yield")
    check(
        project,
        sqlite,
        f"""
        {fixture} is a function with yield (the fixture {fixture})

        A call of it runs nothing.

        To fix this: write the function without yield; only a fixture may have one
        """,
    )


@pytest.mark.parametrize("way", ["fixture", "parametrize"])
def test_a_backend_that_is_only_its_word_is_refused(
    project: Project, servers: Servers, way: str
) -> None:
    if way == "fixture":
        fixture = "@pytest.fixture(scope='session')\ndef asyncdb_backend(): return 'sqlite'"
        project.write("conftest.py", f"import pytest\n{fixture}")
        project.tests("def test_it(asyncdb_session): pass")
    else:
        project.tests(
            """
            @pytest.mark.parametrize("asyncdb_backend", ["sqlite"])
            def test_it(asyncdb_backend, asyncdb_session): pass
            """
        )
    result = project.run(servers.target("sqlite")).had(errors=1).result
    what = "asyncdb_backend is 'sqlite', which is only a word (the fixture asyncdb_backend)"
    began = result.outlines.index(what)
    assert result.outlines[began + 1 : began + 5] == [
        "",
        "To fix this, do one of:",
        '  - name the backend by the marker: @pytest.mark.asyncdb("sqlite")',
        '  - with parametrize("asyncdb_backend", …) write indirect=True',
    ]
