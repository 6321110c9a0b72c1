"""Explains a statement that did not get its lock: which transactions of the test are open.

The server ends the wait (``Backend.lock_wait``). If the wait took as long as the plugin's limit,
:class:`StatementBlocked` is raised. If the test or its application has set a shorter limit, the
driver's own error stays, and the explanation becomes a section of the test's report. After Ctrl-C
the plugin prints the same about the statements that were cancelled or still run.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

from pytest_asyncdb import errors
from pytest_asyncdb._engines.asyncio_internals import running_task
from pytest_asyncdb._record.call_sites import lines_of, user_places
from pytest_asyncdb._record.statement_log import Statement, StatementLog, line_of
from pytest_asyncdb._record.text import error_text, one_line
from pytest_asyncdb.isolation.backing_connection import BackingConnection
from pytest_asyncdb.isolation.started_tasks import task_name
from pytest_asyncdb.isolation.work import Call, Owner, Work

#: A statement that fails within this time, in seconds, did not wait for its lock (NOWAIT).
_WAITED = 0.2
#: Seconds by which a server may end a wait early.
_MARGIN = 0.5
#: Statements of a transaction that the explanation shows.
_SHOWN = 5
#: Characters of a statement that the explanation shows.
_WIDTH = 160
#: The errors of statements when the test is interrupted.
_INTERRUPTED = ("CancelledError", "KeyboardInterrupt")


def explain(
    work: Work, waiter: BackingConnection, error: BaseException, statement: str, seconds: float
) -> None:
    """Explain *error* of a statement if it is about a lock.

    Raises:
        StatementBlocked: The plugin's own limit has ended the wait. The test fails with it at its
            end, even if the test's code catches it.
    """
    backend = waiter.backend
    if seconds < _WAITED or waiter.driver.error_code(error) not in backend.lock_timeout_codes:
        return
    lines = [
        f"statement: {one_line(statement, _WIDTH)}",
        f"Waiting: {task_name(running_task())}, at",
        *(f"  {line}" for line in lines_of(user_places())),
    ]
    owners = work.in_transaction(waiter)
    open_ = _open_transactions(owners, work.log)
    lines += open_ or ["No other connection of the test is in a transaction."]
    if seconds < backend.lock_wait - _MARGIN:
        work.log.waits.append("\n".join([f"no lock within {seconds:.1f} s", *lines]))
        return
    other = "the test has other transactions open" if owners else "another session holds it"
    remedy = (
        "end the transaction that holds the lock before: commit, roll back or close its session"
        if owners
        else "end the other session or its transaction; it does not use the test's engine"
    )
    blocked = errors.StatementBlocked(
        f"waited {seconds:.0f} s for a lock; {other}",
        [f"test: {work.test}", *lines, error_text(error)],
        [remedy],
    )
    work.breaches.append(blocked)
    raise blocked from None


def of_running(work: Work) -> list[str]:
    """Return lines about an interrupted test: its last statements, if they were cancelled, and
    those that run."""
    ends = (statement.error in _INTERRUPTED for statement in reversed(work.log.statements))
    number = sum(itertools.takewhile(bool, ends))
    cancelled = work.cancelled[-number:] if number else []
    running = [of_call(call, None) for call in work.running]
    return [line for lines in (*cancelled, *running) for line in lines]


def of_call(call: Call, waiter: BackingConnection | None) -> list[str]:
    """Return lines about a statement that runs or is being cancelled.

    Call it before the test ends its transactions.
    """
    seconds, log = time.perf_counter() - call.began, call.work.log
    owners = [one for one in call.work.in_transaction(waiter) if log.running(one.checkout)]
    return [
        f"{seconds:.1f} s in this statement: {one_line(call.statement, _WIDTH)}",
        f"  {task_name(call.task)}{''.join(f', at {line}' for line in lines_of(call.places))}",
        *_open_transactions(owners, log),
    ]


def _open_transactions(owners: Sequence[Owner], log: StatementLog) -> list[str]:
    """Return lines about each open transaction and its last statements, which may hold the lock."""
    lines = []
    for owner in owners:
        ran = log.running(owner.checkout)
        lines.append(f"In a transaction: {owner.task}{', after …' if len(ran) > _SHOWN else ''}")
        for step in ran[-_SHOWN:]:
            assert isinstance(step.entry, Statement)
            places = "".join(f" -- {line_of(place)}" for place in step.entry.places[:1])
            lines.append(f"  {step.number}  {one_line(step.entry.sql, _WIDTH)}{places}")
    return lines
