"""The private names of drivers that the plugin uses still exist.

Each stands in ``backends/postgres.py`` or ``backends/mysql_drivers.py``, with a comment on what needs it.
"""

from __future__ import annotations

import asyncio
import importlib

import pytest
from fix_servers import WORDS, Servers

from pytest_asyncdb import build_engine

#: What sends COM_RESET_CONNECTION and reads the answers.
MYSQL = ("_result", "_execute_command", "_read_query_result", "_next_seq_id", "next_result")
#: By driver: the private attributes of its connection.
OF_CONNECTIONS = {
    "asyncpg": ["_transport", "_top_xact"],
    "psycopg": ["_prepared"],
    "asyncmy": ["_transport", *MYSQL, "_init_command"],
    "aiomysql": ["_writer", *MYSQL, "init_command"],
}
#: And of its cursors.
OF_CURSORS = {driver: ["_show_warnings", "_result"] for driver in ("asyncmy", "aiomysql")}


@pytest.mark.parametrize("word", [w for w in WORDS if w.partition("+")[2] in OF_CONNECTIONS])
def test_the_private_names_of_a_driver_exist(servers: Servers, word: str) -> None:
    """On a real connection that has run a statement."""
    driver = word.partition("+")[2]
    server = servers.target(word).server
    assert server is not None

    async def missing() -> list[str]:
        engine = build_engine(server)
        try:
            async with engine.connect() as connection:
                await connection.exec_driver_sql("SELECT 1")
                raw = (await connection.get_raw_connection()).driver_connection
                gone = [name for name in OF_CONNECTIONS[driver] if not hasattr(raw, name)]
                if driver in OF_CURSORS:
                    cursor = importlib.import_module(f"{driver}.cursors").Cursor(raw)
                    gone += [name for name in OF_CURSORS[driver] if not hasattr(cursor, name)]
                    gone += [] if hasattr(raw._result, "has_next") else ["_result.has_next"]
                return gone
        finally:
            await engine.dispose()

    gone = asyncio.run(missing())
    assert not gone, (
        f"{driver}'s connection or cursor has no {gone} any more: see its class in backends/"
    )
