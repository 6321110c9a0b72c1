"""Each hint is provoked on real drivers; other failures get none."""

from __future__ import annotations

import re

import pytest
from fix_project import Outcome, Project
from fix_servers import Servers, Target

from pytest_asyncdb.reports._hints import HINTS, find, render

# The tests leave connections behind, as the mistakes that they make do.
pytestmark = pytest.mark.filterwarnings("ignore")

#: What makes an engine of the test's own, as applications do.
OWN = """
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, StaticPool


def own(asyncdb_url, **options):
    return create_async_engine(asyncdb_url, **options)
"""

#: By the first words of what it means: on which drivers, and the test that fails with it.
PROVOKED = {
    "each connection to an in-memory": (
        ["sqlite"],
        """
        async def test_it():
            engine = create_async_engine("sqlite+aiosqlite://", poolclass=NullPool)
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            async with engine.begin() as connection:
                await connection.execute(select(User))
        """,
    ),
    "another connection to this SQLite": (
        ["sqlite"],
        """
        async def test_it(tmp_path):
            url = f"sqlite+aiosqlite:///{tmp_path}/file.db"
            engine = create_async_engine(url, connect_args={"timeout": 0})
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            try:
                async with engine.connect() as one, engine.connect() as other:
                    await one.execute(insert(User), [{"name": "ada"}])
                    await other.execute(insert(User), [{"name": "bob"}])
            finally:
                await engine.dispose()
        """,
    ),
    "the server has closed this": (
        ["postgres+asyncpg", "postgres+psycopg", "mysql+asyncmy", "mysql+aiomysql"],
        """
        @pytest.mark.asyncdb(isolation="reset")
        async def test_it(asyncdb_url):
            engine = own(asyncdb_url)
            try:
                async with engine.connect() as one, engine.connect() as other:
                    if engine.dialect.name == "postgresql":
                        await one.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
                    number = await one.scalar(text("SELECT connection_id()"))
                    await other.execute(text(f"KILL {number}"))
                    await one.execute(text("SELECT 1"))
            finally:
                await engine.dispose()
        """,
    ),
    "the column's character set": (
        ["mysql+asyncmy", "mysql+aiomysql", "mariadb+asyncmy"],
        """
        @pytest.mark.asyncdb(isolation="reset")
        async def test_it(asyncdb_connection):
            await asyncdb_connection.execute(
                text("CREATE TABLE old (word VARCHAR(20) CHARACTER SET latin1)")
            )
            await asyncdb_connection.execute(
                text("INSERT INTO old VALUES (:word)"), {"word": "\\U0001f418"}
            )
        """,
    ),
    "the server does not know": (
        ["postgres+asyncpg"],
        """
        @pytest.mark.asyncdb(isolation="reset")
        async def test_it(asyncdb_url):
            engine = own(asyncdb_url)
            try:
                async with engine.connect() as connection:
                    await connection.execute(select(User))
                    await connection.execute(text("DEALLOCATE ALL"))
                    await connection.execute(select(User))
            finally:
                await engine.dispose()
        """,
    ),
    "two tasks use one connection": (
        ["sqlite", "postgres+asyncpg", "postgres+psycopg", "mysql+asyncmy"],
        """
        @pytest.mark.asyncdb(isolation="reset")
        async def test_it(asyncdb_url):
            engine = own(asyncdb_url)
            try:
                async with AsyncSession(engine) as session:
                    await asyncio.gather(*(names(session) for _ in range(2)))
            finally:
                await engine.dispose()
        """,
    ),
    "an engine, a connection or a lock": (
        ["postgres+asyncpg"],
        """
        def test_it(asyncdb_url):
            engine = own(asyncdb_url)

            async def use():
                async with engine.connect() as connection:
                    await connection.execute(text("SELECT 1"))

            first = asyncio.new_event_loop()
            first.run_until_complete(use())
            try:
                asyncio.run(use())
            finally:
                first.run_until_complete(engine.dispose())
                first.close()
        """,
    ),
    "an attribute was loaded": (
        ["sqlite", "postgres+asyncpg", "mysql+asyncmy"],
        """
        async def test_it(asyncdb_engine):
            async with AsyncSession(asyncdb_engine, expire_on_commit=True) as session:
                user = User(name="ada")
                session.add(user)
                await session.commit()
                user.name
        """,
    ),
    "the server, or the account": (
        ["postgres+asyncpg", "postgres+psycopg"],
        """
        @pytest.mark.asyncdb(isolation="reset")
        async def test_it(asyncdb_connection, asyncdb_url):
            name = "hint_" + str(asyncdb_url.database)[-20:]
            await asyncdb_connection.execute(
                text(f"CREATE ROLE {name} LOGIN PASSWORD 'x' CONNECTION LIMIT 0")
            )
            await asyncdb_connection.commit()
            engine = own(asyncdb_url.set(username=name, password="x"))
            try:
                async with engine.connect():
                    pass
            finally:
                await asyncdb_connection.execute(text(f"DROP ROLE {name}"))
                await asyncdb_connection.commit()
        """,
    ),
    "a fixture that lives longer": (
        ["sqlite"],
        """
        @pytest.fixture(scope="session")
        def everybody(asyncdb_session):
            return asyncdb_session

        def test_it(everybody):
            pass
        """,
    ),
}
#: One takes a machine without the package; the other comes with luck only: on the current versions
#: drivers find the other loop first. The texts are those of the drivers and of asyncio.
NOT_PROVOKED = {"MySQL's account logs in", "a connection was opened on the loop"}
CASES = [(means, word) for means, (words, _) in PROVOKED.items() for word in words]


def hint_of(outcome: Outcome) -> str:
    """The section's text on one line."""
    assert outcome.text.count("- asyncdb: hint -") == 1, outcome.text
    found = outcome.text.partition("- asyncdb: hint -")[2].partition("\n")[2]
    return " ".join(re.split(r"\n[-=]{5}", found)[0].split())


def test_every_hint_is_provoked() -> None:
    """A new one needs its error."""
    begun = {*PROVOKED, *NOT_PROVOKED}
    assert len(begun) == len(HINTS)
    for hint in HINTS:
        assert any(hint.means.startswith(words) for words in begun), hint.means


@pytest.mark.parametrize(("means", "word"), CASES)
def test_the_known_error_gets_its_hint(
    project: Project, servers: Servers, means: str, word: str
) -> None:
    project.ini(filterwarnings="ignore")
    project.tests(OWN, PROVOKED[means][1])
    target = servers.target(word)
    outcome = project.run(target, "--tb=native")  # no source of the drivers is needed
    (hint,) = [hint for hint in HINTS if hint.means.startswith(means)]
    text = f"It means: {hint.means} To fix this: {hint.change}"
    assert hint_of(outcome) == text, outcome.text


OTHERS = """
class Mine(Exception):
    pass


class UploadError(Exception):
    pass


@pytest.mark.parametrize("error", [
    AssertionError("a table is not such a thing"), KeyError("loop"), ValueError("closed"),
    RuntimeError("the loop of the game is closed"), Mine("another one"), TimeoutError(),
    OSError(111, "Connection refused"), ZeroDivisionError("division by zero"),
    UploadError("upload 7 is already in progress"), ValueError("MissingGreenlet is not good"),
    RuntimeError("job 2013: Lost connection"), AssertionError("no such table: x"),
    UploadError("database is locked"), Mine("ScopeMismatch: Event loop is closed"),
])
async def test_raised(asyncdb_session, error):
    await names(asyncdb_session)
    raise error


async def test_unique(asyncdb_session):
    await add(asyncdb_session, "ada", "ada")


async def test_syntax(asyncdb_session):
    await asyncdb_session.execute(text("SELEC 1"))


async def test_column(asyncdb_session):
    await asyncdb_session.execute(text("SELECT nothing FROM users"))


async def test_null(asyncdb_session):
    await asyncdb_session.execute(insert(Post), [{"user_id": None, "text": None}])


async def test_assert(asyncdb_session):
    assert await names(asyncdb_session) == ["no such table here"]
"""


def test_other_failures_get_none(project: Project, target: Target) -> None:
    project.tests(OTHERS)
    outcome = project.run(target).had(failed=19)
    assert "asyncdb: hint" not in outcome.text


@pytest.mark.parametrize("hint", HINTS, ids=lambda hint: hint.means[:20])
def test_a_hint_is_short(hint: object) -> None:
    """Read at 80 columns."""
    lines = render(hint).splitlines()  # type: ignore[arg-type]
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 7


def test_the_cause_of_an_error_counts() -> None:
    try:
        try:
            raise RuntimeError("Event loop is closed")
        except RuntimeError as error:
            raise ValueError("wrapped") from error
    except ValueError as error:
        found = find(error)
    assert found is not None
    assert found.means.startswith("a connection was opened on the loop")
