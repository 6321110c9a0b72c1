"""The texts of errors about a test's connections, and how to make an error from a text."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

from pytest_asyncdb import errors
from pytest_asyncdb._record.call_sites import lines_of, user_places
from pytest_asyncdb._record.statement_log import Place

_RESET = '@pytest.mark.asyncdb(isolation="reset")'
_MARK_RESET = f"mark the test {_RESET}"
_MARK_ROLLBACK = 'mark the test @pytest.mark.asyncdb(isolation="rollback")'


class Text(NamedTuple):
    """The text of an error; its parts may have ``{names}``.

    Args:
        headline: What failed.
        consequence: What follows from that. It becomes the last line of what was seen.
        remedies: How to fix it.
        error: The class of the error.
        not_undone: True if the test's work is still there.
    """

    headline: str
    consequence: str
    remedies: tuple[str, ...]
    error: type[errors.IsolationConflict | errors.IsolationBreach] = errors.IsolationBreach
    not_undone: bool = False

    def of(self, test: str, *seen: str | Sequence[str], **values: object) -> errors.AsyncdbError:
        """Make the error for *test*.

        Args:
            seen: What was seen: single lines, or lists of lines.
            values: The values of the names in the text.
        """
        lines = [f"test: {test}"]
        for one in (*seen, self.consequence.format(**values)):
            lines += ([one] if one else []) if isinstance(one, str) else one
        remedies = [remedy.format(**values) for remedy in self.remedies]
        error = self.error(self.headline.format(**values), lines, remedies)
        if isinstance(error, errors.IsolationBreach):
            error.not_undone = self.not_undone
        return error


_conflict = functools.partial(Text, error=errors.IsolationConflict)


def at(places: Sequence[Place]) -> list[str]:
    """Return lines for places in the user's code, the innermost last."""
    return [f"  at {line}" for line in lines_of(places)]


def here() -> list[str]:
    """Return lines for the place in the user's code that is running now."""
    return at(user_places())


def changed(words: Sequence[str]) -> str:
    """Return the line for the changes that a restorer has found."""
    return f"changed: {', '.join(words)}"


# The outer transaction, or its connection, is gone.

LOST_TRANSACTION = Text(
    "the test's outer transaction was ended under it",
    "{label} committed what the test had written before; "
    "the database is rebuilt before the next test.",
    (f"keep statements that commit by themselves out of this test, or mark it {_RESET}",),
)
LOST_CONNECTION = Text(
    "the test's connection was lost",
    "What the test had done before is undone; the database is rebuilt before the next test.",
    (
        "find out who ended it: see the server's log",
        f"if the test ends it itself, to see what your code does: {_RESET}",
    ),
)
UNDONE_BY_SERVER = Text(
    "the server undid the test's whole outer transaction",
    "That undid also what other sessions had written or committed before; "
    "on connections of their own it would have survived.",
    (_MARK_RESET,),
)

# Statements and calls that would end the outer transaction are refused.

REFUSED_STATEMENT = Text(
    "refused before it ran: {statement}",
    "On {label} {why}, and what the test wrote could not be undone.",
    (
        "use session.commit() and session.rollback() rather than their SQL text, "
        f"keep DDL out of the test, or mark it {_RESET}",
    ),
)
OUTLIVES = "a prepared transaction would outlive the test"
REFUSED_CALL = Text("refused: {what}", "In the strategy 'rollback' {why}.", (_MARK_RESET,))

OUTSIDE_TRANSACTIONS = _conflict(
    "in 'rollback' the whole test is one transaction, in which this statement fails",
    "With AUTOCOMMIT, or after a commit, it may succeed in production.",
    (f'{_MARK_RESET}, or isolation="copy"',),
)
OTHER_LEVEL = _conflict(
    "the test's outer transaction cannot change to isolation level {level}",
    "In 'rollback' the whole test is one transaction.",
    (_MARK_RESET, 'for every test: return {{"isolation_level": …}} from asyncdb_engine_options'),
)

# What a test leaves behind.

LEFT_RUNNING = Text(
    "the test ended while a task was still using its connection",
    "",
    ("await or cancel the task before the test ends",),
)
LEFT_PENDING = LEFT_RUNNING._replace(
    headline="the test ended while a task that had used its database was pending"
)
LATE_TASK = _conflict(
    "a task of a test that has ended connects to a database",
    "Nothing was sent to the database.",
    ("await or cancel every task of a test before it ends",),
)
LEFT_CONNECTED = Text(
    "the test left a connection in a transaction; it was ended",
    "",
    ("commit, roll back or close every connection of a test, and end its processes",),
)
AFTER_THE_TEST = _conflict(
    "this connection belongs to a test that has ended",
    "Nothing was sent to the database.",
    (
        "take sessions and engines from the fixtures in each test, "
        "and await or cancel every task of a test before it ends",
    ),
)
IN_A_CHILD = _conflict(
    "a forked child process uses the connection of its parent's test",
    "Nothing was sent to the database: parent and child would take each other's answers.",
    (
        "create an engine in the child, from the value of asyncdb_url, and mark the test "
        f"{_RESET}; on SQLite the database is in the parent's memory",
    ),
)
SECOND_CONNECTION = Text(
    "another connection has committed to the test's database",
    "The rollback of the test's own connection does not undo it; it was put back.",
    (f"use asyncdb_engine or a redirected engine, or {_MARK_RESET}",),
)
TEARDOWN_STUCK = Text(
    "the test's work could not be rolled back",
    "The connection was thrown away and the database is rebuilt before the next test.",
    ("look for a statement of this test that still runs or holds locks",),
    not_undone=True,
)
NOT_DROPPED = Text(
    "the test's database could not be dropped",
    "The next test gets another one; the end of the run tries again.",
    ("look for a connection to it that the server cannot end",),
    not_undone=True,
)

# asyncdb.checkpoint()

CHECKPOINT_AFTER_CHANGES = _conflict(
    "asyncdb.checkpoint() begins after something has been committed",
    "With real commits a checkpoint leads back to the schema and seed only.",
    (f"enter it first, put what it begins with into asyncdb_seed, or {_MARK_ROLLBACK}",),
)
CHECKPOINT_IN_A_TRANSACTION = _conflict(
    "asyncdb.checkpoint() begins while a transaction is open",
    "",
    ("end it before: await session.commit(), or await session.rollback()",),
)
CHECKPOINT_UNSEEN = _conflict(
    "asyncdb.checkpoint() cannot put the data back",
    "What changes cannot be seen, so only the whole database could be replaced.",
    (_MARK_ROLLBACK,),
)
CHECKPOINT_LOST = CHECKPOINT_UNSEEN._replace(
    consequence="", remedies=("keep DDL out of the checkpoint",)
)

# Units of work on one connection.

WAITED_FOR_TURN = _conflict(
    "waited {seconds:g} s for another unit of work on the test's one connection",
    "",
    (f"end the other session first (commit, rollback or close), or {_MARK_RESET}",),
)
_FIRST = (
    "commit or roll back the outer session before the inner one begins, "
    "or do both in one session, asyncdb_session"
)
OVERLAPPING_UNITS = _conflict(
    "units of work overlap in a way that one connection cannot keep apart",
    "{problem}",
    (_FIRST, _MARK_RESET),
)
#: On SQLite two writers exclude each other in every strategy.
OVERLAPPING_WRITERS = OVERLAPPING_UNITS._replace(remedies=(_FIRST,))
#: The problems with units of work that overlap.
WORK_INSIDE = "A session was rolled back while one opened inside it has uncommitted work."
WROTE_MEANWHILE = "The rollback of an inner session also undid what an outer one wrote meanwhile."
UNDID_COMMIT = (
    "This rollback also undid what another session committed while this one was"
    " open; on connections of their own it would have survived."
)
NOT_INNERMOST = (
    "A session opened or rolled back a savepoint while another one, opened inside it later,"
    " is not ended."
)
