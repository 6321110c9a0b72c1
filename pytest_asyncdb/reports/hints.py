"""Hints for errors with a known cause: what the error means in a test, and what to change.

A hint matches only if its error can hardly have another cause. The first match along the chain of
exceptions is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from pytest_asyncdb._record.text import wrap
from pytest_asyncdb.reports.causes import chain, code_of, is_of_database, package


class Hint(NamedTuple):
    """One known error. The patterns are searched for in ``Class code: message``.

    Args:
        means: What the error means in a test.
        change: What to do.
        database: A pattern for exceptions of SQLAlchemy or a driver. The code is a SQLSTATE or an
            error number, or ``-``.
        python: A pattern for built-in exceptions and those of pytest, some of which pretend to be
            built in.
    """

    means: str
    change: str
    database: str | None = None
    python: str | None = None

    def fits(self, error: BaseException) -> bool:
        if is_of_database(error):
            pattern = self.database
        else:
            pattern = self.python if package(error) in ("builtins", "pytest") else None
        text = f"{type(error).__name__} {code_of(error) or '-'}: {error}"
        return pattern is not None and re.search(pattern, text) is not None


HINTS = (
    Hint(
        "this connection's database has no such table: neither asyncdb_metadata nor the migrations "
        "create it, or the engine is your own, with another database (in memory, each "
        "connection to SQLite has one)",
        "check that asyncdb_metadata or the migrations contain the table, whose module must be "
        "imported before the first test, and use asyncdb_engine, or name your engine in "
        "asyncdb_app_engines",
        r"no such table: |^\w+ (42P01|1146):",
    ),
    Hint(
        "a relationship names a class that no imported module defines",
        "import the modules of all models in the one that asyncdb_metadata names",
        r"^InvalidRequestError (.|\n)*failed to locate a name",
    ),
    Hint(
        "a row refers to a row that does not exist; the plugin makes SQLite check foreign keys as "
        "servers do, which SQLite by itself does not",
        "add the other row first; to switch the checks off on SQLite, let asyncdb_engine_options "
        'return {"foreign_keys": False}',
        r"FOREIGN KEY constraint failed",
    ),
    Hint(
        "the server has refused the password; str() of SQLAlchemy's URL has *** in its place",
        "give the engine the URL itself, as asyncdb_url is, or "
        "url.render_as_string(hide_password=False)",
        r"^\w+ (28P01|1045):|password authentication failed for user",
    ),
    Hint(
        "another transaction holds a lock that this statement needs, and did not end in time; "
        "SQLite allows one writer at a time",
        "end that transaction first: commit or roll back its session, or close it; units of work "
        "of asyncdb_engine in rollback take turns on one connection",
        r"^\w+ (55P03|1205):|database (table )?is locked",
    ),
    Hint(
        "the server has closed this connection: it was idle for too long, an administrator ended "
        "it, or the server was restarted",
        "for an engine of your own: pool_pre_ping=True, and on MySQL pool_recycle below the "
        "server's wait_timeout",
        r"^ConnectionDoesNotExistError |^\w+ (2006|2013|57P01):|MySQL server has gone away|"
        r"Lost connection to MySQL server|server closed the connection unexpectedly|"
        r"terminating connection due to administrator",
    ),
    Hint(
        "two tasks use one connection or one session at the same time; neither supports that",
        "give each task a session of its own: async_sessionmaker(asyncdb_engine), or "
        "asyncdb_sessionmaker",
        r"^IllegalStateChangeError |^\w+ 2014:|another operation is in progress|"
        r"Command Out of Sync|is already in progress|concurrent operations are not permitted",
        r"^RuntimeError -: \w+\(\) called while another coroutine is already waiting for "
        r"incoming data$",
    ),
    Hint(
        "an engine, a connection or a lock belongs to the event loop of its first use, which is "
        "another one, or closed: pytest-asyncio runs each test on a loop of its own",
        "use asyncdb_engine, which works on every loop; name the application's engine in "
        "asyncdb_app_engines; or give tests and fixtures one loop scope",
        python=r"^RuntimeError -: (.*(attached to a different loop|"
        r"is bound to a different event loop)|Event loop is closed$)",
    ),
    Hint(
        "the default event loop of Windows cannot watch sockets, as psycopg needs it; the plugin's "
        "connections do not run on the loop of the test",
        "use asyncdb_engine, or name the application's engine in asyncdb_app_engines; for your own "
        "connections, let pytest_asyncio_loop_factories(config, item) in conftest.py return "
        '{"selector": asyncio.SelectorEventLoop} (pytest-asyncio 1.4 or newer)',
        r"cannot use the 'ProactorEventLoop'",
    ),
    Hint(
        "an attribute was loaded from the database outside of an await: a relationship, or a "
        "column that a commit has expired",
        "load it with the query (selectinload(), joinedload()), await session.refresh(object), or "
        "create sessions with expire_on_commit=False",
        r"^MissingGreenlet ",
    ),
    Hint(
        "the object's row is gone from the database, or something else has changed its version",
        "query the object again; if its row is meant to be gone, session.expunge(object)",
        r"expected to (update|delete) \d+ row|^ObjectDeletedError |Could not refresh instance",
    ),
    Hint(
        "an earlier flush of this session has failed, and the code went on without a rollback",
        "await session.rollback() where it is handled, or flush in session.begin_nested()",
        r"This Session's transaction has been rolled back due to",
    ),
    Hint(
        "the server, or the account, has reached its connection limit: the pools of several "
        "engines or workers add up, or connections were not closed",
        "make pools smaller (pool_size, max_overflow), run with fewer workers, close what tests "
        "open; asyncdb_engine needs one connection in rollback",
        r"^\w+ (53300|1040|1203):|too many clients already|too many connections for|"
        r"remaining connection slots are reserved|exceeded the 'max_(user_)?connections",
    ),
    Hint(
        "asyncdb_seed and asyncdb_migrate run once, before there is a test whose database they "
        "could use",
        "let the fixture return a function, which gets a session or connection: async def "
        "seed(session), and return seed in asyncdb_seed",
        python=r"^Failed -: ScopeMismatch: (.|\n)*def asyncdb_(seed|migrate)\([^)]*asyncdb_",
    ),
    Hint(
        "a fixture that lives longer than one test requests something that one test owns: its "
        "event loop, or its database",
        'give that fixture a loop as long as its scope, such as loop_scope="session" beside '
        'scope="session"; make it function-scoped, or fill the database once for all tests with '
        "asyncdb_seed",
        python=r"^Failed -: ScopeMismatch: You tried to access the (\w+ scoped fixture "
        r"_(function|class|module|package)_scoped_runner|function scoped fixture "
        r"(asyncdb_\w+|_asyncdb_view))",
    ),
    Hint(
        "no plugin runs this async function; pytest-asyncio, in its strict mode, runs only what is "
        "marked for it",
        "asyncio_mode = auto in the ini file; or @pytest.mark.asyncio on the test, and "
        "@pytest_asyncio.fixture on the fixture",
        python=r"^(Failed|PytestRemovedIn9Warning) -: "
        r"(async def functions are not natively supported|"
        r"'.*' requested an async fixture '\w+', with no plugin or hook that handled it)",
    ),
    Hint(
        "an await is missing: the call has returned a coroutine, and has done nothing",
        "await the call, in parentheses if something follows: (await session.execute(…)).all()",
        python=r"^(AttributeError|TypeError) -: 'coroutine' object (has no attribute|is not)|"
        r"^RuntimeWarning -: coroutine 'Async\w+\.\w+' was never awaited",
    ),
    Hint(
        "an id that the database has made is not the one in the test: a rollback does not give "
        "back the ids of earlier rows",
        "compare with the id of the object; or start the ids of each test at 1: "
        "@pytest.mark.asyncdb(reset_sequences=True)",
        python=r"^AssertionError -: assert (\d+) == \d+\n +\+  where \1 = .*\bid$",
    ),
    Hint(
        "two times are equal: on PostgreSQL, now() is the start of the transaction, which in "
        "rollback is that of the test; other databases may cut off fractions of a second",
        'on PostgreSQL, mark the test @pytest.mark.asyncdb(isolation="reset") or use '
        "clock_timestamp(); elsewhere, use a type with fractions, such as DATETIME(6)",
        python=r"^AssertionError -: assert (datetime\.datetime\(.*\)) (>|<|!=) \1(\n|$)",
    ),
)


def late_table(error: BaseException, late: Iterable[str]) -> str | None:
    """Return the table of *late* that *error* is about, if it says that there is no such table."""
    text = "\n".join(str(one) for one in chain(error) if HINTS[0].fits(one))
    return next((name for name in late if re.search(rf"\b{re.escape(name)}\b", text)), None)


def find(error: BaseException, late: str | None = None) -> Hint | None:
    """Return the hint for an error or for one that led to it; None if the plugin has explained it.

    Args:
        late: The result of :func:`late_table`.
    """
    if late is not None:
        means = f"the table {late} was added to asyncdb_metadata after the schema was built"
        change = (
            "import its module in conftest.py, or name it, too: asyncdb_metadata = …, module:Base"
        )
        return Hint(means, change)
    causes = list(chain(error))
    for one in causes:
        notes = getattr(one, "__notes__", ())
        if package(one) == "pytest_asyncdb" or any("To fix this" in note for note in notes):
            return None
    return next((hint for one in causes for hint in HINTS if hint.fits(one)), None)


def render(hint: Hint) -> str:
    """Return the text of the section."""
    lines = wrap(hint.means, "It means: ", "  ") + wrap(hint.change, "To fix this: ", "  ")
    return "\n".join(lines)
