"""What portability calls refused is refused by the server itself, each rule by an example."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import nullcontext

import pytest
from fix_servers import Servers
from sqlalchemy import (
    UUID,
    BigInteger,
    Column,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    insert,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from pytest_asyncdb.reports.portability import RULES, problems

DIALECTS = {"sqlite": "sqlite", "postgres": "postgresql", "mysql": "mysql", "mariadb": "mariadb"}
DRIVERS = {"postgres": "asyncpg", "mysql": "asyncmy", "mariadb": "asyncmy"}


#: By what a rule says: the columns of a table to which it applies.
EXAMPLES: dict[str, Callable[[], list[Column]]] = {
    "the type UUID does not exist there": lambda: [Column("x", UUID)],
    "a key on text or bytes of any length is refused": lambda: [Column("x", Text, index=True)],
    "only an INTEGER column that is the whole primary key is autoincremented": lambda: [
        Column("x", Integer)
    ],
    "the default is PostgreSQL's own": lambda: [
        Column("x", String(40), server_default=text("'a'::text"))
    ],
}
CASES = [(backend, rule.means) for rule in RULES for backend in rule.backends.split()]


def build(backend: str, table: Table, servers: Servers) -> None:
    """Make the table and a row of defaults in a database that is thrown away."""
    target = servers.target(f"{backend}+{DRIVERS[backend]}" if backend in DRIVERS else backend)
    name = f"portability_{os.getpid()}"
    url = target.server.set(database=name) if target.server else "sqlite+aiosqlite://"

    async def work() -> None:
        engine = create_async_engine(url)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(table.metadata.create_all)
                await connection.execute(insert(table))
        finally:
            await engine.dispose()

    with target.observer.throw_away(name) if target.server else nullcontext():
        asyncio.run(work())


@pytest.mark.parametrize(("backend", "means"), CASES)
def test_what_is_said_to_be_refused_is_refused(backend: str, means: str, servers: Servers) -> None:
    """And the finding names it."""
    key = BigInteger if "INTEGER column" in means else Integer
    metadata = MetaData()
    table = Table("t", metadata, Column("id", key, primary_key=True), *EXAMPLES[means]())
    found = problems([metadata], {backend: DIALECTS[backend]})
    assert means in [said for _, said, _ in found]

    with pytest.raises(DBAPIError):
        build(backend, table, servers)


@pytest.mark.parametrize("backend", DIALECTS)
def test_a_plain_table_is_not_refused(backend: str, servers: Servers) -> None:
    """The control: what the examples have in common is not what is refused."""
    columns = [Column("id", Integer, primary_key=True), Column("x", String(40))]
    build(backend, Table("t", MetaData(), *columns), servers)
