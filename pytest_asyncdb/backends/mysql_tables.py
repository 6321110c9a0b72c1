"""Queries that show at low cost what has changed in a MySQL or MariaDB database."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from itertools import chain

from pytest_asyncdb.abc import LEFT_OPEN, LEFT_TEXT, Rows, Sql
from pytest_asyncdb.backends.mysql_dump import HISTORY, TABLES, Definitions, literal, quoted

#: Counters of the statements that may change a schema, in any session and in procedures. TRUNCATE
#: cannot change it. MySQL's performance_schema.global_status does not have these counters.
_COUNTERS = [
    *("Com_rename_table", "Com_alter_db", "Com_analyze"),
    *(
        f"Com_{verb}_{what}"
        for verb in ("create", "alter", "drop")
        for what in (
            *("table", "index", "view", "trigger", "procedure", "function", "event"),
            *("sequence", "package", "package_body", "library"),
        )
    ),
]
_NAMES = ", ".join(map(literal, _COUNTERS))
DDL = f"SHOW GLOBAL STATUS WHERE variable_name IN ({_NAMES}) AND value > 0"


#: Shows, among other things, which sessions are in a transaction. Needs the right PROCESS.
INNODB = "SHOW ENGINE INNODB STATUS"

#: Finds the number of a connection in InnoDB's list of transactions. information_schema has a
#: cached copy of the list, which is not refreshed as long as it is read every 100 ms.
_ACTIVE = re.compile(
    r"^---TRANSACTION \d+, ACTIVE.*\n(?:(?!---).*\n)*?\w+ thread id (\d+)", re.MULTILINE
)


#: The number of tables in one UNION. Its cost grows faster than this number: MySQL takes 31 ms for
#: 1,000 tables, and half of that for ten times 100.
_UNITED = 100


@dataclasses.dataclass(frozen=True)
class State:
    """The rows and counters of a database."""

    #: The server's time in seconds.
    now: int
    filled: frozenset[str]
    #: The time of the last write to each table, in seconds; None: not known.
    written: dict[str, int | None]
    #: The next value of each AUTO_INCREMENT counter and sequence.
    ids: dict[str, int]

    @classmethod
    def of(cls, answers: Iterable[Rows], counting: Iterable[str]) -> State:
        """Return the state, from the answers to the :func:`probe`.

        Args:
            counting: The tables with a counter.
        """
        now = 0
        filled = set()
        written: dict[str, int | None] = {}
        ids = dict.fromkeys(counting, 1)
        for kind, name, time, number in chain.from_iterable(answers):
            if kind == "now":
                now = int(time)
            elif kind == "row":
                filled.add(name)
            elif kind == "sequence":
                ids[name] = int(number)
            else:
                written[name] = None if time is None else int(time)
                if name in ids:
                    # After TRUNCATE MySQL reports no counter.
                    ids[name] = int(number or 1)
        return cls(now, frozenset(filled), written, ids)


def on_processlist(query: str) -> tuple[str, ...]:
    """Return statements, of which the last one returns the rows of *query*.

    In *query*, ``{processlist}`` stands for the table of all sessions that the account may see.
    MySQL has two such tables. One is deprecated, and the drivers report the server's warning. The
    other one is empty if the performance schema is switched off; it does not exist before MySQL
    8.0.22 and on MariaDB. For MariaDB the condition is a comment.
    """
    before, after = map(literal, query.split("{processlist}"))
    which = "if(0 /*!80022 OR @@performance_schema */, 'performance', 'information')"
    return (
        f"SET @asyncdb_query = concat({before}, {which}, '_schema.processlist', {after})",
        "PREPARE asyncdb_query FROM @asyncdb_query",
        "EXECUTE asyncdb_query",
    )


async def left_open(sql: Sql, database: str, statuses: Sequence[Rows]) -> list[str]:
    """Return words for the other sessions that are in a transaction in *database*.

    Args:
        statuses: The answer to :data:`INNODB`; empty if the account may not see it.
    """
    numbers = [number for ((_, _, text),) in statuses for number in _ACTIVE.findall(text)]
    if not numbers:
        return []
    rows = await sql.answer(
        on_processlist(
            f"SELECT id, coalesce(left(info, {LEFT_TEXT}), 'in a transaction') "
            f"FROM {{processlist}} WHERE db = {literal(database)} "
            f"AND id <> connection_id() AND id IN ({', '.join(numbers)})"
        )
    )
    return [f"{LEFT_OPEN}{number}: {what}" for number, what in rows]


def count_ddl(rows: Rows) -> int:
    """Return the number of DDL statements that the server has run, from its answer to
    :data:`DDL`."""
    return sum(int(value) for _, value in rows)


def probe(definitions: Definitions, database: str) -> list[str]:
    """Return the queries for :meth:`State.of`. One of them fails if a table was dropped.

    They return no row for a table without writes and rows, because drivers are slow with rows.
    """
    # MariaDB's tables with system versioning keep deleted rows.
    history = dict.fromkeys(definitions.names("SYSTEM VERSIONED"), HISTORY)
    selects = [
        "SELECT 'now', NULL, unix_timestamp(), NULL",
        "SELECT 'table', table_name, "
        "CASE WHEN engine = 'InnoDB' THEN unix_timestamp(update_time) END, auto_increment "
        f"FROM information_schema.tables WHERE table_schema = {literal(database)} "
        "AND (auto_increment > 1 OR update_time IS NOT NULL)",
        *(
            f"(SELECT 'row', {literal(name)}, NULL, NULL "
            f"FROM {quoted(database, name)}{history.get(name, '')} LIMIT 1)"
            for name in definitions.names(*TABLES)
        ),
        *(
            f"SELECT 'sequence', {literal(name)}, NULL, next_not_cached_value "
            f"FROM {quoted(database, name)}"
            for name in definitions.names("SEQUENCE")
        ),
    ]
    starts = range(0, len(selects), _UNITED)
    return [" UNION ALL ".join(selects[start : start + _UNITED]) for start in starts]
