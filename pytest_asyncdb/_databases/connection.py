"""The plugin's own connection to one database. Every statement commits by itself.

It serves to create and drop databases, and for the restorers of ``isolation="reset"``. Tests never
get it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import NullPool

from pytest_asyncdb._engines.build_engine import OURS, build_engine
from pytest_asyncdb.abc import Backend, Driver, Rows, Server, Sql

#: Seconds within which a connection must close if the server does not answer any more.
_CLOSE = 5.0


class AutocommitConnection(Sql, contextlib.AbstractAsyncContextManager["AutocommitConnection"]):
    """A connection that opens at its first statement and stays open until it is closed.

    It belongs to one event loop.

    Args:
        url: The database.
        driver: The driver that the URL names.
        connect_args: SQLAlchemy's ``connect_args``.
    """

    def __init__(self, url: URL, driver: Driver, connect_args: Mapping[str, Any] = {}) -> None:
        self._url = url
        self._driver = driver
        self._connect_args = dict(connect_args)
        self._connection: AsyncConnection | None = None
        self._driver_connection: Any = None
        self._settings: Sequence[str] = ()

    async def fetch(self, query: str) -> Rows:
        await self._open()
        return await self._driver.ask(self._driver_connection, query)

    async def script(self, statements: Sequence[str]) -> Sequence[Rows]:
        await self._open()
        return await self._driver.run(self._driver_connection, statements) if statements else ()

    async def settle(self, statements: Sequence[str]) -> None:
        await self.script(statements)
        self._settings = statements

    def beside(self, database: str | None) -> AutocommitConnection:
        """Return another connection to the same server: to *database*, or to the same one."""
        url = self._url.set(database=database)  # None changes nothing
        return AutocommitConnection(url, self._driver, self._connect_args)

    async def close(self) -> None:
        """Close the connection. May be called twice; the next statement opens a new connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):  # the server may have closed it
                async with asyncio.timeout(_CLOSE):
                    await connection.close()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _open(self) -> None:
        if self._connection is not None:
            driver, own = self._driver, self._driver_connection
            if not driver.is_closed(own) and not driver.was_ended(own):
                return
            await self._connection.invalidate()
        await self.close()
        engine = build_engine(
            self._url,
            poolclass=NullPool,
            connect_args={**self._driver.own_arguments, **self._connect_args},
            isolation_level="AUTOCOMMIT",
            # The redirection of the application's engines ignores this one.
            execution_options={OURS: True},
        )
        self._connection = await engine.connect()
        self._driver_connection = (await self._connection.get_raw_connection()).driver_connection
        if self._settings:
            await self._driver.run(self._driver_connection, self._settings)


def maintenance(server: Server, backend: Backend, driver: Driver) -> AutocommitConnection:
    """Return a connection to the maintenance database of *server*."""
    url = backend.url(server, driver.name, None)
    return AutocommitConnection(url, driver, driver.connect_args(server))
