"""MySQL's and MariaDB's scheduled events do not run while tests do."""

from __future__ import annotations

import pytest
from fix_project import Project
from fix_servers import WORDS, Servers

pytestmark = pytest.mark.everyday("mysql+aiomysql", "mariadb+asyncmy")

#: An event without a time of its first run runs at once.
CREATE = (
    "CREATE EVENT {} ON SCHEDULE EVERY 1 SECOND STARTS CURRENT_TIMESTAMP + INTERVAL 1 HOUR "
    "DO INSERT INTO users (name) VALUES (uuid())"
)

CONFTEST = f"""
import pytest
from app.models import Base
from sqlalchemy import text


@pytest.fixture(scope="session")
def asyncdb_migrate():
    async def migrate(connection):
        await connection.run_sync(Base.metadata.create_all)
        await connection.exec_driver_sql("{CREATE.format("`of the``schema`")}")

    return migrate


@pytest.fixture(scope="session")
def asyncdb_seed():
    async def seed(session):
        await session.execute(text("{CREATE.format("of_the_seed")}"))

    return seed
"""

TESTS = """
@pytest.mark.parametrize("how", [
    pytest.param(how, marks=pytest.mark.asyncdb(isolation=how))
    for how in ("rollback", "reset", "copy")
])
async def test_they_are_disabled(asyncdb_session, how):
    rows = await asyncdb_session.execute(text("SHOW EVENTS"))
    found = [(row.Name, row.Status) for row in rows]
    assert found == [("of the`schema", "DISABLED"), ("of_the_seed", "DISABLED")]


@pytest.mark.asyncdb(isolation="copy")
async def test_one_can_be_enabled(asyncdb_session):
    await asyncdb_session.execute(
        text("ALTER EVENT of_the_seed ON SCHEDULE EVERY 1 SECOND STARTS CURRENT_TIMESTAMP ENABLE")
    )
    while not await names(asyncdb_session):
        await asyncdb_session.commit()
        await asyncio.sleep(0.05)
"""


@pytest.mark.parametrize("word", [w for w in WORDS if w.startswith(("mysql", "mariadb"))])
def test_events_do_not_run(project: Project, servers: Servers, word: str) -> None:
    """On servers that the plugin starts the scheduler is off; on others, such as this one for the
    inner run, the events of the schema and the seed are disabled. A test can enable one."""
    target = servers.target(word)
    look = target.observer
    assert look.query("SELECT @@event_scheduler") == [("OFF",)]
    project.write("conftest.py", CONFTEST)
    project.tests(TESTS)
    try:
        look.query("SET GLOBAL event_scheduler = ON")
        project.run(target).passed(4)
    finally:
        look.query("SET GLOBAL event_scheduler = OFF")
