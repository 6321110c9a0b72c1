"""SQLite's databases in ``reset`` and ``copy`` are files, which no run leaves behind."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from fix_project import Project
from fix_servers import Servers

TEST = """
from pathlib import Path

async def test_it(asyncdb_session, asyncdb_url):
    await add(asyncdb_session, "ada")
    await asyncdb_session.commit()
    file = Path(asyncdb_url.database)
    Path("seen").write_text(f"{file}\\n{file.parent.stat().st_mode}")
"""
WAL = """
from sqlalchemy import event
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine("sqlite+aiosqlite:///real.db")
sessions = async_sessionmaker(engine)

@event.listens_for(engine.sync_engine, "connect")
def use_wal(connection, record):
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
"""
KILLED = "    os.kill(os.getpid(), 9)\n"


def seen(project: Project) -> tuple[Path, int]:
    """The file of the test's database, and the mode of its folder."""
    file, mode = (project.pytester.path / "seen").read_text().split("\n")
    return Path(file), stat.S_IMODE(int(mode))


def test_a_control_in_memory_a_writer_locks_readers_out() -> None:
    name = "file:/asyncdb_control?vfs=memdb"
    with (
        closing(sqlite3.connect(name, uri=True)) as one,
        closing(sqlite3.connect(name, uri=True, timeout=0)) as two,
    ):
        one.execute("CREATE TABLE t (id INTEGER)")
        one.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(sqlite3.OperationalError, match="database is locked"):
            two.execute("SELECT * FROM t")


@pytest.mark.parametrize("strategy", ["reset", "copy"])
def test_the_file_is_the_users_own_and_goes(
    project: Project, servers: Servers, strategy: str
) -> None:
    project.tests(TEST)
    project.run(servers.target("sqlite"), f"--asyncdb-isolation={strategy}").passed(1)
    file, mode = seen(project)
    assert mode == 0o700
    assert not file.parent.exists()


@pytest.mark.parametrize("strategy", ["reset", "copy"])
def test_an_application_has_its_write_ahead_log(
    project: Project, servers: Servers, strategy: str
) -> None:
    """What its listener sets lasts; each test finds the template."""
    project.ini(asyncdb_app_engines="app.db:engine")
    project.write("app/db.py", WAL)
    project.tests(
        """
        from app.db import engine, sessions

        @pytest.mark.parametrize("number", [1, 2])
        async def test_it(asyncdb_engine, number):
            async with engine.connect() as connection:
                for name, value in [("journal_mode", "wal"), ("synchronous", 1)]:
                    assert await connection.scalar(text(f"PRAGMA {name}")) == value
            async with sessions() as session:
                assert await names(session) == []
                await add(session, "ada")
                await session.commit()
        """
    )
    project.run(servers.target("sqlite"), f"--asyncdb-isolation={strategy}").passed(2)
    assert not (project.path / "real.db").exists()


def test_the_next_run_removes_the_file_of_a_killed_one(project: Project, servers: Servers) -> None:
    target = servers.target("sqlite")
    project.tests("import os\n" + TEST + KILLED)
    project.run_apart(target, "--asyncdb-isolation=reset")
    file, _ = seen(project)
    project.tests(TEST)
    project.run_apart(target, "--asyncdb-isolation=reset").passed(1)
    assert not file.parent.exists()
