"""What a server does to the test's transaction: a hidden COMMIT, a lock, a lost connection.

For each the guilty test is told the statement, its place and the remedy, and the next test
is clean. The other side of a lock is a plain connection of the observer's.
"""

from __future__ import annotations

import dataclasses
import os
import re
import textwrap
from collections.abc import Iterator

import pytest
from fix_observer import observer_of
from fix_project import Outcome, Project
from fix_servers import WORDS, Servers, Target
from fix_suite import EACH_DRIVER

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb.abc import BackendSpec
from pytest_asyncdb.backends.mysql import MariaDB
from pytest_asyncdb.backends.mysql_drivers import Asyncmy

pytestmark = [
    pytest.mark.filterwarnings("default::ResourceWarning"),
    pytest.mark.everyday(*EACH_DRIVER),
]

LABELS = {"postgres": "PostgreSQL", "mysql": "MySQL", "mariadb": "MariaDB"}


def _on(words: tuple[str, ...]) -> pytest.MarkDecorator:
    ids = [word.replace("+", "-") for word in words]
    return pytest.mark.parametrize("target", words, indirect=True, ids=ids)


on_servers = _on(WORDS[1:])
on_postgres = _on(WORDS[1:3])
on_mysql = _on(WORDS[3:])

#: The next test, which finds nothing of the one before, and can work.
AFTER = """
async def test_next(asyncdb_session):
    assert await names(asyncdb_session) == []
    await add(asyncdb_session, "next")
    await asyncdb_session.commit()
    assert await names(asyncdb_session) == ["next"]
"""

FAILED = {"failed": 1, "passed": 1}
TOLD_AT_THE_END = {"passed": 2, "errors": 1}

INSERT = 'await session.execute(insert(User), [{"name": word} for word in words])'


def told_once(outcome: Outcome, text: str, **outcomes: int) -> None:
    """The guilty test is told *text* and nothing else, the next one is clean."""
    outcome.result.assert_outcomes(**outcomes)
    assert not any("test_next" in test for test in outcome.watch.leaks)
    outcome.shows(text)
    assert outcome.text.partition("short test summary")[0].count("To fix this") == 1


# Statements that hide a COMMIT.

PROCEDURE = """

from sqlalchemy import DDL, event

event.listen(Base.metadata, "after_create", DDL("CREATE PROCEDURE hidden() BEGIN {0} END"))
"""


def _procedure(project: Project, body: str) -> None:
    models = project.path / "app/models.py"
    project.write("app/models.py", models.read_text() + PROCEDURE.format(body))


@on_mysql
@pytest.mark.parametrize(
    "body",
    ["INSERT INTO users (name) VALUES ('x'); COMMIT;", "CREATE TABLE extra (id INTEGER);"],
    ids=["commit", "ddl"],
)
def test_a_commit_hidden_in_a_procedure_is_reported(
    project: Project, target: Target, body: str
) -> None:
    """What the text does not show, the transaction flag does; the database is made anew."""
    _procedure(project, body)
    project.tests(
        """
        async def test_it(asyncdb_session):
            await add(asyncdb_session, "ada")
            await asyncdb_session.execute(text("CALL hidden()"))
        """,
        AFTER,
    )
    told_once(
        project.run(target),
        f"""
        the test's outer transaction was ended under it

        test: test_it.py::test_it[{target.id}]
        statement: CALL hidden()
        at {project.place('await asyncdb_session.execute(text("CALL hidden()"))', "test_it")}
        {LABELS[target.backend]} committed what the test had written before; \
the database is rebuilt before the next test.

        To fix this: keep statements that commit by themselves out of this test, \
or mark it @pytest.mark.asyncdb(isolation="reset")
        """,
        **FAILED,
    )


@on_mysql
@pytest.mark.parametrize("end", ["commit", "rollback", None])
def test_a_commit_that_hides_behind_a_new_transaction_is_reported(
    project: Project, target: Target, end: str | None
) -> None:
    """The flag is as before then; the savepoints are gone, which shows at an end: the server's
    error in the unit that ends, and the breach at the end of the test."""
    _procedure(project, "COMMIT; START TRANSACTION;")
    project.tests(
        f"""
        async def test_it(asyncdb_session):
            await add(asyncdb_session, "ada")
            await asyncdb_session.execute(text("CALL hidden()"))
            {f"await asyncdb_session.{end}()" if end else "pass"}
        """,
        AFTER,
    )
    told_once(
        project.run(target),
        f"""
        the test's outer transaction was ended under it

        test: test_it.py::test_it[{target.id}]
        statement: unknown: it began another transaction; noticed when the test ended
        {LABELS[target.backend]} committed what the test had written before; \
the database is rebuilt before the next test.

        To fix this: keep statements that commit by themselves out of this test, \
or mark it @pytest.mark.asyncdb(isolation="reset")
        """,
        **({**FAILED, "errors": 1} if end else TOLD_AT_THE_END),
    )


# The other side of a lock.

RIVAL = """
import re
import threading
import time
from fix_observer import observer_of

KIND = "KIND_OF_SERVER"


class Rival:
    # A plain connection of another process, as far as the server can tell.
    def __init__(self, url):
        self.observer = observer_of(url)
        self.database = url.database
        self.connection = self.observer.connect(url.database)
        self.cursor = self.connection.cursor()

    def run(self, *statements):
        for statement in statements:
            self.cursor.execute(statement)

    def wait_until_blocked(self):
        end = time.monotonic() + 10
        while not self.is_blocked():
            assert time.monotonic() < end, "the rival never had to wait"

    def is_blocked(self):
        if KIND == "postgres":
            sql = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            return bool(self.observer.query(sql, self.database))
        # Not innodb_trx, which stays as it is while somebody reads it each 100 ms.
        ((*_, status),) = self.observer.query("SHOW ENGINE INNODB STATUS")
        return re.search(f"of table `{self.database}`.* waiting", status) is not None

    def hold(self, name):
        if KIND == "postgres":
            self.run("SET deadlock_timeout = '60s'", "SET lock_timeout = 0")
        else:
            self.run("SET innodb_lock_wait_timeout = 30")
        # Who has changed more rows is not the victim on MySQL; on PostgreSQL, who waits longer.
        rows = ", ".join(f"('rival {n}')" for n in range(50))
        self.run("BEGIN", f"INSERT INTO users (name) VALUES ('{name}'), {rows}")

    def end(self):
        self.run("ROLLBACK")


@pytest.fixture
def rival(asyncdb_url):
    rival = Rival(asyncdb_url)
    yield rival
    rival.connection.close()


async def deadlock(session, rival):
    # The session has inserted "a", which the rival wants, and wants the rival's "b".
    work = asyncio.to_thread(rival.run, "INSERT INTO users (name) VALUES ('a')")
    blocked = asyncio.create_task(work)
    await asyncio.to_thread(rival.wait_until_blocked)
    try:
        await add(session, "b")
    finally:
        await blocked
        rival.end()
"""


def _rival(target: Target) -> str:
    return RIVAL.replace("KIND_OF_SERVER", target.backend)


@on_postgres
def test_a_deadlock_leaves_the_session_usable(project: Project, target: Target) -> None:
    """The victim of a deadlock rolls back and tries again, as in production. On MySQL it cannot:
    the server undoes the whole outer transaction."""
    project.tests(
        _rival(target),
        """
        async def test_it(asyncdb_session, rival):
            rival.hold("b")
            await add(asyncdb_session, "a")
            with pytest.raises(DBAPIError) as caught:
                await deadlock(asyncdb_session, rival)
            assert caught.value.orig.sqlstate == "40P01"
            await asyncdb_session.rollback()
            await add(asyncdb_session, "a", "b")
            await asyncdb_session.commit()
            assert await names(asyncdb_session) == ["a", "b"]
        """,
        AFTER,
    )
    project.run(target).passed(2)


#: A deadlock after a commit.
DEADLOCK = """
from pytest_asyncdb import IsolationBreach

async def test_it(asyncdb_session, rival):
    rival.hold("b")
    await add(asyncdb_session, "before")
    await asyncdb_session.commit()
    await add(asyncdb_session, "a")
"""


@on_postgres
def test_a_deadlock_keeps_what_was_committed_on_postgresql(
    project: Project, target: Target
) -> None:
    project.tests(
        _rival(target),
        DEADLOCK
        + """
    with pytest.raises(DBAPIError):
        await deadlock(asyncdb_session, rival)
    await asyncdb_session.rollback()
    assert await names(asyncdb_session) == ["before"]
""",
        AFTER,
    )
    project.run(target).passed(2)


def undone(target: Target, *rest: str) -> str:
    """The whole text where InnoDB has undone more than a session's own work; *rest* is the
    places and what the driver said."""
    lines = [
        *(f"at {place}" for place in rest[:-1]),
        f"the driver said: OperationalError: {rest[-1]}",
    ]
    return "\n".join(
        [
            "the server undid the test's whole outer transaction",
            "",
            f"test: test_it.py::test_it[{target.id}]",
            "statement: INSERT INTO users (name) VALUES (%s)",
            *lines,
            "That undid also what other sessions had written or committed before; "
            "on connections of their own it would have survived.",
            "",
            'To fix this: mark the test @pytest.mark.asyncdb(isolation="reset")',
        ]
    )


@on_mysql
@pytest.mark.parametrize("swallowed", [False, True])
def test_a_deadlock_that_undid_a_commit_is_reported(
    project: Project, target: Target, swallowed: bool
) -> None:
    """InnoDB undoes the whole outer transaction. A test that fails with the deadlock's own
    error is told so in a note on that. What it sends afterwards is refused: it would not find
    what was committed. A test that swallows all that is told at its end."""
    swallow = """
        with pytest.raises(DBAPIError):
            await deadlock(asyncdb_session, rival)
        await asyncdb_session.rollback()
        with pytest.raises(IsolationBreach, match="undid the test's whole outer transaction"):
            await names(asyncdb_session)
    """
    fail = "    await deadlock(asyncdb_session, rival)\n"
    body = textwrap.indent(textwrap.dedent(swallow), "    ") if swallowed else fail
    project.tests(_rival(target), DEADLOCK + body, AFTER)
    insert = project.place(INSERT, "add")
    call = project.place("await deadlock(asyncdb_session, rival)", "test_it")
    told_once(
        project.run(target),
        undone(
            *(target, call, project.place('await add(session, "b")', "deadlock"), insert),
            "(1213, 'Deadlock found when trying to get lock; try restarting transaction')",
        ),
        **(TOLD_AT_THE_END if swallowed else FAILED),
    )


CONFLICT = """
async def test_it(asyncdb_session):
    await add(asyncdb_session, "ada")
    await asyncdb_session.commit()
    with pytest.raises(IntegrityError):
        await asyncdb_session.execute(text("INSERT OR ROLLBACK INTO users (name) VALUES ('ada')"))
    await asyncdb_session.rollback()
    assert await names(asyncdb_session) == ["ada"]
"""


@_on(WORDS[:1])
def test_a_conflict_that_undid_a_commit_is_reported(project: Project, target: Target) -> None:
    """SQLite rolls the whole transaction back for OR ROLLBACK. Control: in ``reset`` what was
    committed before is still there."""
    project.tests(CONFLICT, AFTER)
    told = project.run(target)
    told.result.assert_outcomes(failed=1, passed=1)
    for line in (
        "the server undid the test's whole outer transaction",
        "statement: INSERT OR ROLLBACK INTO users (name) VALUES ('ada')",
        'To fix this: mark the test @pytest.mark.asyncdb(isolation="reset")',
    ):
        assert line in told.text
    project.ini(asyncdb_isolation="reset")
    project.run(target).result.assert_outcomes(passed=2)


LOCKED = """
async def test_it(asyncdb_session, rival):
    rival.hold("b")
    await asyncdb_session.execute(text("{0}"))
    await add(asyncdb_session, "before")
    await asyncdb_session.commit()
    await add(asyncdb_session, "a")
    with pytest.raises(DBAPIError) as caught:
        await add(asyncdb_session, "b")
    said = f"{{getattr(caught.value.orig, 'sqlstate', '')}} {{caught.value.orig}}"
    assert "55P03" in said or "1205" in said
    rival.end()
"""
#: How long to wait for a lock.
SOON = {
    "postgres": "SET lock_timeout = '100ms'",
    "mysql": "SET innodb_lock_wait_timeout = 1",
    "mariadb": "SET innodb_lock_wait_timeout = 1",
}


@on_servers
def test_a_lock_that_is_not_had_in_time_costs_its_statement(
    project: Project, target: Target
) -> None:
    """As in production: on PostgreSQL the unit of work must be rolled back then, on MySQL it
    may go on."""
    go_on = """
        await asyncdb_session.rollback()
        assert await names(asyncdb_session) == ["before"]
    """
    if target.backend != "postgres":
        go_on = """
            await asyncdb_session.commit()
            assert await names(asyncdb_session) == ["a", "before"]
        """
    body = LOCKED.format(SOON[target.backend]) + textwrap.indent(textwrap.dedent(go_on), "    ")
    project.tests(_rival(target), body, AFTER)
    project.run(target).passed(2)


class _UndoesOnTimeout(MariaDB):
    """A server with an option that is read at its start, and cannot be set later."""

    local = MariaDB.local and MariaDB.local._replace(
        serve=lambda place, port: [
            *MariaDB.local.serve(place, port),  # type: ignore[union-attr]
            "--innodb-rollback-on-timeout",
        ],
    )


@pytest.fixture
def undoes_on_timeout(servers: Servers) -> Iterator[Target]:
    """A MariaDB of this machine that undoes the whole transaction after a wait for a lock."""
    servers.need("mariadb", "local")
    backend, word = _UndoesOnTimeout(), "mariadb+asyncmy"
    spec = BackendSpec("mariadb", "asyncmy", written=word, source="the test suite")
    provider = Registry().provider("local")
    found = provider.find(spec, backend, None)
    with provider.obtain(found, spec, backend, Asyncmy(), lambda line: None) as server:
        url = backend.url(server, "asyncmy", None)
        yield Target(word, url, observer_of(url))


def test_a_wait_for_a_lock_that_undid_a_commit_is_reported(
    project: Project, undoes_on_timeout: Target
) -> None:
    """With innodb_rollback_on_timeout it costs what a deadlock costs."""
    target = undoes_on_timeout
    go_on = """
        await asyncdb_session.rollback()
    """
    body = LOCKED.format(SOON["mysql"]) + textwrap.indent(textwrap.dedent(go_on), "    ")
    project.tests(_rival(target), body, AFTER)
    place = project.place('await add(asyncdb_session, "b")', "test_it")
    told_once(
        project.run(target),
        undone(
            *(target, place, project.place(INSERT, "add")),
            "(1205, 'Lock wait timeout exceeded; try restarting transaction')",
        ),
        **TOLD_AT_THE_END,
    )


# A connection that the server ends.

KILL = """
from fix_observer import observer_of


def kill(url):
    observer = observer_of(url)
    for connection in observer.connections(url.database):
        observer.kill(connection)
    while observer.connections(url.database):
        pass
"""
#: What each driver says when it notices.
_AWAY = "OperationalError: (2006, 'MySQL server has gone away')"
_LOST = "OperationalError: (2013, 'Lost connection to MySQL server during query')"
SAID = {
    "asyncpg": [
        "ConnectionDoesNotExistError: connection was closed in the middle of operation: "
        "terminating connection due to administrator command",
        # Before 0.32:
        "ConnectionDoesNotExistError: connection was closed in the middle of operation",
    ],
    "psycopg": [
        "AdminShutdown: terminating connection due to administrator command",
        # 3.2:
        "OperationalError: consuming input failed: "
        "terminating connection due to administrator command",
    ],
    "asyncmy": [_AWAY, _LOST],  # whether it wrote or read when it noticed
    "aiomysql": [_AWAY, _LOST],
}


def lost(target: Target, statement: str, said: str, *places: str) -> str:
    """The whole text for a connection that is gone."""
    lines = [*(f"at {place}" for place in places), f"the driver said: {said}"]
    return "\n".join(
        [
            "the test's connection was lost",
            "",
            f"test: test_it.py::test_it[{target.id}]",
            f"statement: {statement}",
            *lines,
            "What the test had done before is undone; "
            "the database is rebuilt before the next test.",
            "",
            "To fix this, do one of:",
            "- find out who ended it: see the server's log",
            "- if the test ends it itself, to see what your code does: "
            '@pytest.mark.asyncdb(isolation="reset")',
        ]
    )


SELECT_1 = 'await session.execute(text("SELECT 1"))'


@on_servers
@pytest.mark.parametrize("swallowed", [False, True])
def test_a_connection_that_the_server_ends_costs_one_test(
    project: Project, target: Target, swallowed: bool
) -> None:
    """The driver's own error, as in production, with a note; a test that goes on all the same
    is told at its end, since what it had done is gone."""
    project.tests(
        KILL,
        f"""
        async def ask(session):
            {SELECT_1}

        async def test_it(asyncdb_session, asyncdb_url):
            await add(asyncdb_session, "ada")
            kill(asyncdb_url)
            with pytest.raises({"DBAPIError" if swallowed else "ZeroDivisionError"}):
                await ask(asyncdb_session)
        """,
        AFTER,
    )
    outcome = project.run(target)
    said = next(one for one in SAID[target.driver] if f"the driver said: {one}" in outcome.text)
    told_once(
        outcome,
        lost(
            *(target, "SELECT 1", said),
            project.place("await ask(asyncdb_session)", "test_it"),
            project.place(SELECT_1, "ask"),
        ),
        **(TOLD_AT_THE_END if swallowed else FAILED),
    )


@on_servers
def test_nothing_more_is_sent_after_a_lost_connection(project: Project, target: Target) -> None:
    """A new connection would have none of the outer transaction, and what it wrote would stay."""
    project.tests(
        KILL,
        """
        async def test_it(asyncdb_session, asyncdb_sessionmaker, asyncdb_url):
            await add(asyncdb_session, "ada")
            kill(asyncdb_url)
            with pytest.raises(DBAPIError) as caught:
                await asyncdb_session.execute(text("SELECT 1"))
            assert caught.value.connection_invalidated
            await asyncdb_session.rollback()
            for session in (asyncdb_session, asyncdb_sessionmaker()):
                with pytest.raises(Exception, match="the test's connection was lost"):
                    await add(session, "bob")
        """,
        AFTER,
    )
    outcome = project.run(target).had(passed=2, errors=1)
    assert outcome.text.count("the test's connection was lost") == 1


@pytest.mark.everyday("commit", "postgres+asyncpg")
@on_servers
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_an_end_over_a_lost_connection_fails(project: Project, target: Target, end: str) -> None:
    """As in production."""
    project.tests(
        KILL,
        f"""
        async def test_it(asyncdb_session, asyncdb_url):
            await add(asyncdb_session, "ada")
            kill(asyncdb_url)
            await asyncdb_session.{end}()
        """,
        AFTER,
    )
    outcome = project.run(target).had(passed=1, failed=1)
    assert outcome.text.count("the test's connection was lost") == 1
    assert f"statement: {end.upper()}\n" in outcome.text


GONE = """
import os
import select as select_
import signal
from pathlib import Path

def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

async def test_it(asyncdb_session):
    await add(asyncdb_session, "ada")
    await asyncdb_session.commit()
    postmaster = parent(await asyncdb_session.scalar(text("SELECT pg_backend_pid()")))
    ended = os.pidfd_open(postmaster)
    os.kill(postmaster, signal.SIGKILL)
    select_.select([ended], [], [])
    os.close(ended)
    while {asks}:  # its child notices a little later
        await asyncdb_session.execute(text("SELECT 1"))
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="processes are found in /proc")
@pytest.mark.parametrize(
    ("strategy", "asks"),
    [
        ("rollback", False),
        pytest.param("rollback", True, marks=pytest.mark.complete),
        pytest.param("reset", False, marks=pytest.mark.complete),
        ("reset", True),
        pytest.param("copy", True, marks=pytest.mark.complete),
    ],
)
def test_a_server_that_is_gone_is_told_once(
    project: Project, servers: Servers, strategy: str, asks: bool
) -> None:
    """What cannot be undone, dropped or read for that reason is not, nor is it hinted at."""
    servers.need("postgres", "local")
    target = dataclasses.replace(servers.target("sqlite"), word="postgres")
    project.tests(GONE.replace("{asks}", str(asks)))
    options = ("--asyncdb-server=local", f"--asyncdb-isolation={strategy}", "-rN", "--tb=short")
    outcome = project.run_apart(target, *options)
    outcome.result.assert_outcomes(**({"failed": 1} if asks else {"passed": 1, "errors": 1}))
    text = re.sub(r"\b\d{4,5}\b", "#", outcome.text).replace("provider embedded", "provider local")
    assert text.count("the PostgreSQL server is gone") == 1, text
    assert (
        "the PostgreSQL server is gone (provider local, 127.0.0.1:#)\n\n"
        "Seen:\n"
        "  - [Errno 111] Connect call failed ('127.0.0.1', #)\n\n"
        "To fix this: see what has ended it (the memory of the machine, the disk), "
        "then run the tests again\n"
        "--------------------------------- asyncdb: SQL ---------------------------------\n"
    ) in text, text
    for other in ("could not be", "asyncdb: hint", "asyncdb: changed rows"):
        assert other not in text, text
