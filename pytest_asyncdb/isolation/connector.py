"""Opens the connections of a worker's database, and creates the engines of its tests."""

from __future__ import annotations

import contextvars
import copy
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy.engine import URL, Dialect, Engine
from sqlalchemy.pool import NullPool
from sqlalchemy.util import LRUCache

from pytest_asyncdb._engines.build_engine import OURS, build_engine, without_pool
from pytest_asyncdb._engines.host_loop import HostLoop
from pytest_asyncdb._engines.pool_internals import CheckoutPool
from pytest_asyncdb._engines.sqlalchemy_internals import cursor_awaits, drop_listeners, ends_first
from pytest_asyncdb.abc import Database
from pytest_asyncdb.isolation.savepoints import Savepoints

#: Seconds that a statement of the plugin, or opening a connection, may take.
PATIENCE = 30.0

#: The URL of the connection that is being opened.
OPENING: contextvars.ContextVar[URL] = contextvars.ContextVar("asyncdb_opening")


class Connector:
    """Opens connections to a database and to other copies of its template.

    They share one engine, and so one dialect.

    Attributes:
        url: The database of new connections, unless they are opened for another URL.
    """

    def __init__(self, database: Database, host: HostLoop, url: URL) -> None:
        self.database = database
        self.host = host
        self.driver = database.driver
        self.backend = database.backend
        self.url = self._first_url = url
        options = without_pool(database.engine_options)
        needed = self.driver.connect_args(database.server)
        self._connect_args = {**needed, **options.pop("connect_args", {})}
        # The drivers of servers have an argument for autocommit. SQLAlchemy's level overrides it.
        default = "AUTOCOMMIT" if self._connect_args.get("autocommit") is True else ""
        # SQLAlchemy normalizes the level in the same way.
        level = (options.pop("isolation_level", None) or default).replace("_", " ").upper()
        self.autocommit = level == "AUTOCOMMIT"
        self.isolation_level = None if self.autocommit else level or None
        #: The user's listeners of the pool, with the names of their events.
        self._pool_events = options.pop("pool_events", ())
        self.engine = build_engine(
            url,
            poolclass=NullPool,
            connect_args=self._connect_args,
            isolation_level=self.isolation_level,
            **options,
        )
        self.dialect: Dialect = self.engine.dialect
        self.savepoints = Savepoints(self.dialect)
        self.cursor_awaits = cursor_awaits(self.driver.name)
        self.ends_first = ends_first(self.driver.name)
        # This replaces the method, because a "do_connect" listener would make SQLAlchemy look for
        # listeners at each statement.
        self._connect_first = self.dialect.connect
        self.dialect.connect = self._connect  # type: ignore[method-assign]
        #: Statements that restore the settings made by connecting; None before the first
        #: connection.
        self.settings: Sequence[str] | None = None
        #: The dialects of the tests' engines: one for async code, one for sync code.
        self._facades: list[Any] = []
        self.hide_parameters: bool = self.engine.sync_engine.hide_parameters
        #: The engines of all tests share the cache of compiled statements.
        self._execution_options = {
            "compiled_cache": LRUCache(500),
            **self.engine.get_execution_options(),
        }

    def _connect(self, *args: Any, **kwargs: Any) -> Any:
        """Connect to the URL of the connection that is being opened.

        The dialect does not ask the server again for what it knows from the first connection.
        """
        url = OPENING.get(self.url)
        if url is not self._first_url:
            positional, named = self.dialect.create_connect_args(url)
            args, kwargs = tuple(positional), {**named, **self._connect_args}
        return self._connect_first(*args, **kwargs)

    def test_engine(
        self, check_out: Callable[..., Any], pools: list[CheckoutPool], is_async: bool = True
    ) -> Engine:
        """Create an engine for one test: the one inside of an AsyncEngine, or one for sync code.

        Its pool gets connections from *check_out*, see ``CheckoutPool``, and is added to *pools*.
        This costs no round trip, but a connection must have been opened before, because that
        initialises the dialect. ``Engine`` is called directly, because ``create_engine`` would ask
        the server again.
        """
        if not self._facades:
            facade: Any = copy.copy(self.dialect)
            # psycopg's dialect has no terminate: SQLAlchemy would only close the connection, as if
            # it could be used again, and would not do so in a finalizer.
            facade.has_terminate = True
            facade.do_terminate = lambda checkout: checkout.terminate()
            facade.set_isolation_level = lambda checkout, level: checkout.set_level(level)
            facade.reset_isolation_level = lambda checkout: checkout.set_level(None)
            facade.get_driver_connection = lambda checkout: checkout.driver_connection
            facade.set_readonly = lambda checkout, value: checkout.set_read_only(value)
            facade.get_readonly = lambda checkout: checkout.read_only
            sync = copy.copy(facade)
            sync.is_async = False
            self._facades = [facade, sync]
        options = self._execution_options if is_async else {**self._execution_options, OURS: True}
        dialect = self._facades[0 if is_async else 1]
        drop_listeners(dialect)
        pool = CheckoutPool(check_out, pools, dialect=dialect, events=self._pool_events)
        return Engine(
            pool,
            dialect,
            self.url,
            echo=self.engine.echo,
            hide_parameters=self.hide_parameters,
            query_cache_size=0,
            execution_options=options,
        )

    def lead_to(self, url: URL) -> None:
        """Make new connections go to another copy of the template."""
        before, self.url = self.url, url
        for dialect in (self.dialect, *self._facades):
            # On MySQL and MariaDB the default schema is the database. Reflection looks for tables
            # there.
            if dialect.default_schema_name == before.database:
                dialect.default_schema_name = url.database

    def close(self) -> None:
        """Dispose of the engine. May be called twice."""
        self.host.run(self.engine.dispose(), PATIENCE)
