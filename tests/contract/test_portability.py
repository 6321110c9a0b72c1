"""What portability calls refused is refused by the server itself, each rule by an example."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import nullcontext

import pytest
from fix_project import Project
from fix_servers import Servers
from sqlalchemy import (
    UUID,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    func,
    insert,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from pytest_asyncdb.reports.portability import troubles
from pytest_asyncdb.reports.portability_rules import COLUMNS, TABLES

DIALECTS = {"sqlite": "sqlite", "postgres": "postgresql", "mysql": "mysql", "mariadb": "mariadb"}
DRIVERS = {"postgres": "asyncpg", "mysql": "asyncmy", "mariadb": "asyncmy"}


def parent(**options: object) -> Callable[[], list[object]]:
    return lambda: [Column("x", Integer, ForeignKey("t.id", **options), server_default="1")]


#: By what a rule says: columns and constraints of a table to which it applies.
EXAMPLES: dict[str, Callable[[], list[object]]] = {
    "the type UUID does not exist there": lambda: [Column("x", UUID)],
    "a key on text or bytes of any length is refused": lambda: [Column("x", Text, index=True)],
    "text, bytes and JSON take a default of the server only in parentheses": lambda: [
        Column("x", Text, server_default="x")
    ],
    "a key has at most 3072 bytes, 768 characters": lambda: [Column("x", String(900), unique=True)],
    "a row has at most 65535 bytes: VARCHAR ends at 16383 characters": lambda: [
        Column("x", String(17000))
    ],
    "there is no function now()": lambda: [Column("x", String(40), server_default=text("now()"))],
    "the default is PostgreSQL's own": lambda: [
        Column("x", String(40), server_default=text("'a'::text"))
    ],
    "the default is MySQL's own": lambda: [
        Column("x", String(40), server_default=text("(uuid())"))
    ],
    "the condition is PostgreSQL's own": lambda: [
        Column("x", String(40)),
        CheckConstraint("x ~ 'a'"),
    ],
    "foreign keys cannot be deferred": parent(deferrable=True, initially="DEFERRED"),
    "ON DELETE SET DEFAULT is refused": parent(ondelete="SET DEFAULT"),
    "an index is of columns, not of expressions": lambda: [
        Column("x", String(40)),
        Index("low", func.lower(text("x"))),
    ],
    "there are no schemas": list,
    "names have at most 64 characters": lambda: [Column("x" * 65, Integer)],
    "only one INTEGER column that is the whole primary key counts up by itself": lambda: [
        Column("x", Integer)
    ],
}
CASES = [
    (backend, rule.says)
    for rule in (*COLUMNS, *TABLES)
    if rule.refused
    for backend in rule.backends
]


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


@pytest.mark.parametrize(("backend", "says"), CASES)
def test_what_is_said_to_be_refused_is_refused(backend: str, says: str, servers: Servers) -> None:
    """And the finding names it."""
    key = BigInteger if "INTEGER column" in says else Integer
    schema = "elsewhere" if "schemas" in says else None
    metadata = MetaData()
    table = Table(
        "t", metadata, Column("id", key, primary_key=True), *EXAMPLES[says](), schema=schema
    )
    found = troubles([metadata], {backend: DIALECTS[backend]})
    assert says in [trouble.says for trouble in found if trouble.refused]

    with pytest.raises(DBAPIError):
        build(backend, table, servers)


@pytest.mark.parametrize("backend", DIALECTS)
def test_a_plain_table_is_not_refused(backend: str, servers: Servers) -> None:
    """The control: what the examples have in common is not what is refused."""
    columns = [Column("id", Integer, primary_key=True), Column("x", String(40))]
    build(backend, Table("t", MetaData(), *columns), servers)


def test_the_summary_of_a_failed_run_names_what_is_not_portable(
    project: Project, servers: Servers
) -> None:
    """With several backends, and only where a database test failed."""
    project.tests("async def test_it(asyncdb_session): assert asyncdb_session is None")
    target = servers.target("mariadb+asyncmy")
    arguments = [*target.arguments, f"--asyncdb=sqlite,{target.word}"]
    result = project.pytester.runpytest_inprocess(*arguments)
    result.assert_outcomes(failed=2)
    assert result.outlines[result.outlines.index(LINES[0]) :][: len(LINES)] == LINES
    project.tests("async def test_it(asyncdb_session): pass", "def test_b(): assert 0")
    result = project.pytester.runpytest_inprocess(*arguments)
    result.assert_outcomes(passed=2, failed=1)
    assert LINES[0] not in result.outlines


LINES = [
    "asyncdb: of the metadata, not the same on every backend:",
    "  sqlite treats differently: users.name, posts.text",
    "    the length of text is not checked",
    '    portable: CheckConstraint("length(…) <= n"), or a validation in Python',
    "  mariadb treats differently: users.name",
    "    unique text is compared without case: 'Ada' and 'ada' are one",
    "    portable: lower() it in Python, or with_variant(String(n,",
    '    collation="utf8mb4_bin"), …)',
]
