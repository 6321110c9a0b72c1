"""Waits for locks: the server ends them, and the failed test shows its open transactions.

The limit is twenty seconds; here it is one. If the test has set a limit itself, the driver's own
error stays, and a section of the report explains it.
"""

from __future__ import annotations

import re

import pytest
from fix_project import Outcome, Project
from fix_servers import WORDS, Target

from pytest_asyncdb.abc import Backend

pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")

REAL = ("reset", "copy")


def _on(words: tuple[str, ...]) -> pytest.MarkDecorator:
    ids = [word.replace("+", "-") for word in words]
    return pytest.mark.parametrize("target", words, indirect=True, ids=ids)


on_servers = _on(WORDS[1:])


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for locks end after one second."""
    monkeypatch.setattr(Backend, "lock_wait", 1.0)


#: The next test, which finds nothing of the one before, and can work.
AFTER = """
async def test_next(asyncdb_session):
    assert await names(asyncdb_session) == []
    await add(asyncdb_session, "next")
    await asyncdb_session.commit()
    assert await names(asyncdb_session) == ["next"]
"""
INSERT = 'await session.execute(insert(User), [{"name": word} for word in words])'
#: One statement of the above, as each driver gets it.
SENT = {
    "aiosqlite": "INSERT INTO users (name) VALUES (?)",
    "asyncpg": "INSERT INTO users (name) VALUES ($1::VARCHAR) RETURNING users.id",
    "psycopg": "INSERT INTO users (name) VALUES (%(name)s::VARCHAR) RETURNING users.id",
    "asyncmy": "INSERT INTO users (name) VALUES (%s)",
    "aiomysql": "INSERT INTO users (name) VALUES (%s)",
}
END_IT = "end the transaction that holds the lock before: commit, roll back or close its session"


def numbered(outcome: Outcome) -> Outcome:
    """The outcome with what differs from run to run replaced: sessions, tasks, times."""
    lines = outcome.result.outlines
    for number, line in enumerate(lines):
        line = re.sub(r"\b(session|Task|another session)([ -]\(?)\d+", r"\1\2#", line)
        line = re.sub(r"(\d rows?, )?(?:\d+\.\d+|\d+(?= ms)) (m?s)\b", r"# \2", line)
        lines[number] = re.sub(r"\bwaited \d+ s\b", "waited # s", line)
    return outcome


def ran(target: Target, number: int, place: str) -> str:
    """The statement that took the lock."""
    return f"{number}  {SENT[target.driver]} -- {place}"


def text(*parts: str) -> str:
    return "\n".join(parts)


# One task with two sessions.

SELF = """
async def test_it(asyncdb_sessionmaker):
    async with asyncdb_sessionmaker() as one, asyncdb_sessionmaker() as other:
        await add(one, "ada")
        await add(other, "ada")
"""


@pytest.mark.everyday(
    ("reset", "postgres+asyncpg"), ("copy", "mysql+aiomysql"), ("reset", "mariadb+asyncmy")
)
@on_servers
@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("strategy", REAL)
def test_a_task_that_waits_for_itself_fails(
    project: Project, target: Target, strategy: str
) -> None:
    """With both sessions, where each stands, and the statement that took the lock."""
    project.tests(SELF, AFTER)
    outcome = numbered(project.run(target, f"--asyncdb-isolation={strategy}"))
    insert = project.place(INSERT, "add")
    stands = text(project.place('await add(other, "ada")', "test_it"), insert)
    outcome.had(failed=1, passed=1).shows(
        text(
            "waited # s for a lock; the test has other transactions open",
            "",
            f"test: test_it.py::test_it[{target.id}]",
            f"statement: {SENT[target.driver]}",
            "Waiting: Task-# (test_it), at",
            stands,
            "In a transaction: Task-# (test_it)",
            ran(target, 1, insert),
        )
    ).shows(f"To fix this: {END_IT}")
    assert outcome.text.count("To fix this") == 1


@pytest.mark.everyday("postgres+asyncpg")
@on_servers
def test_without_the_limit_it_hangs(project: Project, target: Target) -> None:
    """Control: with the limit of twenty seconds the test's own timeout comes first."""
    project.tests(
        """
        async def test_it(asyncdb_sessionmaker):
            async with asyncdb_sessionmaker() as one, asyncdb_sessionmaker() as other:
                await add(one, "ada")
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(4):
                        await add(other, "ada")
        """
    )
    project.run(target, "--asyncdb-isolation=reset").passed(1)


# Two tasks.


@on_servers
@pytest.mark.usefixtures("soon")
def test_a_task_that_waits_for_another_one_fails(project: Project, target: Target) -> None:
    """Each stands somewhere else. A test that swallows the error fails at its end."""
    wait = "await asyncio.sleep(3600)"
    project.tests(
        f"""
        async def hold(sessions, held):
            async with sessions() as session:
                await add(session, "ada")
                held.set()
                {wait}

        async def want(sessions):
            async with sessions() as session:
                await add(session, "ada")

        async def test_it(asyncdb_sessionmaker):
            held = asyncio.Event()
            holder = asyncio.create_task(hold(asyncdb_sessionmaker, held), name="holder")
            await held.wait()
            wants = asyncio.create_task(want(asyncdb_sessionmaker), name="wants")
            await asyncio.wait([wants])
            assert wants.exception() is not None
            holder.cancel()
        """,
        AFTER,
    )
    outcome = numbered(project.run(target, "--asyncdb-isolation=reset"))
    insert = project.place(INSERT, "add")
    outcome.had(passed=2, errors=1).shows(
        text(
            "waited # s for a lock; the test has other transactions open",
            "",
            f"test: test_it.py::test_it[{target.id}]",
            f"statement: {SENT[target.driver]}",
            "Waiting: wants (want), at",
            project.place('await add(session, "ada")', "want", after="async def want"),
            insert,
            "In a transaction: holder (hold)",
            ran(target, 1, insert),
        )
    ).shows(f"To fix this: {END_IT}")


@on_servers
@pytest.mark.usefixtures("soon")
def test_a_task_that_has_ended_is_named(project: Project, target: Target) -> None:
    """It has left its session in a transaction, for which the next one waits."""
    project.tests(
        """
        KEPT = []

        async def leave(sessions):
            KEPT.append(sessions())
            await add(KEPT[0], "ada")

        async def test_it(asyncdb_sessionmaker):
            await asyncio.create_task(leave(asyncdb_sessionmaker))
            async with asyncdb_sessionmaker() as session:
                await add(session, "ada")
        """,
        AFTER,
    )
    outcome = numbered(project.run(target, "--asyncdb-isolation=reset"))
    outcome.had(failed=1, passed=1).shows(
        text(
            "In a transaction: Task-# (leave)",
            ran(target, 1, project.place(INSERT, "add")),
        )
    )


# Another thread, another process of the run.


@on_servers
@pytest.mark.usefixtures("soon")
def test_a_thread_with_a_loop_of_its_own_fails(project: Project, target: Target) -> None:
    """As the test client of a web framework runs the application."""
    wait = "thread.join()"
    project.tests(
        f"""
        def work(sessions, errors):
            async def want():
                async with sessions() as session:
                    await add(session, "ada")

            try:
                asyncio.run(want())
            except Exception as error:
                errors.append(error)

        async def test_it(asyncdb_sessionmaker):
            errors = []
            thread = threading.Thread(target=work, args=(asyncdb_sessionmaker, errors))
            async with asyncdb_sessionmaker() as session:
                await add(session, "ada")
                thread.start()
                {wait}
            raise errors[0]
        """,
        AFTER,
    )
    outcome = numbered(project.run(target, "--asyncdb-isolation=reset"))
    insert = project.place(INSERT, "add")
    outcome.had(failed=1, passed=1).shows(
        text(
            f"statement: {SENT[target.driver]}",
            "Waiting: Task-# (work.<locals>.want), at",
            project.place('await add(session, "ada")', "want"),
            insert,
            "In a transaction: Task-# (test_it)",
            ran(target, 1, insert),
        )
    )


@_on(WORDS[1:2])
def test_a_worker_of_xdist_tells_it_too(project: Project, target: Target) -> None:
    project.tests(SELF, AFTER)
    arguments = ("-n1", "-p", "short_waits", "--asyncdb-isolation=reset")
    outcome = project.run_apart(target, *arguments)
    outcome.result.assert_outcomes(failed=1, passed=1)
    assert "for a lock; the test has other transactions open" in outcome.text


# Others than the test's engine.

OTHER = """
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool


async def use(url, work):
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            return await work(connection)
    finally:
        await engine.dispose()
"""


@_on(WORDS[1:3])
@pytest.mark.usefixtures("soon")
def test_an_engine_of_its_own_that_waits_for_the_outer_transaction_fails(
    project: Project, target: Target
) -> None:
    """In ``rollback`` what is committed stays locked. The limit belongs to the database, so it
    ends the waits of other engines, too, with the driver's own error."""
    project.tests(
        OTHER,
        """
        async def test_it(asyncdb_session, asyncdb_url):
            await add(asyncdb_session, "ada")
            await asyncdb_session.commit()
            await use(asyncdb_url, lambda connection: add(connection, "ada"))
        """,
        AFTER,
    )
    outcome = project.run(target).had(failed=1, passed=1)
    assert "canceling statement due to lock timeout" in outcome.text
    assert "another transaction holds a lock that this statement needs" in outcome.text


LIMITS = {
    "asyncpg": '{"server_settings": {"lock_timeout": "2000"}}',
    "psycopg": '{"options": "-c lock_timeout=2000"}',
    "asyncmy": '{"init_command": "SET innodb_lock_wait_timeout = 2, lock_wait_timeout = 2"}',
    "aiomysql": '{"init_command": "SET innodb_lock_wait_timeout = 2, lock_wait_timeout = 2"}',
}


@pytest.mark.everyday("postgres+asyncpg", "mysql+aiomysql")
@on_servers
@pytest.mark.usefixtures("soon")
def test_the_limit_is_what_connect_args_say(project: Project, target: Target) -> None:
    """As docs/howto/locks.md shows it; the control is every test above, which waits one second."""
    project.write(
        "conftest.py",
        f"""
        import pytest

        @pytest.fixture(scope="session")
        def asyncdb_engine_options():
            return {{"connect_args": {LIMITS[target.driver]}}}
        """,
    )
    project.tests(SELF, AFTER)
    outcome = project.run(target, "--asyncdb-isolation=reset").had(failed=1, passed=1)
    waited = re.search(
        r"waited (\d+) s for a lock; the test has other transactions open", outcome.text
    )
    assert waited is not None, outcome.text
    assert 2 <= int(waited[1]) <= 4


@pytest.mark.everyday(
    ("rollback", "postgres+asyncpg"), ("reset", "mysql+aiomysql"), ("rollback", "mariadb+asyncmy")
)
@on_servers
@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("strategy", ["rollback", "reset"])
def test_a_session_of_another_engine_is_said_to_hold_the_lock(
    project: Project, target: Target, strategy: str
) -> None:
    """If no transaction of the test's own engine is open."""
    project.tests(
        OTHER,
        """
        async def test_it(asyncdb_session, asyncdb_url):
            async def work(connection):
                await add(connection, "ada")
                await add(asyncdb_session, "ada")

            await use(asyncdb_url, work)
        """,
        AFTER,
    )
    outcome = numbered(project.run(target, f"--asyncdb-isolation={strategy}"))
    outcome.had(failed=1, passed=1).shows(
        text(
            "waited # s for a lock; another session holds it",
            "",
            f"test: test_it.py::test_it[{target.id}]",
            f"statement: {SENT[target.driver]}",
            "Waiting: Task-# (test_it), at",
            project.place("return await work(connection)", "use"),
            project.place('await add(asyncdb_session, "ada")', "work"),
            project.place(INSERT, "add"),
            "No other connection of the test is in a transaction.",
        )
    ).shows(
        "To fix this: end the other session or its transaction; it does not use the test's engine"
    )
    assert outcome.text.count("To fix this") == 1


@on_servers
@pytest.mark.usefixtures("soon")
def test_a_change_of_the_schema_that_waits_for_a_reader_fails(
    project: Project, target: Target
) -> None:
    """For the lock of a whole table, for which MySQL would wait a year."""
    read = 'await one.execute(text("SELECT count(*) FROM posts"))'
    ddl = 'await other.execute(text("ALTER TABLE posts ADD COLUMN more INTEGER"))'
    project.tests(
        f"""
        async def test_it(asyncdb_sessionmaker):
            async with asyncdb_sessionmaker() as one, asyncdb_sessionmaker() as other:
                {read}
                {ddl}
        """,
        AFTER,
    )
    outcome = numbered(project.run(target, "--asyncdb-isolation=reset"))
    outcome.had(failed=1, passed=1).shows(
        text(
            "waited # s for a lock; the test has other transactions open",
            "",
            f"test: test_it.py::test_it[{target.id}]",
            "statement: ALTER TABLE posts ADD COLUMN more INTEGER",
            "Waiting: Task-# (test_it), at",
            project.place(ddl, "test_it"),
            "In a transaction: Task-# (test_it)",
            f"1  SELECT count(*) FROM posts -- {project.place(read, 'test_it')}",
        )
    )


# What waits for nobody.

SLEEP = {"postgres": "SELECT pg_sleep(3)", "mysql": "SELECT sleep(3)"}


@pytest.mark.everyday(("rollback", "postgres+asyncpg"))
@on_servers
@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("strategy", ["rollback", "reset"])
def test_a_slow_statement_that_waits_for_nobody_passes(
    project: Project, target: Target, strategy: str
) -> None:
    """Though it takes longer than a wait may."""
    sleep = SLEEP.get(target.backend, SLEEP["mysql"])
    project.tests(
        f"""
        async def test_it(asyncdb_session):
            await add(asyncdb_session, "ada")
            await asyncdb_session.execute(text("{sleep}"))
            assert await names(asyncdb_session) == ["ada"]
        """
    )
    project.run(target, f"--asyncdb-isolation={strategy}").passed(1)


# A driver that gives up by itself.

TWO = """
async def test_it(asyncdb):
    async with asyncdb.connections(2, lock_timeout=1) as (one, other):
        await add(one, "ada")
        await add(other, "ada")
"""


@pytest.mark.everyday(
    ("sqlite", "reset"),
    ("postgres+asyncpg", "copy"),
    ("mysql+aiomysql", "reset"),
    ("mariadb+asyncmy", "copy"),
)
@pytest.mark.parametrize("strategy", REAL)
def test_open_transactions_are_shown_if_the_driver_gives_up(
    project: Project, target: Target, strategy: str
) -> None:
    project.tests(TWO, AFTER)
    outcome = numbered(project.run(target, f"--asyncdb-isolation={strategy}"))
    insert = project.place(INSERT, "add")
    stands = text(project.place('await add(other, "ada")', "test_it"), insert)
    outcome.had(failed=1, passed=1).shows(
        text(
            "no lock within # s",
            f"statement: {SENT[target.driver]}",
            "Waiting: Task-# (test_it), at",
            stands,
            "In a transaction: Task-# (test_it)",
            ran(target, 3, insert),  # after the two that set the limits
        )
    )
    assert outcome.text.count("- asyncdb: locks -") == 1


def test_a_lock_that_is_not_waited_for_is_not_told(project: Project, target: Target) -> None:
    """``NOWAIT`` is no wait, and a test that passes has no report."""
    line = 'await other.execute(text("SELECT * FROM users FOR UPDATE NOWAIT"))'
    project.tests(
        f"""
        async def test_it(asyncdb, asyncdb_backend):
            async with asyncdb.connections(2, lock_timeout=1) as (one, other):
                await add(one, "ada")
                with pytest.raises(DBAPIError):
                    await add(other, "ada")

        async def test_nowait(asyncdb, asyncdb_backend):
            if asyncdb_backend.name == "sqlite":
                pytest.fail("it has none")
            async with asyncdb.connections(2) as (one, other):
                await add(one, "ada")
                await one.commit()
                await one.execute(text("SELECT * FROM users FOR UPDATE"))
                {line}
        """
    )
    outcome = project.run(target, "--asyncdb-isolation=reset", "-rA").had(passed=1, failed=1)
    assert "asyncdb: locks" not in outcome.text


@pytest.mark.everyday("postgres+asyncpg")
@on_servers
@pytest.mark.usefixtures("soon")
def test_no_password_is_shown(project: Project, target: Target) -> None:
    """Statements are masked as in the section of the SQL."""
    project.tests(
        """
        async def test_it(asyncdb_sessionmaker):
            async with asyncdb_sessionmaker() as one, asyncdb_sessionmaker() as other:
                await add(one, "ada")
                await one.execute(text("SELECT 'hunter2' AS password"))
                await other.execute(
                    text("UPDATE users SET name = 'x' WHERE name <> 'hunter3 password'")
                )
                await other.execute(
                    text("INSERT INTO users (id, name) SELECT 1, 'hunter4' AS secret")
                )
                await add(other, "ada")
        """
    )
    outcome = project.run(target, "--asyncdb-isolation=reset", "--tb=auto").had(failed=1)
    shown = outcome.text.partition("E  ")[2]
    assert "the test has other transactions open" in shown
    assert "SELECT '***' AS password" in shown
    assert "hunter" not in shown


# The plugin's own waits.


@pytest.mark.everyday(("LOCK TABLE users", "postgres+asyncpg"))
@_on(WORDS[1:3])
@pytest.mark.parametrize("lock", ["LOCK TABLE users", "ALTER TABLE users ADD COLUMN more INTEGER"])
def test_a_lock_that_is_left_at_the_end_is_told(
    project: Project, target: Target, lock: str
) -> None:
    """Looking what has changed waits for it, for a few seconds; then it is ended."""
    project.tests(
        f"""
        from fix_observer import observer_of

        KEPT = []

        async def test_it(asyncdb_url):
            KEPT.append(observer_of(asyncdb_url).connect(asyncdb_url.database))
            KEPT[0].execute("BEGIN")
            KEPT[0].execute("{lock}")
        """,
        AFTER,
        """
        def test_close():
            KEPT.pop().close()
        """,
    )
    outcome = project.run(target, "--asyncdb-isolation=reset")
    outcome.had(passed=3, errors=1)
    shown = re.sub(r"connection \d+", "connection #", outcome.text)
    assert (
        "the test left a connection in a transaction; it was ended\n\n"
        f"test: test_it.py::test_it[{target.id}]\n"
        f"connection #: idle in transaction: {lock}\n"
    ) in shown


@pytest.mark.everyday(("copy", "postgres+asyncpg"))
@_on(WORDS[1:3])
@pytest.mark.parametrize("strategy", ["rollback", "copy"])
def test_a_template_that_is_in_use_is_told(project: Project, target: Target, strategy: str) -> None:
    """PostgreSQL copies no database that somebody is connected to."""
    project.write(
        "conftest.py",
        """
        import pytest
        from app.models import Base
        from fix_observer import observer_of

        @pytest.fixture(scope="session")
        def asyncdb_migrate():
            kept = []

            async def migrate(connection, url):
                await connection.run_sync(Base.metadata.create_all)
                kept.append(observer_of(url).connect(url.database))

            yield migrate
            kept.pop().close()
        """,
    )
    project.tests(
        """
        async def test_it(asyncdb_session):
            pass
        """
    )
    outcome = project.run(target, f"--asyncdb-isolation={strategy}")
    outcome.result.assert_outcomes(errors=1)
    lines = outcome.result.outlines
    lines[:] = [re.sub(r"(the driver said:).*", r"\1 …", line) for line in lines]
    outcome.shows(
        text(
            "the schema cannot be copied: connections to its database are open on PostgreSQL",
            "",
            "the driver said: …",
            "",
            "To fix this: close what asyncdb_migrate and asyncdb_seed open: "
            "await connection.close() and await engine.dispose()",
        )
    )
