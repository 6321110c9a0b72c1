"""Templates: built once for a run, seeds in layers, several schemas, builders that fail or die.

What was built is counted by the builder's own notes in a file, and by the observer.
"""

from __future__ import annotations

import pytest
from fix_project import Project
from fix_servers import Servers, Target
from fix_suite import EACH_ONCE

STRATEGIES = ("rollback", "reset", "copy")

SEED = """
import os
import pathlib

import pytest
from app.models import Post, User

BUILT = pathlib.Path(__file__).with_name("built")


def note(word):
    with BUILT.open("a") as file:
        file.write(word + "\\n")


@pytest.fixture(scope="session")
def asyncdb_seed():
    async def people(session):
        note("people")
        session.add_all([User(name="ada"), User(name="bob")])

    return people
"""


def built(project: Project) -> list[str]:
    """What the seeds noted, in the order in which they ran."""
    return sorted((project.path / "built").read_text().split())


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


LAYERS = """
from conftest import note


@pytest.fixture(scope="module")
def asyncdb_seed(asyncdb_seed):
    async def posts(session):
        note("posts")
        session.add(Post(user_id=1, text="hers"))

    return [asyncdb_seed, posts]


async def test_module(asyncdb_session):
    assert await names(asyncdb_session) == ["ada", "bob"]
    assert await asyncdb_session.scalar(select(func.count(Post.id))) == 1
    asyncdb_session.add(Post(user_id=2, text="his"))
    await asyncdb_session.commit()


class TestMore:
    @pytest.fixture(scope="class")
    @classmethod
    def asyncdb_seed(cls, asyncdb_seed):
        async def more(session):
            note("more")
            session.add(User(name="cyd"))

        return [*asyncdb_seed, more]

    @pytest.mark.parametrize("n", range(2))
    async def test_class(self, asyncdb_session, n):
        assert await names(asyncdb_session) == ["ada", "bob", "cyd"]
        assert await asyncdb_session.scalar(select(func.count(Post.id))) == 1
        await asyncdb_session.execute(text("DELETE FROM posts"))
        await asyncdb_session.commit()


async def test_after(asyncdb_session):
    assert await names(asyncdb_session) == ["ada", "bob"]
    assert await asyncdb_session.scalar(select(func.count(Post.id))) == 1
"""

PLAIN = """
@pytest.mark.parametrize("n", range(2))
async def test_plain(asyncdb_session, n):
    assert await names(asyncdb_session) == ["ada", "bob"]
    assert await asyncdb_session.scalar(select(func.count(Post.id))) == 0
    await add(asyncdb_session, "new")
    await asyncdb_session.commit()
"""


@pytest.mark.everyday(*EACH_ONCE)
def test_seeds_are_layers_of_which_each_is_built_once(
    project: Project, target: Target, strategy: str
) -> None:
    """A module's, and a class's, on those before it."""
    project.write("conftest.py", SEED)
    project.tests(PLAIN, name="test_a.py")
    project.tests(LAYERS, name="test_b.py")
    project.tests(PLAIN, name="test_c.py")
    result = project.pytester.runpytest_inprocess(
        *("-p", "no:randomly", *target.arguments, f"--asyncdb-isolation={strategy}")
    )
    result.assert_outcomes(passed=8)
    assert built(project) == ["more", "people", "posts"]


@pytest.mark.everyday(("reset", "postgres+psycopg"))
@pytest.mark.parametrize("word", ["postgres+psycopg", "mysql+asyncmy", "mariadb+asyncmy"])
def test_all_workers_share_one_template(
    project: Project, servers: Servers, strategy: str, word: str
) -> None:
    """Counted by the seed, which runs once, and by the tests' databases."""
    project.write("conftest.py", SEED)
    project.tests(
        """
        import pathlib

        SEEN = pathlib.Path(__file__).with_name("seen")
        SEEN.mkdir(exist_ok=True)

        @pytest.mark.parametrize("n", range(16))
        async def test_it(asyncdb_session, worker_id, n):
            (SEEN / f"{worker_id} {asyncdb_session.get_bind().url.database}").touch()
            assert await names(asyncdb_session) == ["ada", "bob"]
            await add(asyncdb_session, "new")
            await asyncdb_session.commit()
        """
    )
    target = servers.target(word)
    outcome = project.run_apart(target, "-n", "4", f"--asyncdb-isolation={strategy}")
    outcome.result.assert_outcomes(passed=16)
    assert built(project) == ["people"]
    seen = [path.name.split() for path in (project.path / "seen").iterdir()]
    assert len({worker for worker, _ in seen}) == 4
    assert len({database for _, database in seen}) == (16 if strategy == "copy" else 4)


@pytest.mark.everyday("reset")
def test_sqlite_is_built_by_each_worker(project: Project, servers: Servers, strategy: str) -> None:
    """Its databases are in the process."""
    project.write("conftest.py", SEED)
    project.tests(PLAIN)
    outcome = project.run_apart(
        servers.target("sqlite"),
        "-n",
        "2",
        "--dist=each",
        "--tx=2*popen",
        f"--asyncdb-isolation={strategy}",
    )
    outcome.result.assert_outcomes(passed=4)
    assert built(project) == ["people", "people"]


@pytest.mark.everyday("postgres+asyncpg")
@pytest.mark.parametrize("word", ["postgres+asyncpg", "mariadb+asyncmy"])
def test_another_worker_builds_what_one_has_died_over(
    project: Project, servers: Servers, word: str
) -> None:
    """In the middle of its seed; the tests that wait for it go on."""
    project.write(
        "conftest.py",
        SEED.replace(
            'session.add_all([User(name="ada"), User(name="bob")])',
            """session.add_all([User(name="ada"), User(name="bob")])
        await session.flush()
        if len(BUILT.read_text().split()) == 1:
            os._exit(1)""",
        ),
    )
    project.tests(PLAIN.replace("range(2)", "range(8)"))
    outcome = project.run_apart(servers.target(word), "-n", "3", "--asyncdb-isolation=reset")
    outcome.result.assert_outcomes(passed=7, failed=1)
    assert built(project) == ["people", "people"]


@pytest.mark.everyday("sqlite")
@pytest.mark.parametrize("word", ["sqlite", "postgres+asyncpg", "mysql+aiomysql"])
def test_a_seed_that_fails_is_tried_once(project: Project, servers: Servers, word: str) -> None:
    """Every test that needs it is told the same, whichever worker it is on."""
    target = servers.target(word)
    label = {"sqlite": "SQLite", "postgres": "PostgreSQL", "mysql": "MySQL"}[target.backend]
    project.write(
        "conftest.py", SEED.replace('note("people")', 'note("people"); raise LookupError("no ada")')
    )
    project.tests(PLAIN.replace("range(2)", "range(6)"))
    workers = [] if word == "sqlite" else ["-n", "3"]
    outcome = project.run_apart(target, *workers)
    outcome.result.assert_outcomes(errors=6)
    raises = project.place('note("people"); raise LookupError("no ada")', "people", "conftest.py")
    outcome.shows(
        f"""
        asyncdb_seed failed on {label}

        LookupError: no ada
        at {raises}

        To fix this: make the seed run on {label}; it gets a session on the new tables
        """
    )
    assert outcome.text.count("LookupError: no ada") == 1
    assert outcome.text.count("\nthe same as in test_it.py::") == 5
    assert built(project) == ["people"]


@pytest.mark.everyday(*EACH_ONCE)
def test_two_schemas_in_one_run_do_not_meet(
    project: Project, target: Target, strategy: str
) -> None:
    """Each has a template, and databases, of its own."""
    project.write("conftest.py", SEED)
    project.tests(PLAIN, name="test_a.py")
    project.tests(
        """
        from sqlalchemy import Column, Integer, MetaData, Table

        OTHER = MetaData()
        THING = Table("thing", OTHER, Column("id", Integer, primary_key=True))

        @pytest.fixture(scope="module")
        def asyncdb_metadata():
            return OTHER

        @pytest.fixture(scope="module")
        def asyncdb_seed():
            return lambda session: session.execute(insert(THING), [{}])

        @pytest.mark.parametrize("n", range(2))
        async def test_other(asyncdb_session, n):
            assert await asyncdb_session.scalar(select(func.count(THING.c.id))) == 1
            await asyncdb_session.execute(insert(THING), [{}])
            await asyncdb_session.commit()
            with pytest.raises(DBAPIError):
                await names(asyncdb_session)
        """,
        name="test_b.py",
    )
    project.tests(PLAIN, name="test_c.py")
    result = project.pytester.runpytest_inprocess(
        *("-p", "no:randomly", *target.arguments, f"--asyncdb-isolation={strategy}")
    )
    result.assert_outcomes(passed=6)
    assert built(project) == ["people"]
