"""For errors whose cause is known: what it means here, and what to change.

A hint says something only where its error cannot come from much else; the first one that fits,
from the test's own exception to what caused it, is shown.
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Iterator

#: Whose words are known; an application may use the same ones.
_DATABASE = frozenset(
    {
        *("sqlalchemy", "sqlite3", "aiosqlite", "asyncpg", "psycopg", "psycopg_pool"),
        *("asyncmy", "aiomysql", "pymysql"),
    }
)
_PYTHON = frozenset({"builtins"})


@dataclasses.dataclass(frozen=True)
class Hint:
    """One known error.

    Args:
        pattern: In ``module.Class: message`` of an exception of one of *raised_by*.
        means: What it means in a test.
        change: What to do.
        raised_by: Top-level modules of exceptions; the default: SQLAlchemy's and the drivers'.
    """

    pattern: str
    means: str
    change: str
    raised_by: frozenset[str] = _DATABASE


HINTS = (
    Hint(
        r"no such table: ",
        "each connection to an in-memory SQLite database has a database of its own, and the tables "
        "were made over another one; or nobody has made this table",
        "on an engine of your own: use asyncdb_engine instead, on which all connections share one; "
        "else see that asyncdb_metadata or the migrations hold this table",
    ),
    Hint(
        r"database (table )?is locked",
        "another connection to this SQLite database holds a transaction that has written; SQLite "
        "lets one write at a time",
        "end that transaction first, or use asyncdb_engine in rollback, where units of work take "
        "turns on one connection",
    ),
    Hint(
        r"LockNotAvailable|\b1205\b.*Lock wait timeout",
        "another transaction holds a lock that this statement needs, and has not ended in time",
        "end that transaction first: commit or roll back its session, or close it",
    ),
    Hint(
        r"ConnectionDoesNotExistError|\b(2006|2013)\b.*(gone away|Lost connection)|"
        r"MySQL server has gone away|Lost connection to MySQL server|"
        r"server closed the connection unexpectedly|terminating connection due to administrator",
        "the server has closed this connection: it was idle for too long, was ended by somebody, "
        "or the server was started anew",
        "for an engine of your own: pool_pre_ping=True, and on MySQL pool_recycle below the "
        "server's wait_timeout",
    ),
    Hint(
        r"\b1366\b.*Incorrect string value",
        "the column's character set cannot hold this text: latin1 or utf8mb3 instead of utf8mb4",
        'give the table mysql_charset="utf8mb4", and the database the same default',
    ),
    Hint(
        r"prepared statement \"__asyncpg_\w+\" (does not exist|already exists)|"
        r"prepared statement \"_pg3_\w+\" (does not exist|already exists)",
        "the server does not know a statement that the driver has prepared: behind PgBouncer each "
        "transaction may be on another connection, or somebody ran DEALLOCATE or DISCARD ALL",
        'for an engine of your own behind PgBouncer: connect_args={"statement_cache_size": 0} and '
        "prepared_statement_name_func (asyncpg), or prepare_threshold=None (psycopg)",
    ),
    Hint(
        r"^(?!builtins\.).*(another operation is in progress|Command Out of Sync|"
        r"another command is already in progress|concurrent operations are not permitted|"
        r"IllegalStateChangeError|is already in progress)|"
        r"^builtins\.RuntimeError: \w+\(\) called while another coroutine is already waiting for "
        r"incoming data$",
        "two tasks use one connection or one session at the same time; neither can do two things "
        "at once",
        "give each task a session of its own: async_sessionmaker(asyncdb_engine), or "
        "asyncdb_sessionmaker",
        _DATABASE | _PYTHON,
    ),
    Hint(
        r"^builtins\.RuntimeError: .*(attached to a different loop|"
        r"is bound to a different event loop)",
        "an engine, a connection or a lock was first used on one event loop and is now used on "
        "another: pytest-asyncio gives each test its own",
        "use asyncdb_engine, which works on every loop; name the application's engine in "
        "asyncdb_app_engines; or give tests and fixtures one loop scope",
        _DATABASE | _PYTHON,
    ),
    Hint(
        r"^builtins\.RuntimeError: Event loop is closed$",
        "a connection was opened on the loop of an earlier test, which has ended; an engine keeps "
        "it in its pool",
        "use asyncdb_engine, which works on every loop; name the application's engine in "
        "asyncdb_app_engines; or dispose of yours in the test that opened it",
        _DATABASE | _PYTHON,
    ),
    Hint(
        r"MissingGreenlet",
        "an attribute was loaded from the database outside of an await: a relationship, or a "
        "column that a commit has expired",
        "load it with the query (selectinload(), joinedload()), await session.refresh(object), or "
        "make sessions with expire_on_commit=False",
    ),
    Hint(
        r"TooManyConnectionsError|too many clients already|too many connections for|"
        r"remaining connection slots are reserved|\b1040\b.*Too many connections|"
        r"\b(1203|1226)\b.*connections",
        "the server, or the account, has no connection left: pools of several engines or workers "
        "add up, or connections were not given back",
        "make pools smaller (pool_size, max_overflow), run with fewer workers, close what tests "
        "open; asyncdb_engine needs one connection in rollback",
    ),
    Hint(
        r"lost synchronization with server|Packet sequence number wrong",
        "two processes read from one connection: it was open when one of them was forked",
        "open connections after the fork; in the child first engine.dispose(close=False), or "
        "start processes with the method spawn",
    ),
    Hint(
        r"^builtins\.Failed: ScopeMismatch: You tried to access the \w+ scoped fixture "
        r"_(function|class|module|package)_scoped_runner",
        "a fixture that lives longer than one test runs on an event loop that does not",
        'give it a loop as long as its scope, such as loop_scope="session" beside scope="session"',
        _PYTHON,
    ),
    Hint(
        r"^builtins\.Failed: ScopeMismatch: You tried to access the function scoped fixture "
        r"(asyncdb_\w+|_asyncdb_view)",
        "a fixture that lives longer than one test asks for the database of one test",
        "make that fixture function-scoped, or fill the database once for all tests with "
        "asyncdb_seed",
        _PYTHON,  # pytest gives its own that module
    ),
    Hint(
        r"^builtins\.RuntimeError: 'cryptography' package is required",
        "MySQL's account logs in with caching_sha2_password, for which the driver needs a package",
        "pip install cryptography",
        _DATABASE | _PYTHON,
    ),
)
_PATTERNS = tuple((re.compile(hint.pattern, re.DOTALL), hint) for hint in HINTS)


def find(error: BaseException) -> Hint | None:
    """The hint for an error, or for what has caused it; none where we have told the cause."""
    causes = list(_causes(error))
    if any(map(_is_told, causes)):
        return None
    for one in causes:
        text = f"{type(one).__module__}.{type(one).__qualname__}: {one}"
        for pattern, hint in _PATTERNS:
            if _root(one) in hint.raised_by and pattern.search(text):
                return hint
    return None


def _is_told(error: BaseException) -> bool:
    """Is it an error of ours, or one with a note of ours?"""
    notes = getattr(error, "__notes__", ())
    return _root(error) == "pytest_asyncdb" or any("To fix this" in note for note in notes)


def _root(error: BaseException) -> str:
    return type(error).__module__.partition(".")[0]


def render(hint: Hint) -> str:
    """The text of the section, at 80 columns."""
    return "\n".join(
        line
        for before, text in (("It means: ", hint.means), ("To fix this: ", hint.change))
        for line in textwrap.wrap(before + text, 80, subsequent_indent="  ", break_on_hyphens=False)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    hidden: list[BaseException | None] = []
    while waiting or hidden:
        one = waiting.pop(0) if waiting else hidden.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        orig = getattr(one, "orig", None)
        waiting += [orig if isinstance(orig, BaseException) else None]
        waiting += [one.__cause__ or (None if one.__suppress_context__ else one.__context__)]
        waiting += getattr(one, "exceptions", ())
        if _root(one) == "sqlalchemy":
            # A ROLLBACK on the way out fails on a connection that the error before has closed.
            hidden.append(one.__context__)
