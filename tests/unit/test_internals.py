"""Private names of other libraries: each is there, or the test says what breaks without it.

The modules ``_engines/asyncio_internals.py`` and ``_engines/sqlalchemy_internals.py`` hold them.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
from pathlib import Path

import greenlet
import pytest
import sqlalchemy
from sqlalchemy.connectors import asyncio as adapters
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.util import await_only, greenlet_spawn

from pytest_asyncdb._engines.asyncio_internals import loop_closer
from pytest_asyncdb._engines.greenlet_parents import Place
from pytest_asyncdb._engines.sqlalchemy_internals import GREENLET_MARK, in_greenlet

ROOT = Path(__file__).parents[2] / "pytest_asyncdb"
#: SQLAlchemy 2.0 has its lock in the classes of some drivers only.
NEW = tuple(map(int, sqlalchemy.__version__.split(".")[:2])) >= (2, 1)

#: Where a name is looked up, the name, and what breaks without it.
NAMES = [
    ("asyncio", "_set_running_loop", "no statement runs in place, on the loop of the test"),
    ("asyncio", "_get_running_loop", "no statement runs in place, on the loop of the test"),
    ("asyncio.tasks", "_enter_task", "asyncio.current_task() is wrong after each statement"),
    ("asyncio.tasks", "_leave_task", "the private loop's tasks cannot be entered"),
    ("asyncio.runners", "_cancel_all_tasks", "tasks left on a test's own loop are not reported"),
]


@pytest.mark.parametrize(("module", "name", "breaks"), NAMES, ids=[one[1] for one in NAMES])
def test_a_private_name_of_asyncio_is_there(module: str, name: str, breaks: str) -> None:
    """Without it the plugin cannot be imported."""
    there = hasattr(importlib.import_module(module), name)
    assert there, f"{module}.{name} is gone; without it {breaks}"


@pytest.mark.parametrize(
    "name", ["_run_once", "_asyncgen_firstiter_hook", "_asyncgen_finalizer_hook"]
)
def test_a_private_name_of_asyncios_loops_is_there(name: str) -> None:
    """``SteppedLoop`` needs them."""
    there = hasattr(asyncio.SelectorEventLoop, name)
    assert there, f"event loops have no {name} any more; without it no statement runs in place"


def test_whoever_closes_a_loop_is_known_to_the_tasks_that_it_cancels() -> None:
    """By the frame of ``_cancel_all_tasks``, which a task's own end does not have."""
    closers = []

    async def leave() -> None:
        for seconds in (0, 60):
            task = asyncio.create_task(asyncio.sleep(seconds))
            task.add_done_callback(lambda _: closers.append(loop_closer()))
            tasks.append(task)
        await tasks[0]

    tasks: list[asyncio.Task[None]] = []
    asyncio.run(leave())
    assert closers[0] is None
    assert closers[1] is not None
    assert closers[1].f_code is inspect.currentframe().f_code  # type: ignore[union-attr]


def test_sqlalchemy_marks_its_greenlets() -> None:
    """By the attribute that the plugin's pooled greenlets carry."""

    def look() -> bool:
        assert in_greenlet()
        return getattr(greenlet.getcurrent(), GREENLET_MARK, False) is True

    assert asyncio.run(greenlet_spawn(look)), (
        f"SQLAlchemy's greenlets have no {GREENLET_MARK}; without it statements in pooled"
        " greenlets raise MissingGreenlet"
    )
    assert not in_greenlet()


def test_sqlalchemy_awaits_by_the_switch_of_its_greenlets_parent() -> None:
    """The plugin puts an object of its own there."""
    seen = []

    def work() -> object:
        current = greenlet.getcurrent()
        before = current.parent
        place = Place(None, before)
        place.await_here = lambda place, awaitable: seen.append(awaitable) or "answer"
        current.parent = place
        try:
            return await_only("question")  # type: ignore[arg-type]
        finally:
            current.parent = before

    assert asyncio.run(greenlet_spawn(work)) == "answer", (
        "await_only() does not call the switch of the parent; without it statements run on the"
        " test's loop, where the connection does not live"
    )
    assert seen == ["question"]


def test_sqlalchemys_adapters_lock_a_connection_while_a_statement_runs() -> None:
    """The plugin's own statements take the same lock."""
    source = inspect.getsource(adapters if NEW else asyncpg)
    assert "self._execute_mutex = asyncio.Lock()" in source, (
        "the adapters have no _execute_mutex; without it a savepoint of the plugin meets a"
        " statement that is still running"
    )


def test_sqlalchemys_adapter_translates_the_errors_of_asyncpg() -> None:
    """COMMIT with a violated deferred constraint is an IntegrityError."""
    assert hasattr(asyncpg.AsyncAdapt_asyncpg_connection, "_handle_exception"), (
        "asyncpg's adapter has no _handle_exception; without it a failed COMMIT raises the"
        " driver's error in place of IntegrityError"
    )


@pytest.mark.skipif(sqlalchemy.__version__ < "2.0.44", reason="it comes with SQLAlchemy 2.0.44")
def test_sqlalchemy_closes_cursors_softly() -> None:
    """It calls ``_async_soft_close`` on the plugin's cursors, which pass it on."""
    cursors = adapters.AsyncAdapt_dbapi_cursor
    assert hasattr(cursors, "_async_soft_close"), (
        "the adapters' cursors have no _async_soft_close; without it stream() and"
        " AsyncConnection.execute() fail on the plugin's cursors"
    )


def test_the_adapter_of_asyncpg_can_be_told_that_its_transaction_has_ended() -> None:
    """Without the name the next transaction on a connection that was made clean does not begin."""
    adapted = asyncpg.AsyncAdapt_asyncpg_connection
    assert hasattr(adapted, "_transaction")
    assert hasattr(adapted, "_started") is not NEW


def test_sqlalchemys_adapter_reads_streams_ahead() -> None:
    """A stream is read to the end of what asyncpg's adapter has when its transaction ends."""
    assert hasattr(asyncpg.AsyncAdapt_asyncpg_ss_cursor, "_rowbuffer"), (
        "asyncpg's adapter has no _rowbuffer; without it rows of a stream are lost when its"
        " transaction ends"
    )


#: Names of SQLAlchemy that the plugin's own classes must have, for its dialects.
OURS = {"_connection", "_async_soft_close"}


def test_private_names_are_used_in_these_modules_only() -> None:
    """In ``_engines`` and ``isolation`` an underscore of asyncio or of an adapter is a new one."""
    private = {"_set_running_loop", "_get_running_loop", "_enter_task", "_leave_task"}
    private |= {"_run_once", "_asyncgen_firstiter_hook", "_asyncgen_finalizer_hook"}
    private |= {"_execute_mutex", "_handle_exception", "_rowbuffer", *OURS}
    found = set()
    for folder in ("_engines", "isolation"):
        for path in (ROOT / folder).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                name = node.attr if isinstance(node, ast.Attribute) else None
                if name in private and "_internals" not in path.name:
                    found.add((path.name, name))
    assert found == set()
