"""The table of guarantees, cell by cell: every strategy, backend and driver, watched from outside.

What only one strategy promises, and what it does with connections of its own, is in the other
modules. An observer looks at every table after each inner test, or before it, where each has a
database of its own.
"""

from __future__ import annotations

import pytest
from fix_project import QUIET, Project, naive_database
from fix_servers import WORDS, Servers, Target
from fix_suite import EACH_ONCE

pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")

STRATEGIES = ("rollback", "reset", "copy")
REAL = STRATEGIES[1:]


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Backwards:
    """A plugin of an inner run: the last test first."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.reverse()


#: Every day in the order of the file. Both orders run every day where strategies mix.
FORWARDS = [
    pytest.param(False, id="forwards"),
    pytest.param(True, id="backwards", marks=pytest.mark.complete),
]

#: What applications do; each test finds the template, and leaves all it can.
TESTS = """
@pytest.fixture(autouse=True)
async def template(asyncdb_sessionmaker):
    async with asyncdb_sessionmaker() as session:
        assert await names(session) == []

async def test_commit(asyncdb_session):
    await add(asyncdb_session, "ada")
    await asyncdb_session.commit()
    await asyncdb_session.rollback()
    assert await names(asyncdb_session) == ["ada"]

async def test_no_commit(asyncdb_session):
    await add(asyncdb_session, "ada")
    assert await names(asyncdb_session) == ["ada"]

async def test_rollback(asyncdb_session):
    await add(asyncdb_session, "ada")
    await asyncdb_session.commit()
    await add(asyncdb_session, "bob")
    await asyncdb_session.rollback()
    await add(asyncdb_session, "cyd")
    await asyncdb_session.commit()
    assert await names(asyncdb_session) == ["ada", "cyd"]

async def test_nested(asyncdb_session):
    await add(asyncdb_session, "ada")
    async with asyncdb_session.begin_nested():
        await add(asyncdb_session, "bob")
        inner = await asyncdb_session.begin_nested()
        await add(asyncdb_session, "cyd")
        await inner.rollback()
    await asyncdb_session.commit()
    async with asyncdb_session.begin_nested():
        await add(asyncdb_session, "dan")
    await asyncdb_session.rollback()
    assert await names(asyncdb_session) == ["ada", "bob"]

async def test_an_error(asyncdb_session):
    await add(asyncdb_session, "ada")
    await asyncdb_session.commit()
    with pytest.raises(IntegrityError):
        await add(asyncdb_session, "ada")
    await asyncdb_session.rollback()
    with pytest.raises(IntegrityError):
        async with asyncdb_session.begin_nested():
            await add(asyncdb_session, "bob", "ada")
    await add(asyncdb_session, "cyd")
    await asyncdb_session.commit()
    assert await names(asyncdb_session) == ["ada", "cyd"]

async def test_foreign_key(asyncdb_session):
    asyncdb_session.add(Post(user_id=4711, text="nobody's"))
    with pytest.raises(IntegrityError):
        await asyncdb_session.commit()
    await asyncdb_session.rollback()
    ada = User(name="ada")
    asyncdb_session.add(ada)
    await asyncdb_session.flush()
    asyncdb_session.add(Post(user_id=ada.id, text="hers"))
    await asyncdb_session.commit()

async def test_a_session_inside_another(asyncdb_session, asyncdb_sessionmaker):
    await add(asyncdb_session, "ada")
    await asyncdb_session.commit()
    async with asyncdb_sessionmaker() as inner:
        await add(inner, "bob")
        await inner.commit()
    assert await names(asyncdb_session) == ["ada", "bob"]

async def test_engine(asyncdb_engine):
    async with asyncdb_engine.begin() as connection:
        await add(connection, "ada")
    with pytest.raises(ZeroDivisionError):
        async with asyncdb_engine.begin() as connection:
            await add(connection, "bob")
            raise ZeroDivisionError
    async with asyncdb_engine.connect() as connection:
        await add(connection, "cyd")
    async with asyncdb_engine.connect() as connection:
        assert await names(connection) == ["ada"]

async def test_autocommit(asyncdb_engine, asyncdb_session):
    async with asyncdb_engine.connect() as connection:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await add(connection, "ada")
        await connection.rollback()
    assert await names(asyncdb_session) == ["ada"]

async def test_gather(asyncdb_sessionmaker):
    async def one(number):
        async with asyncdb_sessionmaker() as session:
            await add(session, f"user {number}")
            assert f"user {number}" in await names(session)
            await session.commit()

    await asyncio.gather(*(one(number) for number in range(12)))
    async with asyncdb_sessionmaker() as session:
        assert len(await names(session)) == 12

def test_other_loops_and_threads(asyncdb_sessionmaker):
    async def one(name):
        async with asyncdb_sessionmaker() as session, session.begin():
            await add(session, name)

    asyncio.run(one("ada"))
    threads = [threading.Thread(target=lambda n=n: asyncio.run(one(f"t{n}"))) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def check():
        async with asyncdb_sessionmaker() as session:
            assert await names(session) == ["ada", "t0", "t1", "t2"]

    asyncio.run(check())

async def test_fails(asyncdb_session):
    await add(asyncdb_session, "ada")
    await asyncdb_session.commit()
    await add(asyncdb_session, "bob")
    raise LookupError
"""


@pytest.mark.parametrize("backwards", FORWARDS)
def test_whatever_a_test_does_the_next_one_finds_the_template(
    project: Project, target: Target, strategy: str, backwards: bool
) -> None:
    project.tests(TESTS)
    plugins = [Backwards()] if backwards else []
    outcome = project.run(target, f"--asyncdb-isolation={strategy}", plugins=plugins)
    outcome.had(passed=11, failed=1)
    assert len(outcome.watch.looked) == 12
    databases = {url.database for url in outcome.watch.urls.values()}
    # A copy of this process is used again where only the test's engine has reached it.
    assert len(databases) == (12 if strategy == "copy" and target.server is not None else 1)


@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
def test_strategies_mix_in_one_file(project: Project, target: Target, backwards: bool) -> None:
    """By the marker of each test; the same fixtures mean the same."""
    bodies = """
        @pytest.mark.parametrize("n", range(2))
        @pytest.mark.asyncdb(isolation="{0}")
        async def test_{0}_{1}(asyncdb_session, n):
            assert await names(asyncdb_session) == []
            await add(asyncdb_session, "ada")
            await asyncdb_session.commit()
            await add(asyncdb_session, "bob")
    """
    project.tests(*(bodies.format(one, n) for n in range(2) for one in STRATEGIES))
    project.run(target, plugins=[Backwards()] if backwards else []).passed(12)


#: Commits on real connections, as the naive recipe without a rollback does.
NAIVE = """
import pytest
from app.models import Base
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool


@pytest.fixture
async def asyncdb_session():
    engine = create_async_engine({url!r}, poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        yield session
    await engine.dispose()
"""


def test_real_commits_that_nobody_puts_back_leak(project: Project, target: Target) -> None:
    """Control."""
    with naive_database(project, target) as url:
        project.ini(asyncdb_metadata=None)
        project.write("conftest.py", NAIVE.format(url=url))
        project.tests(
            """
            @pytest.mark.parametrize("n", range(2))
            async def test_it(asyncdb_session, n):
                assert await names(asyncdb_session) == []
                await add(asyncdb_session, "ada")
                await asyncdb_session.commit()
            """
        )
        result = project.pytester.runpytest_inprocess(*QUIET, "-p", "no:asyncdb")
    result.assert_outcomes(passed=1, failed=1)


# Several connections at once.


@pytest.mark.everyday(
    ("reset", "postgres+asyncpg"), ("copy", "mysql+aiomysql"), ("reset", "mariadb+asyncmy")
)
@pytest.mark.parametrize("word", WORDS[1:])
@pytest.mark.parametrize("strategy", REAL)
def test_transactions_are_open_at_once_and_see_what_is_committed(
    project: Project, servers: Servers, strategy: str, word: str
) -> None:
    """In one task, and in tasks that can only end together."""
    target = servers.target(word)
    project.tests(
        """
        async def test_one_task(asyncdb_sessionmaker):
            async with asyncdb_sessionmaker() as one, asyncdb_sessionmaker() as two:
                await add(one, "ada")
                assert await names(two) == []
                assert await names(one) == ["ada"]
                await two.rollback()
                await one.commit()
                assert await names(two) == ["ada"]

        async def test_tasks(asyncdb_sessionmaker):
            barrier = asyncio.Barrier(8)

            async def write(number):
                async with asyncdb_sessionmaker() as session:
                    await add(session, f"user {number}")
                    await barrier.wait()
                    assert await names(session) == [f"user {number}"]
                    await barrier.wait()
                    await session.commit()

            async with asyncio.timeout(20):
                await asyncio.gather(*map(write, range(8)))

        async def test_locks(asyncdb):
            async with asyncdb.connections(3, lock_timeout=1) as (one, two, three):
                await add(one, "ada")
                await one.commit()
                await one.execute(text("UPDATE users SET name = 'bob'"))
                with pytest.raises(DBAPIError):
                    await two.execute(text("UPDATE users SET name = 'cyd'"))
                await two.rollback()
                assert await names(three) == ["ada"]
                await one.commit()
                await three.rollback()
                assert await names(three) == ["bob"]
        """
    )
    project.run(target, f"--asyncdb-isolation={strategy}").passed(3)


@pytest.mark.parametrize("strategy", REAL)
def test_on_sqlite_others_wait_for_a_writer(
    project: Project, servers: Servers, strategy: str
) -> None:
    """A task that writes waits until another one has committed; one that reads sees what was there
    before."""
    project.tests(
        """
        async def test_tasks(asyncdb_sessionmaker):
            read_before, written = asyncio.Barrier(3), asyncio.Event()

            async def write():
                async with asyncdb_sessionmaker() as session:
                    await read_before.wait()
                    await add(session, "ada")
                    written.set()
                    await asyncio.sleep(0.1)
                    await session.commit()

            async def read_and_write(name):
                async with asyncdb_sessionmaker() as session:
                    assert await names(session) == []
                    await read_before.wait()
                    await written.wait()
                    assert await names(session) == []
                    await add(session, name)
                    assert "ada" in await names(session)
                    await session.commit()

            await asyncio.gather(write(), read_and_write("bob"), read_and_write("eve"))

        async def test_one_task(asyncdb_sessionmaker):
            async with asyncdb_sessionmaker() as one, asyncdb_sessionmaker() as two:
                await two.execute(text("PRAGMA busy_timeout = 50"))
                await add(one, "ada")
                assert await names(two) == []
                with pytest.raises(DBAPIError, match="database is locked"):
                    await add(two, "grace")
                await one.commit()
                assert await names(two) == ["ada"]
        """
    )
    project.run(servers.target("sqlite"), f"--asyncdb-isolation={strategy}").passed(2)


def test_rollback_has_one_connection(project: Project, target: Target) -> None:
    """Control: the same inner session sees what is not committed; two tasks take turns."""
    project.tests(
        """
        async def test_it(asyncdb_sessionmaker):
            async with asyncdb_sessionmaker() as one, asyncdb_sessionmaker() as two:
                await add(one, "ada")
                assert await names(two) == ["ada"]

        async def test_turns(asyncdb_sessionmaker):
            order = []

            async def write(number):
                async with asyncdb_sessionmaker() as session:
                    await add(session, f"user {number}")
                    order.append(number)
                    await names(session)
                    order.append(number)
                    await session.commit()

            await asyncio.gather(*map(write, range(4)))
            assert order[::2] == order[1::2]
        """
    )
    project.run(target).passed(2)


# Other processes.

_SERVER = "host={0.host!r}, port={0.port}, user={0.username!r}, password={0.password!r}"
#: How a plain driver connects, and commits by itself.
PLAIN = {
    "postgres": "import psycopg; connection = psycopg.connect("
    f"{_SERVER}, dbname={{0.database!r}}, autocommit=True)",
    "mysql": f"import pymysql; connection = pymysql.connect({_SERVER}, database={{0.database!r}}, "
    "autocommit=True)",
}
PLAIN["mariadb"] = PLAIN["mysql"]

OTHER_PROCESS = """
import subprocess
import sys


def run_apart(url, *statements):
    lines = [CONNECT.format(url), "cursor = connection.cursor()"]
    lines += [f"cursor.execute({statement!r})" for statement in statements]
    subprocess.run([sys.executable, "-c", "\\n".join(lines)], check=True, timeout=60)


async def test_it(asyncdb_url, asyncdb_session):
    run_apart(asyncdb_url, "INSERT INTO users (name) VALUES ('ada')",
              "INSERT INTO posts (user_id, text) SELECT id, 'hers' FROM users")
    assert await names(asyncdb_session) == ["ada"]


async def test_next(asyncdb_session):
    assert await names(asyncdb_session) == []
"""


@pytest.mark.everyday(*EACH_ONCE)
@pytest.mark.parametrize("word", WORDS[1:])
def test_another_process_works_in_the_tests_database(
    project: Project, servers: Servers, strategy: str, word: str
) -> None:
    """With a plain driver. ``rollback`` says so and puts it back; the others have it."""
    target = servers.target(word)
    project.tests(f"CONNECT = {PLAIN[target.backend]!r}", OTHER_PROCESS)
    outcome = project.run(target, f"--asyncdb-isolation={strategy}")
    if strategy != "rollback":
        outcome.passed(2)
        return
    public = "public." if target.backend == "postgres" else ""
    tables = [f"table {public}{name}" for name in ("users", "posts")]
    if target.backend != "postgres":
        tables.sort()
    outcome.had(passed=2, errors=1).shows(second_connection(target, ", ".join(tables)))


def second_connection(target: Target, changed: str) -> str:
    """The whole text of the error."""
    return f"""
        another connection has committed to the test's database

        test: test_it.py::test_it[{target.id}]
        changed: {changed}
        The rollback of the test's own connection does not undo it; it was put back.

        To fix this: use asyncdb_engine or a redirected engine, \
or mark the test @pytest.mark.asyncdb(isolation="reset")
    """


def test_another_connection_to_sqlite_works_in_the_tests_database(
    project: Project, servers: Servers, strategy: str
) -> None:
    """In ``rollback`` in the same process only: in another one an in-memory database is nowhere to
    be found."""
    target = servers.target("sqlite")
    project.tests(
        """
        import sqlite3
        import subprocess
        import sys
        from contextlib import closing

        LOOK = "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1], uri=True)\\n"
        LOOK += "print(connection.execute('SELECT count(*) FROM sqlite_master').fetchone()[0])"

        async def test_it(asyncdb_url, asyncdb_session):
            in_memory = "vfs" in asyncdb_url.query
            file = f"{asyncdb_url.database}?vfs=memdb" if in_memory else asyncdb_url.database
            with closing(sqlite3.connect(file, uri=True)) as connection, connection:
                connection.execute("INSERT INTO users (name) VALUES ('ada')")
            assert await names(asyncdb_session) == ["ada"]
            found = subprocess.run([sys.executable, "-c", LOOK, file], capture_output=True)
            assert (found.stdout.strip() == b"0") is in_memory

        async def test_next(asyncdb_session):
            assert await names(asyncdb_session) == []
        """
    )
    outcome = project.run(target, f"--asyncdb-isolation={strategy}")
    if strategy == "rollback":
        outcome.had(passed=2, errors=1).shows(second_connection(target, "database"))
    else:
        outcome.passed(2)


# DDL.

DDL = """
@pytest.mark.parametrize("statement", [
    "CREATE TABLE more (id INTEGER)",
    "ALTER TABLE users ADD COLUMN more INTEGER",
    "CREATE INDEX more ON posts (text)",
    "DROP TABLE posts",
])
async def test_it(asyncdb_session, statement):
    await add(asyncdb_session, "ada")
    await asyncdb_session.commit()
    await asyncdb_session.execute(text(statement))
    await asyncdb_session.commit()


@pytest.fixture(autouse=True)
async def template(asyncdb_engine):
    from sqlalchemy import inspect

    def look(connection):
        there = inspect(connection)
        assert sorted(there.get_table_names()) == ["posts", "users"]
        assert [column["name"] for column in there.get_columns("users")] == ["id", "name"]
        assert [one["name"] for one in there.get_indexes("posts") if one["name"] == "more"] == []
        assert connection.scalar(text("SELECT count(*) FROM users")) == 0

    async with asyncdb_engine.connect() as connection:
        await connection.run_sync(look)


async def test_end(asyncdb_session):
    await add(asyncdb_session, "ada")
"""


def test_ddl_is_gone_after_the_test(project: Project, target: Target, strategy: str) -> None:
    """Undone or refused in ``rollback``; repaired in ``reset``; nobody else's in ``copy``."""
    project.tests(DDL)
    outcome = project.run(target, f"--asyncdb-isolation={strategy}")
    if strategy == "rollback" and target.backend in ("mysql", "mariadb"):
        outcome.had(failed=4, passed=1)
        outcome.result.stdout.fnmatch_lines(
            ["*refused before it ran: CREATE TABLE more (id INTEGER)"]
        )
    else:
        outcome.passed(5)


# Ids.

IDS = """
from sqlalchemy import inspect


@pytest.mark.parametrize("n", range(3))
async def test_it(asyncdb_session, n):
    users = [User(name="ada"), User(name="bob")]
    asyncdb_session.add_all(users)
    await asyncdb_session.commit()
    assert [user.id for user in users] == [1, 2]
    asyncdb_session.add(Post(user_id=1, text="hers"))
    await asyncdb_session.rollback()


@pytest.mark.asyncdb(isolation="rollback")
async def test_between(asyncdb_session):
    await add(asyncdb_session, "ada")
"""


@pytest.mark.parametrize("backwards", FORWARDS)
def test_ids_start_anew(project: Project, target: Target, strategy: str, backwards: bool) -> None:
    """In ``rollback`` where it is asked for."""
    mark = "pytestmark = pytest.mark.asyncdb(reset_sequences=True)"
    project.tests(mark if strategy == "rollback" else "", IDS)
    plugins = [Backwards()] if backwards else []
    project.run(target, f"--asyncdb-isolation={strategy}", plugins=plugins).passed(4)


def test_ids_go_on_where_nobody_asks(project: Project, target: Target) -> None:
    """Control: a rollback does not put counters back, but on SQLite."""
    project.tests(IDS)
    outcome = project.run(target)
    if target.backend == "sqlite":
        outcome.passed(4)
    else:
        outcome.had(passed=2, failed=2)


def test_one_test_asks_for_ids_among_others(project: Project, target: Target) -> None:
    """Whatever counted before, in tests that did not ask."""
    project.tests(
        """
        @pytest.mark.parametrize("n", range(2))
        async def test_before(asyncdb_session, n):
            await add(asyncdb_session, "ada", "bob")
            await asyncdb_session.commit()

        @pytest.mark.parametrize("n", range(2))
        @pytest.mark.asyncdb(reset_sequences=True)
        async def test_it(asyncdb_session, n):
            user = User(name="ada")
            asyncdb_session.add(user)
            await asyncdb_session.commit()
            assert user.id == 1
        """
    )
    project.run(target).passed(4)
    project.run(target, plugins=[Backwards()]).passed(4)


def test_ids_may_go_on_in_reset(project: Project, target: Target) -> None:
    """Where a test says so, also behind a checkpoint; the next one that does not begins with 1."""
    project.tests(
        """
        @pytest.mark.parametrize("n", range(3))
        @pytest.mark.asyncdb(isolation="reset", reset_sequences=False)
        async def test_before(asyncdb_session, asyncdb_backend, asyncdb, n):
            async def signup():
                user = User(name="ada")
                asyncdb_session.add(user)
                await asyncdb_session.commit()
                return user.id

            count = 0 if asyncdb_backend.name == "sqlite" else 1
            async with asyncdb.checkpoint():
                assert await signup() == 1 + 2 * n * count
            assert await signup() == 1 + (2 * n + 1) * count

        @pytest.mark.parametrize("n", range(2))
        @pytest.mark.asyncdb(isolation="reset")
        async def test_it(asyncdb_session, n):
            user = User(name="ada")
            asyncdb_session.add(user)
            await asyncdb_session.commit()
            assert user.id == 1
        """
    )
    project.run(target).passed(5)


# The observer itself.


@pytest.mark.everyday(
    *("postgres+asyncpg", ("sqlite", "copy")),
    *(("mysql+aiomysql", "rollback"), ("mariadb+asyncmy", "reset")),
)
def test_the_observer_would_see_a_leak(project: Project, target: Target, strategy: str) -> None:
    """Control: told to expect something else, it finds a difference after each test."""
    project.tests("async def test_it(asyncdb_session): pass")
    outcome = project.run(
        target, f"--asyncdb-isolation={strategy}", expected={"users": [(1, "ada")], "posts": []}
    )
    assert list(outcome.watch.leaks.values()) == [{"posts": [], "users": []}]


OWN_TYPES = """
import enum

from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Role(enum.Enum):
    user = 1
    admin = 2


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    role: Mapped[Role]


class Post(Base):
    __tablename__ = "posts"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
"""


@pytest.mark.everyday("postgres+asyncpg")
@pytest.mark.parametrize("word", WORDS[1:3])
def test_seeded_tables_and_their_types_can_be_dropped(
    project: Project, servers: Servers, word: str
) -> None:
    """What Alembic's downgrade does, in every strategy; rows of such types are put back."""
    project.write("app/models.py", OWN_TYPES)
    project.write(
        "conftest.py",
        """
        import pytest
        from app.models import Role, User


        @pytest.fixture(scope="session")
        def asyncdb_seed():
            async def seed(session):
                session.add(User(id=1, role=Role.admin))

            return seed
        """,
    )
    project.tests(
        """
        STRATEGIES = [pytest.param(word, marks=pytest.mark.asyncdb(isolation=word))
                      for word in ("rollback", "reset", "copy")]


        async def check(session):
            assert (await session.execute(select(User.id, User.role))).all() == [(1, Role.admin)]


        @pytest.mark.parametrize("strategy", STRATEGIES)
        async def test_downgrade(asyncdb_url, asyncdb_engine, strategy):
            async with asyncdb_engine.begin() as connection:
                await connection.run_sync(Base.metadata.drop_all)
            async with asyncdb_engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)


        @pytest.mark.asyncdb(isolation="reset")
        async def test_alter(asyncdb_session):
            await check(asyncdb_session)
            await asyncdb_session.execute(text("ALTER TYPE role RENAME VALUE 'admin' TO 'root'"))
            await asyncdb_session.commit()


        @pytest.mark.asyncdb(isolation="reset")
        @pytest.mark.parametrize("n", range(2))
        async def test_rows(asyncdb_session, n):
            await check(asyncdb_session)
            await asyncdb_session.execute(text("UPDATE users SET role = 'user'"))
            await asyncdb_session.commit()


        @pytest.mark.parametrize("strategy", STRATEGIES)
        async def test_end(asyncdb_session, strategy):
            await check(asyncdb_session)
        """
    )
    tests = (project.path / "test_it.py").read_text(encoding="utf-8")
    project.write("test_it.py", tests.replace("Post, User", "Post, Role, User"))
    expected = {"users": [(1, "admin")], "posts": []}
    project.run(servers.target(word), expected=expected).passed(9)
