"""An AsyncEngine whose every checkout is a branch of one outer transaction.

SQLAlchemy sees ordinary DBAPI connections. Each of them is a *branch*: its transaction is
a savepoint of the outer transaction, opened at its first statement; commit releases it,
rollback goes back to it. Branches stack: one that is opened in the context of an open
branch (the same task, or a child of it) nests in it, another one waits for its turn.

Nothing here knows drivers or backends beyond their data; ``_link.py`` holds the real
connection.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import re
import threading
import weakref
from typing import TYPE_CHECKING, Any

from pytest_asyncdb import errors
from pytest_asyncdb.isolation._link import PATIENCE
from pytest_asyncdb.isolation._statements import ends_transaction, only_reads

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from pytest_asyncdb.isolation._link import Link

#: The branches that are open in this context, outermost first.
_CHAIN: contextvars.ContextVar[tuple[Branch, ...]] = contextvars.ContextVar(
    "asyncdb_chain", default=()
)

#: SQLAlchemy numbers its savepoints for each connection; on one connection they would meet.
_SAVEPOINT = re.compile(r"\bsa_savepoint_(\d+)\b")

GUARD = "asyncdb_guard"


class OuterTransaction:
    """The transaction around one test: begun at its first statement, undone at its end.

    Args:
        link: The kept connection.
        test: The node id, for errors.
        turn: Seconds that a unit of work waits for another one to end.
    """

    def __init__(self, link: Link, test: str, turn: float) -> None:
        self.link = link
        self.test = test
        self.turn = turn
        self.begun = False
        self.ended = False
        #: The statement that ended the transaction, if one did.
        self.lost: str | None = None
        #: The rollback did not go through.
        self.stuck = False
        self.breaches: list[BaseException] = []
        #: Calls under way, with the names of the tasks that made them.
        self.calls: dict[object, str] = {}
        self.stack: list[Branch] = []
        self._lock = threading.RLock()
        self._waiting: list[asyncio.Future[None]] = []
        self._numbers = itertools.count(1)

    # The life of the transaction.

    def end(self) -> None:
        """From now on nothing of the application reaches the server."""
        self.ended = True
        self._wake()

    def close(self) -> list[BaseException]:
        """Undo everything. Blocks; the result says what broke the isolation."""
        self.end()
        if self.calls:
            self._end_calls()
        if self.begun and self.lost is None and self.link.is_open:
            try:
                self.link.script([f"ROLLBACK TO SAVEPOINT {GUARD}", "ROLLBACK"])
            except Exception as error:
                self._end_failed(error)
        self.stack.clear()
        return self.breaches

    def _end_calls(self) -> None:
        """Something of the test still runs a statement: end it, and say so."""
        self.breaches.append(errors.left_running(self.test, sorted(set(self.calls.values()))))
        # Its answer could be taken for the answer to our ROLLBACK.
        self.link.end_calls()
        self.link.discard()

    def _end_failed(self, error: Exception) -> None:
        if isinstance(error, TimeoutError) or not self.link.is_open:
            self.stuck = True
            self.breaches.append(errors.teardown_stuck(self.test, PATIENCE, error))
        else:
            # The guard is gone: something ended the transaction and began another one.
            self.lose("not known; a transaction was begun after the one of the test")
        self.link.discard()

    def lose(self, statement: str) -> errors.IsolationBreach:
        """Note that *statement* ended the outer transaction."""
        self.lost = statement
        error = errors.lost_transaction(self.test, statement, self.link.backend.label)
        self.breaches.append(error)
        return error

    # Statements of the application.

    def check_before(self, statement: str) -> None:
        """Refuse what must not reach the server.

        Raises:
            IsolationBreach: The statement would end the transaction, or one did before.
            IsolationConflict: The test has ended.
        """
        if self.ended:
            raise errors.after_the_test(self.test)
        if self.lost is not None:
            raise errors.lost_transaction(self.test, self.lost, self.link.backend.label)
        backend = self.link.backend
        why = ends_transaction(statement, not backend.capabilities.transactional_ddl)
        if why is not None:
            error = errors.refused_statement(statement, backend.label, self.test, why)
            self.breaches.append(error)
            raise error

    def check_after(self, statement: str) -> None:
        """Has the statement ended the transaction all the same?

        Raises:
            IsolationBreach: It has.
        """
        if self.lost is None and self.link.is_open and self.link.in_transaction() is False:
            raise self.lose(statement)

    def failed(self, error: BaseException) -> None:
        """After an error of the driver: rebuild what a deadlock has taken away."""
        code = self.link.driver.error_code(error)
        if code not in self.link.backend.transaction_ending_errors:
            return
        statements = [self.link.begin, f"SAVEPOINT {GUARD}"]
        for branch in self.stack:
            statements += [f"SAVEPOINT {name}" for name in (branch.savepoint, *branch.nested)]
        self.link.script(statements)
        error.add_note(
            "asyncdb: the server undid the test's whole outer transaction, with what the test"
            ' had committed before. To keep that: @pytest.mark.asyncdb(isolation="reset")'
        )

    # Branches.

    def push(self, branch: Branch) -> str:
        """Open *branch* on top of the stack when it is its turn. Returns its savepoint."""
        from sqlalchemy.util import await_only

        while not self._try_push(branch):
            await_only(self._wait())
        name = f"asyncdb_{next(self._numbers)}"
        statements = [f"SAVEPOINT {name}"]
        if not self.begun:
            self.link.adapted  # noqa: B018  # connected before the first statement
            statements = [self.link.begin, f"SAVEPOINT {GUARD}", *statements]
        try:
            self.link.script(statements)
        except BaseException:
            self.stack.remove(branch)
            self._wake()
            raise
        self.begun = True
        return name

    def _try_push(self, branch: Branch) -> bool:
        with self._lock:
            self.settle()
            chain = [open_ for open_ in _CHAIN.get() if open_.savepoint is not None]
            if self.stack and self.stack[-1] not in chain:
                return False
            self.stack.append(branch)
            _CHAIN.set((*chain, branch))
            return True

    async def _wait(self) -> None:
        """Wait until some unit of work has ended."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if not self.stack or self.ended:
                return
            holder = self.stack[-1]
            self._waiting.append(future)
        try:
            await asyncio.wait_for(future, self.turn)
        except TimeoutError:
            raise errors.waited_for_turn(self.test, self.turn, holder.task) from None

    def _wake(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            loop = future.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_resolve, future)

    def settle(self) -> None:
        """End the branches on top of the stack that wait for their end."""
        with self._lock:
            settled = False
            while self.stack and self.stack[-1].ending is not None:
                self._settle_top(self.stack[-1])
                settled = True
        if settled:
            self._wake()

    def _settle_top(self, branch: Branch) -> None:
        below = self.stack[-2] if len(self.stack) > 1 else None
        release = f"RELEASE SAVEPOINT {branch.savepoint}"
        undo = f"ROLLBACK TO SAVEPOINT {branch.savepoint}"
        kept = branch.ending == "commit" and (branch.wrote or branch.absorbed)
        statements = [release] if branch.ending == "commit" else [undo, release]
        if kept and below is not None:
            if below.wrote or below.nested or below.ending is not None:
                below.absorbed = True
            else:
                # The outer unit has written nothing: with its savepoint behind this commit,
                # its rollback will not undo what is committed here.
                statements += [
                    f"RELEASE SAVEPOINT {below.savepoint}",
                    f"SAVEPOINT {below.savepoint}",
                ]
        try:
            if self.link.is_open and self.lost is None:
                self._settle_on_server(statements, branch, undo, release)
        finally:
            self.stack.pop()
            branch.forget()

    def _settle_on_server(
        self, statements: list[str], branch: Branch, undo: str, release: str
    ) -> None:
        try:
            self.link.script(statements)
        except Exception:
            if branch.ending == "rollback":
                raise
            # A failed transaction: COMMIT would roll it back, so this does too.
            self.link.script([undo, release])


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Branch:
    """The DBAPI connection that SQLAlchemy holds: one checkout of the sandboxed engine."""

    #: SQLAlchemy sets attributes on connections; they belong to the checkout.
    def __init__(self, outer: OuterTransaction, number: int) -> None:
        self.outer = outer
        self.number = number
        self.autocommit = outer.link.autocommit
        self.task = ""
        self.forget()

    def forget(self) -> None:
        """Forget a unit of work that has ended."""
        self.savepoint: str | None = None
        self.ending: str | None = None
        self.wrote = False
        #: A unit inside this one has committed.
        self.absorbed = False
        #: A unit below this one has written meanwhile.
        self.mixed = False
        #: Savepoints of SQLAlchemy in this unit.
        self.nested: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.outer.link.adapted, name)

    @property
    def _connection(self) -> Any:
        """The driver's connection as ``driver_connection`` shows it."""
        return DriverConnection(self)

    def cursor(self, *args: Any, **kwargs: Any) -> Cursor:
        return Cursor(self, args, kwargs)

    def execute(self, operation: Any, parameters: Any = None) -> Cursor:
        """As SQLAlchemy's adapters have it."""
        cursor = self.cursor()
        cursor.execute(operation, parameters)
        return cursor

    def ping(self, *args: Any) -> Any:
        return self.outer.link.call(self.outer.link.adapted.ping, *args)

    def commit(self) -> None:
        self._end("commit")

    def rollback(self) -> None:
        self._end("rollback")

    def close(self) -> None:
        self._end("rollback")

    def terminate(self) -> None:
        """SQLAlchemy gives the connection up: after a cancellation, or by its finalizer."""
        import greenlet

        if getattr(greenlet.getcurrent(), "__sqlalchemy_greenlet_provider__", False):
            self._end("rollback")
        elif self.savepoint is not None:
            self.ending = "rollback"  # no SQL in a finalizer: the next unit does it

    def set_isolation_level(self, level: str | None) -> None:
        """Answer ``execution_options(isolation_level=…)``; None: back to the engine's.

        Raises:
            IsolationConflict: The outer transaction has another level.
        """
        link = self.outer.link
        if level is None:
            self.autocommit = link.autocommit
        elif level == "AUTOCOMMIT":
            self.autocommit = True
        elif level == (link.isolation_level or link.dialect.default_isolation_level):
            self.autocommit = False
        else:
            raise errors.overlapping_units(
                self.outer.test,
                f"The test's outer transaction cannot change to isolation level {level}.",
            )

    def run(self, statement: str, work: Callable[[str], Any]) -> Any:
        """Run a statement of the application in this unit of work.

        Args:
            work: Gets the statement, with savepoint names that are unique.
        """
        outer = self.outer
        outer.check_before(statement)
        outer.link.host.require_greenlet()
        task = _current_task_name()
        if self.savepoint is None:
            self.task = task
            self.savepoint = outer.push(self)
        self._note(statement)
        text = self._rename(statement)
        call = object()
        outer.calls[call] = task
        try:
            result = outer.link.call(work, text)
        except Exception as error:
            outer.failed(error)
            raise
        finally:
            outer.calls.pop(call, None)
        outer.check_after(statement)
        if self.autocommit:
            self._end("commit")
        return result

    def _note(self, statement: str) -> None:
        if only_reads(statement):
            return
        self.wrote = True
        top = self.outer.stack[-1] if self.outer.stack else self
        if top is not self:
            top.mixed = True

    def _rename(self, statement: str) -> str:
        if "sa_savepoint_" not in statement:
            return statement
        text = _SAVEPOINT.sub(lambda match: f"asyncdb_{self.number}_{match[1]}", statement)
        name = f"asyncdb_{self.number}_{_SAVEPOINT.search(statement)[1]}"  # type: ignore[index]
        verb = text.lstrip()[:7].upper()
        if verb == "SAVEPOI":
            self.nested.append(name)
        elif verb == "RELEASE" and name in self.nested:
            del self.nested[self.nested.index(name) :]
        elif verb == "ROLLBAC" and name in self.nested:
            del self.nested[self.nested.index(name) + 1 :]
        return text

    def _end(self, how: str) -> None:
        outer = self.outer
        if self.savepoint is None or self.ending is not None:
            return
        if outer.ended or outer.lost is not None:
            self.forget()
            return
        with outer._lock:
            above = outer.stack[outer.stack.index(self) + 1 :]
            problem = self._overlap(how, above)
            if how == "rollback" and not self.wrote and (self.absorbed or above):
                how = "commit"  # nothing of its own to undo; what was committed inside stays
            lost_inner = how == "rollback" and self.absorbed
            self.ending = "commit" if problem and above else how
            outer.settle()
        if problem is None and lost_inner:
            problem = (
                "This rollback also undid what another session committed while this one was"
                " open; on connections of their own it would have survived."
            )
        if problem is not None:
            raise errors.overlapping_units(outer.test, problem)

    def _overlap(self, how: str, above: list[Branch]) -> str | None:
        if how != "rollback":
            return None
        if self.wrote and any(branch.wrote for branch in above):
            return "A session was rolled back while one opened inside it has uncommitted work."
        if self.mixed:
            return "The rollback of an inner session also undid what an outer one wrote meanwhile."
        return None


class Cursor:
    """The DBAPI cursor that SQLAlchemy holds; the adapter's own is made when it executes."""

    def __init__(self, branch: Branch, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.__dict__.update(_branch=branch, _how=(args, kwargs), _cursor=None, _early={})

    def __getattr__(self, name: str) -> Any:
        cursor = self._cursor
        if cursor is None:
            if name in self._early:
                return self._early[name]
            if name in ("description", "lastrowid"):
                return None
            if name == "rowcount":
                return -1
            cursor = self._branch.outer.link.call(self._open)
        value = getattr(cursor, name)
        fetches = name in ("fetchone", "fetchmany", "fetchall")
        # SQLAlchemy 2.0's cursors for psycopg do not say what they are; a call does no harm.
        if fetches and not getattr(cursor, "server_side", True):
            return value
        if fetches or name in ("nextset", "setinputsizes", "callproc"):
            return lambda *args, **kwargs: self._branch.outer.link.call(
                lambda: value(*args, **kwargs)
            )
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if self._cursor is None:
            self._early[name] = value
        else:
            setattr(self._cursor, name, value)

    def __iter__(self) -> Any:
        while (row := self.fetchone()) is not None:
            yield row

    def execute(self, operation: Any, parameters: Any = None) -> Any:
        arguments = () if parameters is None else (parameters,)
        return self._branch.run(operation, lambda text: self._open().execute(text, *arguments))

    def executemany(self, operation: Any, parameters: Any) -> Any:
        return self._branch.run(operation, lambda text: self._open().executemany(text, parameters))

    def close(self) -> None:
        cursor = self._cursor
        if cursor is None or self._branch.outer.ended:
            return
        import greenlet

        if not getattr(greenlet.getcurrent(), "__sqlalchemy_greenlet_provider__", False):
            return  # a finalizer: the connection's end closes it
        self._branch.outer.link.call(cursor.close)

    async def _async_soft_close(self) -> None:
        if self._cursor is not None and not self._branch.outer.ended:
            await self._branch.outer.link.host.await_here(self._cursor._async_soft_close())

    def _open(self) -> Any:
        if self._cursor is None:
            args, kwargs = self._how
            cursor = self._branch.outer.link.adapted.cursor(*args, **kwargs)
            for name, value in self._early.items():
                setattr(cursor, name, value)
            self.__dict__["_cursor"] = cursor
        return self._cursor


class DriverConnection:
    """The driver's own connection for the application: its coroutines may be awaited on
    any loop. What it does in a transaction of its own is not undone by branches, only at
    the end of the test."""

    def __init__(self, branch: Branch) -> None:
        self.__dict__["_branch"] = branch

    def __getattr__(self, name: str) -> Any:
        link = self._branch.outer.link
        value = getattr(link.connection, name)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            result = value(*args, **kwargs)
            return link.host.await_here(result) if asyncio.iscoroutine(result) else result

        return call


def sandboxed_engine(outer: OuterTransaction, dialect: Any) -> AsyncEngine:
    """An engine on *outer*, for one test; it costs no round trip.

    SQLAlchemy's ``Engine`` is made directly, since ``create_engine`` would ask the server
    for what the link's dialect knows already. The cache of compiled statements is the
    link's, so that a test does not compile what an earlier one has.
    """
    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import NullPool

    numbers = itertools.count(1)
    link = outer.link
    pool = NullPool(lambda: Branch(outer, next(numbers)), dialect=dialect)
    options = {"compiled_cache": link.compiled_cache, **link.execution_options}
    return AsyncEngine(
        Engine(
            pool,
            dialect,
            link.url,
            echo=link.echo,
            hide_parameters=link.hide_parameters,
            query_cache_size=0,
            execution_options=options,
        )
    )


_names: weakref.WeakKeyDictionary[asyncio.Task[Any], str] = weakref.WeakKeyDictionary()


def _current_task_name() -> str:
    loop = asyncio._get_running_loop()
    task = asyncio.current_task(loop) if loop is not None else None
    if task is None:
        return "(no task)"
    name = _names.get(task)
    if name is None:
        function = getattr(task.get_coro(), "__qualname__", "")
        name = _names[task] = f"{task.get_name()} ({function})" if function else task.get_name()
    return name
