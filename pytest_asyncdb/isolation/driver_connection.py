"""The driver's own connection, as an application gets it by ``driver_connection``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_asyncdb.isolation.dbapi import SandboxConnection

#: Methods of drivers that tell something and send nothing.
_HARMLESS = ("is_", "get_", "fileno", "character_set", "thread_id")
#: Methods of drivers that end the transaction or the connection.
_ENDING = frozenset(
    {
        *("commit", "rollback", "begin", "close", "terminate", "transaction", "pipeline"),
        *("executescript", "autocommit", "set_autocommit", "reset", "ensure_closed", "backup"),
        *("tpc_begin", "tpc_prepare", "tpc_commit", "tpc_rollback", "select_db", "kill"),
    }
)


class DriverConnection:
    """The driver's own connection for the application.

    Its coroutines may be awaited on any loop. What it does belongs to the unit of work of
    the checkout, which its first call opens.
    """

    def __init__(self, branch: SandboxConnection) -> None:
        self.__dict__["_branch"] = branch

    def __getattr__(self, name: str) -> Any:
        link = self._branch.outer.link
        value = getattr(link.connection, name)
        if not callable(value) or name.startswith(_HARMLESS):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            statement = self._check(name, args)
            result = value(*args, **kwargs)
            return self._finish(result, statement) if asyncio.iscoroutine(result) else result

        return call

    def _check(self, name: str, args: tuple[Any, ...]) -> str:
        """Open the unit of work, unless the call would end it. Returns what is called."""
        guard = self._branch.outer.guard
        if name in _ENDING:
            raise guard.refuse(
                f"driver_connection.{name}()", "it would end the test's outer transaction"
            )
        statement = args[0] if args and isinstance(args[0], str) else f"{name}()"
        guard.check_before(statement)
        self._branch.begin().wrote += 1
        return statement

    async def _finish(self, result: Any, statement: str) -> Any:
        guard = self._branch.outer.guard
        try:
            with guard.calls.calling(guard.link, statement):
                value = await guard.link.host.await_here(result)
        except Exception as error:
            guard.failed(error, statement)
            raise
        guard.check_after(statement)
        return value
