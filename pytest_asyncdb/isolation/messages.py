"""Texts of errors about a test's connections; they name where the user's code stands now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pytest_asyncdb import errors
from pytest_asyncdb._record import text
from pytest_asyncdb._record.call_sites import user_frames
from pytest_asyncdb._record.text import error_text, one_line

if TYPE_CHECKING:
    from pytest_asyncdb.isolation.unit import Unit

_RESET = '@pytest.mark.asyncdb(isolation="reset")'
_MARK_RESET = f"mark the test {_RESET}"

#: What is wrong with units of work that overlap.
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


def _at(place: Sequence[str]) -> list[str]:
    """Lines for a place in the user's code, the innermost last."""
    return [f"  at {line}" for line in place]


def _here() -> list[str]:
    return _at(user_frames())


def _seen(test: str, *lines: str | Sequence[str]) -> list[str]:
    """The lines about a test: single ones, and several at once."""
    seen = [f"test: {test}"]
    for line in lines:
        seen += [line] if isinstance(line, str) else line
    return seen


def lost_transaction(test: str, statement: str, label: str) -> errors.IsolationBreach:
    """The server ended the outer transaction by itself."""
    consequence = (
        f"{label} committed what the test had written before; "
        "the database is rebuilt before the next test."
    )
    return errors.IsolationBreach(
        "the test's outer transaction was ended under it",
        _seen(test, f"statement: {one_line(statement)}", _here(), consequence),
        [f"keep statements that commit by themselves out of this test, or mark it {_RESET}"],
    )


def lost_connection(
    test: str, statement: str, error: BaseException | None
) -> errors.IsolationBreach:
    """The connection, and with it the outer transaction, is gone.

    Args:
        error: The driver's error; None: it was noticed without one.
    """
    said = [error_text(error)] if error else []
    consequence = (
        "What the test had done before is undone; the database is rebuilt before the next test."
    )
    return errors.IsolationBreach(
        "the test's connection was lost",
        _seen(test, f"statement: {one_line(statement)}", _here(), said, consequence),
        [
            "find out who ended it: the server's log tells",
            f"if the test ends it itself, to see what your code does: {_RESET}",
        ],
    )


def undone_by_server(test: str, statement: str, error: BaseException) -> errors.IsolationBreach:
    """The server has rolled back the outer transaction, not only a unit of work."""
    consequence = (
        "That undid also what other sessions had written or committed before; "
        "on connections of their own it would have survived."
    )
    statement = f"statement: {one_line(statement)}"
    return errors.IsolationBreach(
        "the server undid the test's whole outer transaction",
        _seen(test, statement, _here(), error_text(error), consequence),
        [_MARK_RESET],
    )


def refused_statement(test: str, statement: str, label: str, why: str) -> errors.IsolationBreach:
    """A statement that would have ended the outer transaction was not sent.

    Args:
        why: What the statement does, a clause.
    """
    return errors.IsolationBreach(
        f"refused before it ran: {one_line(statement, 40)}",
        _seen(test, _here(), f"On {label} {why}, and what the test wrote could not be undone."),
        [
            "use session.commit() and session.rollback() rather than their SQL text, "
            f"keep DDL out of the test, or mark it {_RESET}"
        ],
    )


def refused_call(test: str, what: str, why: str) -> errors.IsolationBreach:
    """A call other than a statement would have ended the outer transaction.

    Args:
        what: The call, as the application wrote it.
        why: What it does, a clause.
    """
    return errors.IsolationBreach(
        f"refused: {what}",
        _seen(test, _here(), f"In the strategy 'rollback' {why}."),
        [_MARK_RESET],
    )


def left_running(test: str, tasks: Mapping[str, Sequence[str]]) -> errors.IsolationBreach:
    """Calls were running when the test ended.

    Args:
        tasks: The place of each task.
    """
    lines = [line for task, place in tasks.items() for line in (f"task: {task}", *_at(place))]
    return errors.IsolationBreach(
        "the test ended while a task was still using its connection",
        _seen(test, lines),
        ["await or cancel the task before the test ends"],
    )


def teardown_stuck(test: str, seconds: float, error: BaseException) -> errors.IsolationBreach:
    """The rollback itself failed or did not end in time."""
    return _not_undone(
        "the test's work could not be rolled back",
        _seen(
            test,
            f"waited at most {seconds:g} s; {error_text(error)}",
            "The connection was thrown away and the database is rebuilt before the next test.",
        ),
        "look for a statement of this test that still runs or holds locks",
    )


def not_dropped(test: str, database: str, error: BaseException) -> errors.IsolationBreach:
    """A database that has to be replaced is still there."""
    return _not_undone(
        "the test's database could not be dropped",
        _seen(
            test,
            f"database: {database}",
            error_text(error),
            "The next test gets another one; the end of the run tries again.",
        ),
        "look for a connection to it that the server cannot end",
    )


def _not_undone(headline: str, seen: Sequence[str], remedy: str) -> errors.IsolationBreach:
    breach = errors.IsolationBreach(headline, seen, [remedy])
    breach.not_undone = True
    return breach


def left_connected(test: str, connections: Sequence[str]) -> errors.IsolationBreach:
    """Connections that are not the test engine's were left in a transaction.

    Args:
        connections: The server's number of each, with its state and last statement.
    """
    return errors.IsolationBreach(
        "the test left a connection in a transaction; it was ended",
        _seen(test, [text.shorten(one) for one in connections]),
        ["commit, roll back or close every connection of a test, and end its processes"],
    )


def checkpoint_behind_changes(test: str, changed: Sequence[str]) -> errors.IsolationConflict:
    """A checkpoint in ``reset`` or ``copy`` after something was committed.

    Args:
        changed: What differs from the template.
    """
    return errors.IsolationConflict(
        "asyncdb.checkpoint() begins after something has been committed",
        _seen(
            test,
            f"changed: {', '.join(changed)}",
            "With real commits a checkpoint leads back to the schema and seed only.",
        ),
        [
            "enter it first, put what it begins with into asyncdb_seed, "
            'or mark the test @pytest.mark.asyncdb(isolation="rollback")'
        ],
    )


def checkpoint_in_a_transaction(test: str, opened: Sequence[str]) -> errors.IsolationConflict:
    """A checkpoint in ``rollback`` inside an open unit of work.

    Args:
        opened: Where that was opened: lines of the user's code, the innermost last.
    """
    return errors.IsolationConflict(
        "asyncdb.checkpoint() begins while a transaction is open",
        _seen(test, "It was opened at", [f"  {line}" for line in opened]),
        ["end it before: await session.commit(), or await session.rollback()"],
    )


def checkpoint_lost(test: str, changed: Sequence[str]) -> errors.IsolationConflict:
    """What happened since a checkpoint cannot be put back in the middle of a test.

    Args:
        changed: What differs.
    """
    return errors.IsolationConflict(
        "asyncdb.checkpoint() cannot put the data back",
        _seen(test, f"changed: {', '.join(changed)}"),
        ["keep DDL out of the checkpoint"],
    )


def second_connection(test: str, changed: Sequence[str]) -> errors.IsolationBreach:
    """Another connection than the test's has committed to the test's database.

    Args:
        changed: What differs from the template.
    """
    return errors.IsolationBreach(
        "another connection has committed to the test's database",
        _seen(
            test,
            f"changed: {', '.join(changed)}",
            "The rollback of the test's own connection does not undo it; it was put back.",
        ),
        [f"use asyncdb_engine or a redirected engine, or {_MARK_RESET}"],
    )


def after_the_test(test: str) -> errors.IsolationConflict:
    """A connection of a test is used after its end."""
    return errors.IsolationConflict(
        "this connection belongs to a test that has ended",
        _seen(test, _here(), "Nothing was sent to the database."),
        [
            "take sessions and engines from the fixtures in each test, "
            "and await or cancel every task of a test before it ends"
        ],
    )


def waited_for_turn(
    test: str, seconds: float, holder: Unit, waiter: Unit
) -> errors.IsolationConflict:
    """A unit of work waited in vain for another one, which has the connection, to end."""
    return errors.IsolationConflict(
        f"waited {seconds:g} s for another unit of work on the test's one connection",
        _seen(
            test,
            f"It is held by: {holder.task}, which opened its unit at",
            [f"  {line}" for line in holder.opened],
            f"It was waited for by: {waiter.task}, at",
            [f"  {line}" for line in waiter.opened],
        ),
        [f"end the other session first (commit, rollback or close), or {_MARK_RESET}"],
    )


def overlapping_units(
    test: str, what: str, place: Sequence[str] | None = None
) -> errors.IsolationConflict:
    """Two units of work ended in an order that savepoints cannot express."""
    return errors.IsolationConflict(
        "units of work overlap in a way that one connection cannot keep apart",
        _seen(test, _here() if place is None else _at(place), what),
        [_MARK_RESET],
    )
