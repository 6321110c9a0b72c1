"""Connects the application's engines to the test's database during a test, and watches all engines
of the process.

A redirected engine has the dialect and the URL of the test's engine, and a pool like that engine's
pool, with its own listeners. So all code that holds the engine is redirected. The rest of the
engine stays: execution options, listeners, echo, and the cache of compiled statements (its keys
contain the dialect). The plugin watches every checkout of every engine. So it finds engines that
are created during the test, named engines that are used outside of a database test, and engines
that lead to another database. This module does not use pytest.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_asyncdb._engines import sqlalchemy_internals
from pytest_asyncdb._engines.build_engine import OURS
from pytest_asyncdb._run import messages
from pytest_asyncdb._run.app_engines import AppEngine, shown_url
from pytest_asyncdb._run.other_engines import OtherEngines, in_memory
from pytest_asyncdb._run.pytest_internals import running_fixture
from pytest_asyncdb._run.runs import is_of_a_run

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

    from pytest_asyncdb.abc import View


#: Methods that an engine's listeners for execution options call on the engine's own dialect.
_SETTERS = ("set_isolation_level", "reset_isolation_level", "set_readonly", "get_readonly")


@contextlib.contextmanager
def _redirected(engine: Engine, target: Engine, independent: bool) -> Iterator[Callable[[], None]]:
    """Give *engine* the pool, the URL and, with its own listeners, the dialect of *target*.

    Args:
        independent: True if the connections of *target* may have any isolation level.

    Yields:
        A function. After its call, connections that were made with another dialect get the dialect
            of *target*. It registers a listener; from then on SQLAlchemy looks for listeners at
            each statement.
    """
    from sqlalchemy import event

    from pytest_asyncdb._engines.pool_internals import CheckoutPool, keep_listeners

    before = engine.pool, engine.dialect, engine.url
    own: Any = engine.dialect
    dialect = sqlalchemy_internals.with_listeners_of(own, target.dialect)
    level = sqlalchemy_internals.connect_isolation_level(own)
    has_own = level in (dialect.get_isolation_level_values(None) if independent else ["AUTOCOMMIT"])

    def connected(connection: Connection) -> None:
        # An engine derived by execution_options() shares the pool, but has its own dialect.
        connection.dialect = dialect
        # SQLAlchemy resets the level when the connection is returned.
        if has_own and "isolation_level" not in connection.get_execution_options():
            connection.execution_options(isolation_level=level)

    def listen() -> None:
        if not event.contains(engine, "engine_connect", connected):
            event.listen(engine, "engine_connect", connected, insert=True)

    if has_own:
        listen()
    for name in _SETTERS:
        setattr(own, name, getattr(dialect, name, None))
    pool = target.pool.beside(engine) if isinstance(target.pool, CheckoutPool) else target.pool
    engine.pool, engine.dialect, engine.url = pool, dialect, target.url
    try:
        yield listen
    finally:
        if engine.pool is not target.pool:
            keep_listeners(before[0], engine.pool)
        engine.pool, engine.dialect, engine.url = before
        for name in _SETTERS:
            delattr(own, name)
        if event.contains(engine, "engine_connect", connected):
            event.remove(engine, "engine_connect", connected)


class Redirector:
    """Redirects the engines of one test after another, and watches all engines of the process until
    it is closed.

    Args:
        entries: The engines that are refused until a test's database is open.
        is_own: Returns whether the plugin is connecting now, not the application.
        others: The engines that lead to another database.
    """

    def __init__(
        self, entries: Sequence[AppEngine], is_own: Callable[[], bool], others: OtherEngines
    ) -> None:
        self._is_own = is_own
        self.others = others
        #: True if the project uses the plugin. Then engines that are not redirected are refused or
        #: reported.
        self.active = False
        self._entries = entries
        self._where = "No test is running yet."
        self._lock = threading.RLock()
        #: The views of the running test, by the names of its databases. Entries without a name use
        #: the first view.
        self._views: Mapping[str, View] = {}
        #: Engines that are already redirected or left alone.
        self._known: set[Engine] = set()
        #: For each redirected engine: a function that gives its new connections the dialect of the
        #: test's engine.
        self._listen: dict[Engine, Callable[[], None]] = {}
        self._undo = contextlib.ExitStack()
        self._stop_watching = sqlalchemy_internals.watch_checkouts(self._connecting)

    def run_test(self, test: str) -> None:
        """Note that a test begins. Its database is not open yet, and it may need none."""
        self._where = f"test: {test}"
        self.others.test = test
        self._known = set()

    def begin(self, views: Mapping[str, View], entries: Sequence[AppEngine], test: str) -> None:
        """Redirect *entries* to the databases of *views* until :meth:`end`, also engines created
        later.

        If this fails, some engines may be redirected already.

        Raises:
            ConfigError: An entry is not an engine, or names no database.
        """
        with self._lock:
            # It may be the first sign that the project uses the plugin (request.getfixturevalue).
            self.active, self.others.test, self._views = True, test, views
            self._entries, self._where = entries, f"test: {test}, which has ended"
            self._known = {view.engine.sync_engine for view in views.values()}
            self._redirect()

    def end(self) -> None:
        """Give every engine its own pool, dialect and URL back. May be called twice."""
        with self._lock:
            self._views, self._known, self._listen = {}, set(), {}
            self._undo.close()

    def close(self) -> None:
        """Stop watching. May be called twice."""
        self.end()
        self._stop_watching()

    def _redirect(self) -> None:
        for entry in self._entries:
            name = entry.database or next(iter(self._views))
            if (view := self._views.get(name)) is None:
                from pytest_asyncdb._databases.plan import unknown_database

                raise unknown_database(name, self._views, entry.source)
            for engine in () if entry.foreign else entry.engines():
                if engine not in self._known:
                    self._known.add(engine)
                    is_async = engine.dialect.is_async
                    target = view.engine.sync_engine if is_async else view.sync_engine
                    redirected = _redirected(engine, target, view.independent)
                    self._listen[engine] = self._undo.enter_context(redirected)

    def _connecting(self, engine: Engine) -> None:
        """Redirect, report or refuse *engine*, which is about to check out a connection."""
        root = sqlalchemy_internals.root_engine(engine)
        of_a_run = is_of_a_run(root.url.database)
        # A seed runs on the plugin's loop as well, and may use an engine of the application.
        if OURS in engine.get_execution_options() or (of_a_run and self._is_own()):
            return
        with self._lock:
            views, pool = self._views, root.pool
            # The connection that is being made has the dialect of its own engine already.
            if is_new := bool(views) and root not in self._known:
                self._redirect()
            if (is_new or engine is not root) and root in self._listen:
                self._listen[root]()
        if root in self._known:
            if root.pool is not pool:
                pool.dispose()  # it may have connected before it got the name of an entry
            return
        if not (self.active or of_a_run):
            return
        named = next((entry for entry in self._entries if entry.matches(root)), None)
        word = None if named is None or named.foreign else named.word
        if of_a_run or word is not None:
            from pytest_asyncdb.isolation.started_tasks import late

            if (error := late()) is not None:
                raise error
            if word is not None and not of_a_run:
                if self._is_own():
                    raise messages.used_in_building(word, shown_url(root))
                raise messages.used_outside(word, shown_url(root), self._where, running_fixture())
            for view in views.values():
                if root.url[3:6] == view.url[3:6]:  # host, port, database
                    view.watch()
        elif named is not None:
            self._known.add(root)
        elif views or not in_memory(root.url):
            self.others.connects(root)
