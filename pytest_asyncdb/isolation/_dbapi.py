"""What SQLAlchemy's pool and cursors hold: a DBAPI connection and cursor for each checkout.

A ``Branch`` is one checkout of the sandboxed engine; its transaction is a savepoint of the
outer transaction (``_outer.py``). Its statements run on the one real connection, through
SQLAlchemy's own adapter for the driver (``_link.py``).
"""

from __future__ import annotations

import asyncio
import re
import weakref
from typing import TYPE_CHECKING, Any

from pytest_asyncdb import errors
from pytest_asyncdb.isolation._statements import only_reads

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_asyncdb.isolation._outer import OuterTransaction

#: SQLAlchemy numbers its savepoints for each connection; on one connection they would meet.
_SAVEPOINT = re.compile(r"\bsa_savepoint_(\d+)\b")


class Branch:
    """The DBAPI connection that SQLAlchemy holds: one checkout of the sandboxed engine."""

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
        if outer.deferring:
            self.ending = "rollback"
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
