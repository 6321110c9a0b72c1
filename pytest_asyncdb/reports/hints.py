"""Hints for errors whose cause is known: what the error means in a test, and what to change.

A hint matches only if its error can hardly have another cause. The first match along the chain of
exceptions is shown.
"""

from __future__ import annotations

import dataclasses
import re

from pytest_asyncdb._record.text import wrap
from pytest_asyncdb.reports.causes import chain, code_of, package

#: Packages whose exceptions are known; an application may use the same class names and words.
_DATABASE = frozenset(
    {
        *("sqlalchemy", "sqlite3", "aiosqlite", "asyncpg", "psycopg", "psycopg_pool"),
        *("asyncmy", "aiomysql", "pymysql"),
    }
)


@dataclasses.dataclass(frozen=True)
class Hint:
    """One known error, recognised by any of the last four arguments.

    Args:
        means: What it means in a test.
        change: What to do.
        classes: Names of exception classes of SQLAlchemy or a driver.
        codes: SQLSTATEs or error numbers.
        message: A pattern in the message of an exception of SQLAlchemy or a driver.
        python: A pattern in ``Class: message`` of a built-in exception, or one of pytest, which
            pretends to be built in.
    """

    means: str
    change: str
    classes: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    message: str | None = None
    python: str | None = None

    def fits(self, error: BaseException) -> bool:
        name = type(error).__name__
        if package(error) == "builtins":
            return self.python is not None and bool(re.match(self.python, f"{name}: {error}"))
        return package(error) in _DATABASE and (
            name in self.classes
            or code_of(error) in self.codes
            or (self.message is not None and bool(re.search(self.message, str(error), re.DOTALL)))
        )


HINTS = (
    Hint(
        "each connection to an in-memory SQLite database has a database of its own, and the tables "
        "were created on another one; or the table was never created",
        "on an engine of your own: use asyncdb_engine instead, whose connections share one "
        "database; else check that asyncdb_metadata or the migrations contain this table",
        message=r"no such table: ",
    ),
    Hint(
        "another connection to this SQLite database has a transaction that has written; SQLite "
        "allows one writer at a time",
        "end that transaction first, or use asyncdb_engine in rollback, where units of work take "
        "turns on one connection",
        message=r"database (table )?is locked",
    ),
    Hint(
        "another transaction holds a lock that this statement needs, and did not end in time",
        "end that transaction first: commit or roll back its session, or close it",
        codes=("55P03", "1205"),
    ),
    Hint(
        "the server has closed this connection: it was idle for too long, an administrator ended "
        "it, or the server was restarted",
        "for an engine of your own: pool_pre_ping=True, and on MySQL pool_recycle below the "
        "server's wait_timeout",
        classes=("ConnectionDoesNotExistError",),
        codes=("2006", "2013", "57P01"),
        message=r"MySQL server has gone away|Lost connection to MySQL server|"
        r"server closed the connection unexpectedly|terminating connection due to administrator",
    ),
    Hint(
        "the column's character set cannot store this text: latin1 or utf8mb3 instead of utf8mb4",
        'give the table mysql_charset="utf8mb4", and the database the same default',
        message=r"Incorrect string value",
    ),
    Hint(
        "the server does not know a statement that the driver has prepared: behind PgBouncer each "
        "transaction may use another connection, or DEALLOCATE or DISCARD ALL was run",
        'for an engine of your own behind PgBouncer: connect_args={"statement_cache_size": 0} and '
        "prepared_statement_name_func (asyncpg), or prepare_threshold=None (psycopg)",
        message=r'prepared statement "_(_asyncpg|pg3)_\w+" (does not exist|already exists)',
    ),
    Hint(
        "two tasks use one connection or one session at the same time; neither supports that",
        "give each task a session of its own: async_sessionmaker(asyncdb_engine), or "
        "asyncdb_sessionmaker",
        classes=("IllegalStateChangeError",),
        codes=("2014",),
        message=r"another operation is in progress|Command Out of Sync|is already in progress|"
        r"concurrent operations are not permitted",
        python=r"RuntimeError: \w+\(\) called while another coroutine is already waiting for "
        r"incoming data$",
    ),
    Hint(
        "an engine, a connection or a lock belongs to the event loop of its first use, which is "
        "another one, or closed: pytest-asyncio runs each test on a loop of its own",
        "use asyncdb_engine, which works on every loop; name the application's engine in "
        "asyncdb_app_engines; or give tests and fixtures one loop scope",
        python=r"RuntimeError: (.*(attached to a different loop|is bound to a different event loop)"
        r"|Event loop is closed$)",
    ),
    Hint(
        "an attribute was loaded from the database outside of an await: a relationship, or a "
        "column that a commit has expired",
        "load it with the query (selectinload(), joinedload()), await session.refresh(object), or "
        "create sessions with expire_on_commit=False",
        classes=("MissingGreenlet",),
    ),
    Hint(
        "the server, or the account, has reached its connection limit: the pools of several "
        "engines or workers add up, or connections were not closed",
        "make pools smaller (pool_size, max_overflow), run with fewer workers, close what tests "
        "open; asyncdb_engine needs one connection in rollback",
        codes=("53300", "1040", "1203"),
        message=r"too many clients already|too many connections for|"
        r"remaining connection slots are reserved|exceeded the 'max_(user_)?connections",
    ),
    Hint(
        "two processes read from one connection: it was open when one of them was forked",
        "open connections after the fork; in the child first engine.dispose(close=False), or "
        "start processes with the method spawn",
        message=r"lost synchronization with server|Packet sequence number wrong",
    ),
    Hint(
        "a fixture that lives longer than one test runs on an event loop that does not",
        'give it a loop as long as its scope, such as loop_scope="session" beside scope="session"',
        python=r"Failed: ScopeMismatch: You tried to access the \w+ scoped fixture "
        r"_(function|class|module|package)_scoped_runner",
    ),
    Hint(
        "a fixture that lives longer than one test requests the database of one test",
        "make that fixture function-scoped, or fill the database once for all tests with "
        "asyncdb_seed",
        python=r"Failed: ScopeMismatch: You tried to access the function scoped fixture "
        r"(asyncdb_\w+|_asyncdb_view)",
    ),
)


def find(error: BaseException) -> Hint | None:
    """The hint for an error or for one that led to it; None if the plugin has explained it."""
    causes = list(chain(error))
    if any(map(_is_explained, causes)):
        return None
    return next((hint for one in causes for hint in HINTS if hint.fits(one)), None)


def _is_explained(error: BaseException) -> bool:
    """Is it the plugin's own error, or one with the plugin's note?"""
    notes = getattr(error, "__notes__", ())
    return package(error) == "pytest_asyncdb" or any("To fix this" in note for note in notes)


def render(hint: Hint) -> str:
    """The text of the section."""
    lines = wrap(hint.means, "It means: ", "  ") + wrap(hint.change, "To fix this: ", "  ")
    return "\n".join(lines)
