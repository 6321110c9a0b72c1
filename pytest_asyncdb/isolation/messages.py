"""Texts of errors in a test's connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_asyncdb import errors
from pytest_asyncdb._record import text
from pytest_asyncdb._record.text import error_text, one_line


def _at(place: Sequence[str]) -> list[str]:
    """Lines for a place in the user's code, the innermost last."""
    return [f"  at {line}" for line in place]


def lost_transaction(
    test: str, statement: str, label: str, place: Sequence[str]
) -> errors.IsolationBreach:
    """The server ended the outer transaction by itself."""
    return errors.IsolationBreach(
        "the test's outer transaction was ended under it",
        [
            f"test: {test}",
            f"statement: {one_line(statement)}",
            *_at(place),
            f"{label} committed what the test had written before; "
            "the database is rebuilt before the next test.",
        ],
        [
            "keep statements that commit by themselves out of this test, "
            'or mark it @pytest.mark.asyncdb(isolation="reset")'
        ],
    )


def lost_connection(
    test: str, statement: str, error: BaseException | None, place: Sequence[str]
) -> errors.IsolationBreach:
    """The connection, and with it the outer transaction, is gone.

    Args:
        error: What the driver said; None: it was found out without an error.
    """
    said = [error_text(error)] if error else []
    return errors.IsolationBreach(
        "the test's connection was lost",
        [
            f"test: {test}",
            f"statement: {one_line(statement)}",
            *_at(place),
            *said,
            "What the test had done before is undone; "
            "the database is rebuilt before the next test.",
        ],
        [
            "find out who ended it: the server's log tells",
            "if the test ends it itself, to see what your code does: "
            '@pytest.mark.asyncdb(isolation="reset")',
        ],
    )


def undone_by_server(
    test: str, statement: str, error: BaseException, place: Sequence[str]
) -> errors.IsolationConflict:
    """The server has rolled back the outer transaction, not only a unit of work."""
    return errors.IsolationConflict(
        "the server undid the test's whole outer transaction",
        [
            f"test: {test}",
            f"statement: {one_line(statement)}",
            *_at(place),
            error_text(error),
            "That undid also what other sessions had written or committed before; "
            "on connections of their own it would have survived.",
        ],
        ['mark the test @pytest.mark.asyncdb(isolation="reset")'],
    )


def refused_statement(
    statement: str, label: str, test: str, why: str, place: Sequence[str]
) -> errors.IsolationBreach:
    """A statement that would have ended the outer transaction was not sent.

    Args:
        why: What the statement does, a clause.
    """
    return errors.IsolationBreach(
        f"refused before it ran: {one_line(statement, 40)}",
        [
            f"test: {test}",
            *_at(place),
            f"On {label} {why}, and what the test wrote could not be undone.",
        ],
        [
            "use session.commit() and session.rollback() rather than their SQL text, "
            "keep DDL out of the test, "
            'or mark it @pytest.mark.asyncdb(isolation="reset")'
        ],
    )


def refused_call(what: str, test: str, why: str, place: Sequence[str]) -> errors.IsolationBreach:
    """Something other than a statement would have ended the outer transaction.

    Args:
        what: The call, as the application wrote it.
        why: What it does, a clause.
    """
    return errors.IsolationBreach(
        f"refused: {what}",
        [f"test: {test}", *_at(place), f"In the strategy 'rollback' {why}."],
        ['mark the test @pytest.mark.asyncdb(isolation="reset")'],
    )


def left_running(test: str, tasks: Mapping[str, Sequence[str]]) -> errors.IsolationBreach:
    """Calls were under way when the test ended.

    Args:
        tasks: Where each task stands.
    """
    lines = [line for task, place in tasks.items() for line in (f"task: {task}", *_at(place))]
    return errors.IsolationBreach(
        "the test ended while a task was still using its connection",
        [f"test: {test}", *lines],
        ["await or cancel the task before the test ends"],
    )


def teardown_stuck(test: str, seconds: float, error: BaseException) -> errors.IsolationBreach:
    """The rollback itself failed or did not end in time."""
    return _not_undone(
        "the test's work could not be rolled back",
        [
            f"test: {test}",
            f"waited at most {seconds:g} s; {error_text(error)}",
            "The connection was thrown away and the database is rebuilt before the next test.",
        ],
        ["look for a statement of this test that still runs or holds locks"],
    )


def _not_undone(
    headline: str, seen: Sequence[str], remedies: Sequence[str]
) -> errors.IsolationBreach:
    breach = errors.IsolationBreach(headline, seen, remedies)
    breach.not_undone = True
    return breach


def left_connected(test: str, connections: Sequence[str]) -> errors.IsolationBreach:
    """Connections that are not the test engine's were left in a transaction.

    Args:
        connections: The server's number of each, with its state and last statement.
    """
    return errors.IsolationBreach(
        "the test left a connection in a transaction; it was ended",
        [f"test: {test}", *map(text.shorten, connections)],
        ["commit, roll back or close every connection of a test, and end its processes"],
    )


def checkpoint_behind_changes(test: str, changed: Sequence[str]) -> errors.IsolationConflict:
    """A checkpoint in ``reset`` or ``copy`` where something is committed already.

    Args:
        changed: What differs from the template.
    """
    return errors.IsolationConflict(
        "asyncdb.checkpoint() begins after something has been committed",
        [
            f"test: {test}",
            f"changed: {', '.join(changed)}",
            "With real commits a checkpoint leads back to the schema and seed only.",
        ],
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
        [f"test: {test}", "It was opened at", *(f"  {line}" for line in opened)],
        ["end it before: await session.commit(), or await session.rollback()"],
    )


def checkpoint_lost(test: str, changed: Sequence[str]) -> errors.IsolationConflict:
    """What happened since a checkpoint cannot be put back in the middle of a test.

    Args:
        changed: What differs.
    """
    return errors.IsolationConflict(
        "asyncdb.checkpoint() cannot put the data back",
        [f"test: {test}", f"changed: {', '.join(changed)}"],
        ["keep DDL out of the checkpoint"],
    )


def second_connection(test: str, changed: Sequence[str]) -> errors.IsolationBreach:
    """Another connection than the test's has committed to the test's database.

    Args:
        changed: What differs from the template.
    """
    return errors.IsolationBreach(
        "another connection has committed to the test's database",
        [
            f"test: {test}",
            f"changed: {', '.join(changed)}",
            "The rollback of the test's own connection does not undo it; it was put back.",
        ],
        [
            "use asyncdb_engine or a redirected engine, "
            'or mark the test @pytest.mark.asyncdb(isolation="reset")'
        ],
    )


def not_dropped(test: str, database: str, error: BaseException) -> errors.IsolationBreach:
    """A database that had to be thrown away is still there."""
    return _not_undone(
        "the test's database could not be dropped",
        [
            f"test: {test}",
            f"database: {database}",
            error_text(error),
            "The next test gets another one; the end of the run tries again.",
        ],
        ["look for a connection to it that the server cannot end"],
    )


def after_the_test(test: str, place: Sequence[str]) -> errors.IsolationConflict:
    """Something of an ended test is used again."""
    return errors.IsolationConflict(
        "this connection belongs to a test that has ended",
        [f"test: {test}", *_at(place), "Nothing was sent to the database."],
        [
            "get sessions and engines anew in each test, "
            "and await or cancel every task of a test before it ends"
        ],
    )


def waited_for_turn(
    test: str,
    seconds: float,
    holder: str,
    opened: Sequence[str],
    waiter: str,
    waits: Sequence[str],
) -> errors.IsolationConflict:
    """A unit of work waited in vain for another one to end.

    Args:
        holder: The task of the unit that has the connection.
        opened: Where that unit was opened: lines of the user's code, the innermost last.
        waiter: The task that waited.
        waits: Where it stands.
    """
    return errors.IsolationConflict(
        f"waited {seconds:g} s for another unit of work on the test's one connection",
        [
            f"test: {test}",
            f"It is held by: {holder}, which opened its unit at",
            *(f"  {line}" for line in opened),
            f"It was waited for by: {waiter}, at",
            *(f"  {line}" for line in waits),
        ],
        [
            "end the other session first (commit, rollback or close), "
            'or mark the test @pytest.mark.asyncdb(isolation="reset")'
        ],
    )


def overlapping_units(test: str, what: str, place: Sequence[str]) -> errors.IsolationConflict:
    """Two units of work ended in an order that savepoints cannot express."""
    return errors.IsolationConflict(
        "units of work overlap in a way that one connection cannot keep apart",
        [f"test: {test}", *_at(place), what],
        ['mark the test @pytest.mark.asyncdb(isolation="reset")'],
    )
