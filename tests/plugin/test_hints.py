"""Each hint is provoked on real drivers; other failures get none."""

from __future__ import annotations

import dataclasses
import gc
import logging
import re
import sys
from collections.abc import Iterator

import pytest
from fix_project import Outcome, Project
from fix_servers import WORDS, Servers, Target

from pytest_asyncdb.reports.hints import HINTS, find, render

# The tests leave connections behind, as the mistakes that they make do.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What the mistakes leave behind warns here, where warnings are ignored, not in a later test.

    The outcome of an inner run and pytest's record of the last exception hold the frames that
    hold connections, and so do the log records of connections that SQLAlchemy could not close.
    """
    logging.disable()
    yield
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):
        vars(sys).pop(name, None)
    for _ in range(2):  # SQLAlchemy's finalizers close connections, which are garbage only then
        gc.collect()
    logging.disable(logging.NOTSET)


#: What makes an engine of the test's own, as applications do.
OWN = """
import contextlib

from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, StaticPool


def own(asyncdb_url, **options):
    return create_async_engine(asyncdb_url, **options)


@contextlib.asynccontextmanager
async def owned(asyncdb_url):
    engine = own(asyncdb_url)
    try:
        yield engine
    finally:
        await engine.dispose()
"""

#: By the first words of what it means: on which drivers, and the test that fails with it.
PROVOKED = {
    "this connection's database has no": (
        WORDS,
        """
        async def test_it(asyncdb_session):
            await asyncdb_session.execute(text("SELECT * FROM userz"))
        """,
    ),
    "a relationship names a class": (
        ["sqlite"],
        """
        from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

        class Own(DeclarativeBase): pass

        class Task(Own):
            __tablename__ = "tasks"
            id: Mapped[int] = mapped_column(primary_key=True)
            project: Mapped["Project"] = relationship("Project")

        async def test_it(asyncdb_session):
            asyncdb_session.add(Task())
        """,
    ),
    "a row refers to a row": (
        ["sqlite"],
        """
        async def test_it(asyncdb_session):
            await asyncdb_session.execute(insert(Post).values(user_id=7, text="his"))
        """,
    ),
    "the server has refused the password": (
        ["postgres+asyncpg", "postgres+psycopg", "mysql+aiomysql", "mysql+asyncmy"],
        """
        async def test_it(asyncdb_url):
            async with owned(str(asyncdb_url)) as engine, engine.connect():
                pass
        """,
    ),
    "the default event loop of Windows": (
        ["postgres+psycopg"],
        """
        async def test_it(asyncdb_url, monkeypatch):
            loop = asyncio.get_running_loop()
            loop.__class__ = type("LikeWindows", (type(loop),), {})  # the plugin's own stay
            monkeypatch.setattr("sys.platform", "win32")
            monkeypatch.setattr(asyncio, "ProactorEventLoop", type(loop), raising=False)
            async with owned(asyncdb_url) as engine, engine.connect():
                pass
        """,
    ),
    "asyncdb_seed and asyncdb_migrate run once": (
        ["sqlite"],
        """
        @pytest.fixture(scope="session")
        def asyncdb_seed(asyncdb_session):
            asyncdb_session.add(User(name="ada"))

        def test_it(asyncdb_session):
            pass
        """,
    ),
    "no plugin runs this async function": (
        ["sqlite"],
        """
        async def test_it(asyncdb_session):
            pass
        """,
    ),
    "an await is missing": (
        WORDS,
        """
        async def test_it(asyncdb_session):
            assert asyncdb_session.execute(select(User)).all() == []
        """,
    ),
    "an id that the database has made": (
        WORDS[1:],
        """
        async def test_it(asyncdb_session):
            async with asyncdb_session.begin_nested() as nested:
                asyncdb_session.add(User(name="ada"))
                await asyncdb_session.flush()
                await nested.rollback()
            bob = User(name="bob")
            asyncdb_session.add(bob)
            await asyncdb_session.flush()
            assert bob.id == 1
        """,
    ),
    "two times are equal": (
        ["postgres+asyncpg", "mysql+asyncmy"],
        """
        async def test_it(asyncdb_session):
            found = []
            for n in range(1000):  # a second of MySQL may end between two of them
                found.append(await asyncdb_session.scalar(select(func.now())))
                await asyncdb_session.commit()
                if n:
                    assert found[-1] > found[-2]
        """,
    ),
    "another transaction holds a lock": (
        WORDS[1:],
        """
        @pytest.mark.asyncdb(isolation="reset")
        async def test_it(asyncdb):
            async with asyncdb.connections(2, lock_timeout=1) as (one, other):
                await one.execute(insert(User), [{"name": "ada"}])
                await other.execute(insert(User), [{"name": "ada"}])
        """,
    ),
    "the server has closed this": (
        WORDS[1:],
        """
        @pytest.mark.asyncdb(isolation="reset")
        async def test_it(asyncdb_url):
            async with owned(asyncdb_url) as engine:
                async with engine.connect() as one, engine.connect() as other:
                    if engine.dialect.name == "postgresql":
                        await one.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
                    number = await one.scalar(text("SELECT connection_id()"))
                    await other.execute(text(f"KILL {number}"))
                    await one.execute(text("SELECT 1"))
        """,
    ),
    "two tasks use one connection": (
        WORDS,
        """
        @pytest.mark.asyncdb(isolation="reset")
        async def test_it(asyncdb_url):
            async with owned(asyncdb_url) as engine:
                async with AsyncSession(engine) as session:
                    await asyncio.gather(*(names(session) for _ in range(2)))
        """,
    ),
    "an engine, a connection or a lock": (
        ["postgres+asyncpg", "mysql+aiomysql", "mysql+asyncmy", "mariadb+asyncmy"],
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
        WORDS,
        """
        async def test_it(asyncdb_engine):
            async with AsyncSession(asyncdb_engine, expire_on_commit=True) as session:
                user = User(name="ada")
                session.add(user)
                await session.commit()
                user.name
        """,
    ),
    "the object's row is gone": (
        WORDS,
        """
        async def test_it(asyncdb_session):
            user = User(name="ada")
            asyncdb_session.add(user)
            await asyncdb_session.flush()
            await asyncdb_session.execute(text("DELETE FROM users"))
            user.name = "bob"
            await asyncdb_session.flush()
        """,
    ),
    "an earlier flush of this session": (
        WORDS,
        """
        async def test_it(asyncdb_session):
            asyncdb_session.add_all([User(name="ada"), User(name="ada")])
            with pytest.raises(IntegrityError):
                await asyncdb_session.flush()
            await names(asyncdb_session)
        """,
    ),
    "the server, or the account": (
        WORDS[1:],
        """
        @pytest.mark.asyncdb(isolation="reset")
        async def test_it(asyncdb_connection, asyncdb_url):
            name = "hint_" + str(asyncdb_url.database)[-20:]
            postgres = asyncdb_connection.dialect.name == "postgresql"
            make = "CREATE ROLE {} LOGIN PASSWORD 'x' CONNECTION LIMIT 1"
            if not postgres:
                make = "CREATE USER {} IDENTIFIED BY 'x' WITH MAX_USER_CONNECTIONS 1"
            await asyncdb_connection.execute(text(make.format(name)))
            await asyncdb_connection.commit()
            url = asyncdb_url.set(username=name, password="x")
            engine = own(url if postgres else url.set(database=""))
            try:
                async with engine.connect(), engine.connect():
                    pass
            finally:
                await engine.dispose()
                what = "ROLE" if postgres else "USER"
                await asyncdb_connection.execute(text(f"DROP {what} {name}"))
                await asyncdb_connection.commit()
        """,
    ),
    "a fixture that lives longer than one test": (
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
#: A call on an object whose row another statement has deleted.
OF_A_GONE_ROW = """
@pytest.mark.filterwarnings("error")
async def test_it(asyncdb_session):
    user = User(name="ada")
    asyncdb_session.add(user)
    await asyncdb_session.flush()
    await asyncdb_session.execute(text("DELETE FROM users"))
    asyncdb_session.expire(user, ["name"])
    CALL
    await asyncdb_session.flush()
"""
#: The same hints for what else drivers say: also what, as a pattern.
AGAIN = [
    (
        "this connection's database has no",
        ["sqlite"],
        "no such table: users",
        """
        async def test_it():
            engine = create_async_engine("sqlite+aiosqlite://", poolclass=NullPool)
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            async with engine.begin() as connection:
                await connection.execute(select(User))
        """,
    ),
    (
        "an await is missing",
        ["sqlite"],
        "coroutine 'AsyncSession.commit' was never awaited",
        """
        @pytest.mark.filterwarnings("error")
        async def test_it(asyncdb_session):
            asyncdb_session.add(User(name="ada"))
            asyncdb_session.commit()
        """,
    ),
    *(
        ("the object's row is gone", ["sqlite"], said, OF_A_GONE_ROW.replace("CALL", call))
        for said, call in {
            "expected to delete 1 row": "await asyncdb_session.delete(user)",
            "Could not refresh instance": "await asyncdb_session.refresh(user)",
            "ObjectDeletedError": "await asyncdb_session.run_sync(lambda _: user.name)",
        }.items()
    ),
    (
        "no plugin runs this async function",
        ["sqlite"],
        "requested an async fixture 'ada'",
        """
        @pytest.fixture
        async def ada(asyncdb_session):
            return 1

        def test_it(ada):
            pass
        """,
    ),
    (
        "another transaction holds a lock",
        ["sqlite"],
        "database is locked",
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
    (
        "the server has closed this",
        ["mysql+asyncmy", "mysql+aiomysql", "mariadb+asyncmy"],
        r"\(2013, 'Lost connection",
        """
        @pytest.mark.asyncdb(isolation="reset")
        async def test_it(asyncdb_url):
            async with owned(asyncdb_url) as engine:
                async with engine.connect() as one, engine.connect() as other:
                    number = await one.scalar(text("SELECT connection_id()"))
                    waiting = asyncio.ensure_future(one.execute(text("SELECT sleep(600)")))
                    find = "SHOW FULL PROCESSLIST"
                    while "SELECT sleep(600)" not in str((await other.execute(text(find))).all()):
                        pass
                    await other.execute(text(f"KILL {number}"))
                    await waiting
        """,
    ),
    (
        "the server has closed this",
        ["mysql+asyncmy", "mariadb+asyncmy"],  # the other one never says this
        r"\(2006, 'MySQL server has gone away'\)",
        """
        @pytest.mark.asyncdb(isolation="reset")
        async def test_it(asyncdb_url):
            async with owned(asyncdb_url) as engine:
                async with engine.connect() as one, engine.connect() as other:
                    number = await one.scalar(text("SELECT connection_id()"))
                    driver = (await one.get_raw_connection()).driver_connection
                    await other.execute(text(f"KILL {number}"))
                    while not driver._transport.is_closing():
                        await asyncio.sleep(0)
                    await one.execute(text("SELECT 1"))
        """,
    ),
    (
        "two tasks use one connection",
        ["postgres+asyncpg", "mysql+asyncmy", "mysql+aiomysql", "mariadb+asyncmy"],
        r"another operation is in progress|\(2014, 'Command Out of Sync'\)|"
        r"readexactly\(\) called while another coroutine is already waiting",
        """
        @pytest.mark.asyncdb(isolation="reset")
        async def test_it(asyncdb_url):
            async with owned(asyncdb_url) as engine:
                async with engine.connect() as connection:
                    slow = "SELECT sleep(1)"
                    if engine.dialect.name == "postgresql":
                        slow = "SELECT pg_sleep(1)"
                    await connection.execute(select(User))
                    await asyncio.gather(connection.execute(text(slow)), connection.commit())
        """,
    ),
    (
        "an engine, a connection or a lock",
        ["postgres+asyncpg", "mysql+aiomysql", "mysql+asyncmy", "mariadb+asyncmy"],
        "Event loop is closed",
        """
        @pytest.mark.asyncdb(isolation="reset")
        def test_it(asyncdb_url):
            async def connect():
                pooled = await own(asyncdb_url, poolclass=NullPool).raw_connection()
                driver = pooled.driver_connection
                pooled.detach()
                return driver

            driver = asyncio.run(connect())
            getattr(driver, "terminate", driver.close)()
        """,
    ),
    (
        "an engine, a connection or a lock",
        ["sqlite"],
        "PytestUnhandledThreadExceptionWarning",
        """
        import aiosqlite

        SLOW = (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000000) "
            "SELECT count(*) FROM n"
        )

        # The driver's thread has an answer when nobody is there any more.
        @pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
        def test_it(tmp_path):
            async def leave():
                connection = await aiosqlite.connect(tmp_path / "file.db")
                waiting = asyncio.ensure_future(connection.execute(SLOW))
                await asyncio.sleep(0)
                return waiting

            before = set(threading.enumerate())
            asyncio.run(leave())
            for thread in set(threading.enumerate()) - before:
                thread.join()
        """,
    ),
    (
        "a fixture that lives longer than one test",
        ["sqlite"],
        "_function_scoped_runner",
        """
        import pytest_asyncio

        @pytest_asyncio.fixture(scope="session", loop_scope="function")
        async def everybody():
            return 1

        async def test_it(everybody, asyncdb_session):
            pass
        """,
    ),
]
CASES = [(means, word, "", code) for means, (words, code) in PROVOKED.items() for word in words] + [
    (means, word, said, code) for means, words, said, code in AGAIN for word in words
]


def hint_of(outcome: Outcome) -> str:
    """The section's text on one line."""
    assert outcome.text.count("- asyncdb: hint -") == 1, outcome.text
    found = outcome.text.partition("- asyncdb: hint -")[2].partition("\n")[2]
    return " ".join(re.split(r"\n[-=]{5}", found)[0].split())


def test_every_hint_is_provoked() -> None:
    """A new one needs its error."""
    assert len(PROVOKED) == len(HINTS)
    for hint in HINTS:
        assert any(hint.means.startswith(words) for words in PROVOKED), hint.means


@pytest.mark.parametrize(
    ("means", "word", "said", "code"), CASES, ids=[f"{means}-{word}" for means, word, *_ in CASES]
)
def test_the_known_error_gets_its_hint(
    project: Project, servers: Servers, means: str, word: str, said: str, code: str
) -> None:
    project.ini(filterwarnings="ignore")
    project.tests(OWN, code)
    target = servers.target(word)
    strict = ("--asyncio-mode=strict",) if "no plugin" in means else ()
    outcome = project.run(target, *strict)
    (hint,) = [hint for hint in HINTS if hint.means.startswith(means)]
    text = f"It means: {hint.means} To fix this: {hint.change}"
    assert hint_of(outcome) == text, outcome.text
    assert re.search(said, outcome.text), outcome.text


NO_ROOM = """
import contextlib

@pytest.mark.asyncdb(isolation="reset")
async def test_it(asyncdb_url):
    engine = own(asyncdb_url, poolclass=NullPool)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(1000):
            await stack.enter_async_context(engine.connect())
"""
#: Where the server is the inner run's own, and what is said.
FULL = {
    "postgres+asyncpg": ("local", "sorry, too many clients already"),
    "postgres+psycopg": ("local", "FATAL:  sorry, too many clients already"),
    "mariadb+asyncmy": ("local", "(1040, 'Too many connections')"),
    "mysql+asyncmy": ("container", "(1040, 'Too many connections')"),
    "mysql+aiomysql": ("container", "(1040, 'Too many connections')"),
}


@pytest.mark.everyday("postgres+asyncpg")
@pytest.mark.parametrize("word", FULL)
def test_a_server_without_room_gets_its_hint(project: Project, servers: Servers, word: str) -> None:
    """Its limit is the server's, so it must be nobody else's."""
    provider, said = FULL[word]
    servers.need(word.partition("+")[0], provider)
    target = dataclasses.replace(servers.target("sqlite"), word=word)
    project.ini(filterwarnings="ignore")
    project.tests(OWN, NO_ROOM)
    outcome = project.run_apart(target, f"--asyncdb-server={provider}")
    outcome.result.assert_outcomes(failed=1)
    (hint,) = [hint for hint in HINTS if hint.means.startswith("the server, or the account")]
    assert hint_of(outcome) == f"It means: {hint.means} To fix this: {hint.change}", outcome.text
    assert said in outcome.text


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
    BrokenPipeError(32, "Broken pipe"), ConnectionResetError(104, "reset by peer"),
    PermissionError(13, "denied"), FileNotFoundError("no such file: users.db"), EOFError(),
    RuntimeError("Event loop is closed for lunch"), LookupError("too many connections for me"),
    Mine("LockNotAvailable"), Mine("Lock wait timeout exceeded; 1205"), Mine("1040: many"),
    UploadError("server closed the connection unexpectedly"), UploadError("2006 gone away"),
    ValueError("1366 Incorrect string value"), Mine("got Future attached to a different loop"),
    AssertionError("Packet sequence number wrong"), Mine("lost synchronization with server"),
    RuntimeError("cryptography package is required"), NotImplementedError("greenlet_spawn"),
    AssertionError("ConnectionDoesNotExistError"), TypeError("another operation is in progress"),
    IndexError("1226 connections"), StopAsyncIteration("two tasks"), RecursionError("deep"),
    UnicodeEncodeError("latin-1", "\\U0001f418", 0, 1, "ordinal not in range(256)"),
    RuntimeError("work() called while another coroutine is already waiting for me"),
    Mine("(2014, 'Command Out of Sync')"),
    asyncio.InvalidStateError("closed"), asyncio.QueueFull(), ExceptionGroup("two", [Mine("a")]),
], ids=repr)
async def test_raised(asyncdb_session, error):
    await names(asyncdb_session)
    raise error


async def test_unique(asyncdb_session):
    await add(asyncdb_session, "ada", "ada")


@pytest.mark.parametrize("sql", [
    "SELEC 1", "FROM users", "SELECT FROM WHERE", "SELECT nothing FROM users", "DELETE users",
    "UPDATE users SET nothing = 1", "INSERT INTO users (nothing) VALUES (1)", "DROP users",
    "SELECT count( FROM users", "SELECT 'unclosed", "SELECT no_such_function(1)",
    "INSERT INTO users (id, name) VALUES (1, NULL)", "SELECT 1 UNION SELECT 1, 2",
    "INSERT INTO users (name) VALUES (1, 2)", "SELECT * FROM users ORDER BY 99",
    "SELECT (SELECT 1, 2)", "WITH x AS SELECT 1", "SELECT * FROM users WHERE",
    "INSERT INTO users (id, name) VALUES (1, 'a'), (1, 'b')", "SELECT ((1)",
])
async def test_wrong(asyncdb_session, sql):
    await asyncdb_session.execute(text(sql))


@pytest.mark.parametrize("n", range(20))
async def test_right(asyncdb_session, n):
    await add(asyncdb_session, str(n))
    assert await names(asyncdb_session) == [str(n)]


async def test_column(asyncdb_session):
    await asyncdb_session.execute(text("SELECT nothing FROM users"))


async def test_null(asyncdb_session):
    await asyncdb_session.execute(insert(Post), [{"user_id": None, "text": None}])


async def test_assert(asyncdb_session):
    assert await names(asyncdb_session) == ["no such table here"]
"""


@pytest.mark.everyday("sqlite")
def test_other_failures_get_none(project: Project, target: Target) -> None:
    """87 tests on each of six drivers."""
    project.tests(OTHERS)
    outcome = project.run(target).had(failed=67, passed=20)
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
    assert found.means.startswith("an engine, a connection or a lock")
