"""Ctrl-C: the run says where it stood and what it waited for, and leaves nothing."""

from __future__ import annotations

import os
import re
import signal

import pytest
from fix_chaos import Run
from fix_project import WITHOUT, Project
from fix_servers import Servers, Target
from fix_suite import WORDS

#: Whether a session of the run waits for a lock; ``{}`` stands for its run id.
WAITS = {
    "postgres": "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    " AND datname LIKE 'asyncdb\\_{}%'",
    "mysql": "SELECT id FROM information_schema.innodb_trx JOIN information_schema.processlist"
    " ON id = trx_mysql_thread_id WHERE trx_state = 'LOCK WAIT' AND db LIKE 'asyncdb\\_{}%'",
}
WAITS["mariadb"] = WAITS["mysql"]
#: Whether a session of the run is in a statement that takes long.
SLEEPS = (
    "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname LIKE 'asyncdb\\_{}%'"
)
INSERT = {
    "asyncpg": "INSERT INTO users (name) VALUES ($1::VARCHAR) RETURNING users.id",
    "psycopg": "INSERT INTO users (name) VALUES (%(name)s::VARCHAR) RETURNING users.id",
    "asyncmy": "INSERT INTO users (name) VALUES (%s)",
    "aiomysql": "INSERT INTO users (name) VALUES (%s)",
}
ADD = 'await session.execute(insert(User), [{"name": word} for word in words])'

LOCK = """
async def test_it(asyncdb_sessionmaker):
    async with asyncdb_sessionmaker() as one, asyncdb_sessionmaker() as other:
        await add(one, "ada")
        await add(other, "ada")
"""
OTHER = 'await add(other, "ada")'


def interrupted(project: Project, target: Target, waits: str, *arguments: str) -> str:
    """What is printed in the plugin's section and below if the run is interrupted in its wait.

    Args:
        waits: A query with a row for each session of the run that waits.
        arguments: More of the command line.
    """
    run = Run(project, *target.arguments, *arguments)
    while run.id is None or not target.observer.query(waits.format(run.id)):
        assert run.at(run.age + 0.2), run.text  # InnoDB renews its table after 0.1 s without a look
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    assert run.end() == pytest.ExitCode.INTERRUPTED, run.text
    run.leaves_nothing(target)
    return section(run.text)


def section(text: str) -> str:
    """The plugin's section without what differs from run to run; only pytest's lines follow."""
    found, rest = re.split(r"^!+ KeyboardInterrupt !+\n", text, flags=re.M)
    assert [*map(str.strip, rest.splitlines())][1:-1] == [
        "(to show a full traceback on KeyboardInterrupt use --full-trace)"
    ], text
    assert "Traceback" not in found
    assert "Warning" not in found
    found = found.partition("= asyncdb =")[2].partition("\n")[2]
    return re.sub(r"\b\d+\.\d+ s\b", "# s", re.sub(r"\bTask-\d+", "Task-#", found))


def text(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


@pytest.mark.everyday("postgres+asyncpg", "mariadb+asyncmy")
@pytest.mark.parametrize("target", WORDS[1:], indirect=True)
def test_a_wait_for_a_lock_is_shown(project: Project, target: Target) -> None:
    """With the statement, the lines that led to it, and the transaction that holds the lock."""
    project.tests(LOCK)
    found = interrupted(project, target, WAITS[target.backend], "--asyncdb-isolation=reset")
    statement, add = INSERT[target.driver], project.place(ADD, "add")
    assert found == text(
        f"asyncdb: interrupted in test_it.py::test_it[{target.id}]",
        f"  at {project.place(OTHER, 'test_it')}",
        f"  at {add}",
        f"  # s in this statement: {statement}",
        f"    Task-# (test_it), at {add}",
        "  In a transaction: Task-# (test_it)",
        f"    1  {statement} -- {add}",
    )


#: Why the main thread waits for a statement: a test, and what is said after its first line.
LONG = {
    "another task": (
        """
        async def work(sessions):
            async with sessions() as session:
                await session.execute(text("SELECT pg_sleep(600)"))

        async def test_it(asyncdb_sessionmaker):
            working = asyncio.create_task(work(asyncdb_sessionmaker))
            await asyncio.Event().wait()
        """,
        ("await asyncio.Event().wait()", "test_it"),
        "Task-# (work), at {}",
        ('await session.execute(text("SELECT pg_sleep(600)"))', "work"),
    ),
    "tasks that it awaits": (
        """
        async def work(session):
            await session.execute(text("SELECT pg_sleep(600)"))

        async def test_it(asyncdb_session):
            async with asyncio.TaskGroup() as group:
                group.create_task(work(asyncdb_session))
        """,
        ("async with asyncio.TaskGroup() as group:", "test_it"),
        "Task-# (work), at {}",
        ('await session.execute(text("SELECT pg_sleep(600)"))', "work"),
    ),
    "another thread": (
        """
        def work(engine):
            with engine.connect() as connection, pytest.raises(BaseException):
                connection.execute(text("SELECT pg_sleep(600)"))

        def test_it(asyncdb_sync_engine):
            threading.Thread(target=work, args=[asyncdb_sync_engine], name="worker").start()
            threading.Event().wait()
        """,
        ("threading.Event().wait()", "test_it"),
        "worker",
        None,
    ),
    "sync code": (
        """
        def test_it(asyncdb_sync_session):
            asyncdb_sync_session.execute(text("SELECT pg_sleep(600)"))
        """,
        ('asyncdb_sync_session.execute(text("SELECT pg_sleep(600)"))', "test_it"),
        "MainThread",
        None,
    ),
}


@pytest.mark.everyday("another task", "another thread")
@pytest.mark.parametrize("kind", LONG)
def test_a_long_statement_is_shown(project: Project, servers: Servers, kind: str) -> None:
    """Whoever runs it, in whatever task or thread."""
    code, stands, who, runs = LONG[kind]
    project.tests(code)
    project.ini(filterwarnings=None)  # a thread of the test is still running
    target = servers.target("postgres+asyncpg")
    found = interrupted(project, target, SLEEPS, "--asyncdb-isolation=reset")
    assert found == text(
        "asyncdb: interrupted in test_it.py::test_it[postgres-asyncpg]",
        f"  at {project.place(*stands)}",
        "  # s in this statement: SELECT pg_sleep(600)",
        f"    {who.format(runs and project.place(*runs))}",
    )


def test_workers_tests_are_named(project: Project, servers: Servers) -> None:
    """The controller of xdist knows no more about them."""
    project.tests(LOCK)
    target = servers.target("postgres+asyncpg")
    found = interrupted(project, target, WAITS["postgres"], "--asyncdb-isolation=reset", "-n1")
    assert found == text("asyncdb: interrupted in test_it.py::test_it[postgres-asyncpg]")


WAITING = '''
import contextlib
import os
import signal
import sys
import threading

from pytest_asyncdb.servers.memory import MemoryProvider

ENDS = threading.Event()


# A shell ignores SIGINT for what it runs in the background, and so would this process.
signal.signal(signal.SIGINT, signal.default_int_handler)


def place():
    """The functions that the main thread is in, and where it is in the innermost one."""
    frame = sys._current_frames()[threading.main_thread().ident]
    names, at = [], frame.f_lasti
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names, at


class Waiting(MemoryProvider):
    @contextlib.contextmanager
    def obtain(self, *arguments):
        before, now = None, place()
        # Blocked there: a signal just before the main thread blocks would not wake it.
        while now != before or not {"pytest_runtest_protocol", "result"} <= set(now[0]):
            ENDS.wait(0.02)  # it can go on meanwhile
            before, now = now, place()
        os.kill(os.getpid(), signal.SIGINT)
        ENDS.wait()
        with super().obtain(*arguments) as server:
            yield server


def pytest_asyncdb_register(registry):
    registry.add_provider("memory", f"{__name__}:Waiting")


def pytest_sessionfinish():
    ENDS.set()
'''


def test_a_server_that_is_being_started_is_named(project: Project) -> None:
    project.write("waiting.py", WAITING)
    project.tests("async def test_it(asyncdb_session): pass")
    result = project.pytester.runpytest_subprocess(
        *WITHOUT, "-p", "waiting", "--asyncdb=sqlite", timeout=60
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert section(str(result.stdout)) == text(
        "asyncdb: interrupted in test_it.py::test_it[sqlite]",
        "  It waited for the server: SQLite was being started.",
    )
