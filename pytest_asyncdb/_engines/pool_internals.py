"""The pool of a test's engine, and all private names of SQLAlchemy's pools that the plugin uses.

tests/unit/test_pool_internals.py fails if a name is gone. This module imports SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy.engine import Engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, Pool, PoolProxiedConnection, QueuePool
from sqlalchemy.pool.base import _ConnectionRecord
from sqlalchemy.util import memoized_property

#: The events of a new connection, in the order in which they happen.
CONNECT = ("first_connect", "connect")

#: A listener of such an event; called with SQLAlchemy's adapter and the pool's entry.
Listener = Callable[[Any, Any], object]


class CheckoutPool(NullPool):
    """A pool for checkouts that open no connections: real connections stand behind them.

    So SQLAlchemy fires no "connect" event for a checkout. The code that opens a real connection
    calls the listeners (:func:`connect_listeners`). All other events of a pool are fired.

    Args:
        check_out: Makes the DBAPI connection of a checkout from the pool's entry and the pool.
        family: The pools of one test. The new pool is added.
    """

    def __init__(
        self, check_out: Callable[..., Any], family: list[CheckoutPool], **options: Any
    ) -> None:
        super().__init__(check_out, **options)
        self.check_out = check_out
        self._family = family
        family.append(self)
        #: The entries of its checkouts, including some that have ended.
        self._used: list[ConnectionPoolEntry] = []
        #: Real connections that checkouts have given back; each has a method ``discard``.
        self.idle: list[Any] = []
        #: The ``info`` of checkouts that have ended, if one connection serves all checkouts.
        self.infos: list[dict[Any, Any]] = []

    #: For applications that show the state of their pool.
    status = QueuePool.status
    _size = 5
    #: The largest number of checkouts at the same time. An application's pool would have opened
    #: that many connections.
    _most = 0

    def size(self) -> int:
        return self._size

    def checkedout(self) -> int:
        return sum(entry.in_use for entry in self._used)

    def checkedin(self) -> int:
        return self._most - self.checkedout()

    def overflow(self) -> int:
        return self._most - self._size

    def dispose(self) -> None:
        super().dispose()
        while self.idle:
            self.idle.pop().discard()

    def recreate(self) -> CheckoutPool:
        """Return a pool with the same listeners, for ``Engine.dispose()``."""
        return self._relative(self.dispatch, self)

    def beside(self, engine: Engine) -> CheckoutPool:
        """Return a pool for a redirected engine, with the listeners of that engine.

        The listeners of an engine for another DBMS are left out, because they would not work here.
        """
        dialect: Any = self._dialect
        same = _dbms(engine.dialect.name) == _dbms(dialect.name)
        return self._relative(engine.pool.dispatch if same else None, engine.pool)

    def _relative(self, dispatch: Any, shown: Pool) -> CheckoutPool:
        # Without _dispatch the listeners of an engine do not reach its pool during a test.
        pool = CheckoutPool(self.check_out, self._family, dialect=self._dialect, _dispatch=dispatch)
        if isinstance(shown, QueuePool | CheckoutPool):
            pool._size = shown.size()
        return pool

    def _create_connection(self) -> ConnectionPoolEntry:
        """Create the pool's entry. SQLAlchemy's name: without it a checkout fires a "connect"
        event."""
        return _Entry(self)


class _Entry(_ConnectionRecord):
    """The pool's entry of a checkout."""

    def _ConnectionRecord__connect(self) -> None:  # noqa: N802
        """Take a connection. SQLAlchemy's name; see ``CheckoutPool._create_connection``."""
        pool: CheckoutPool = self._ConnectionRecord__pool  # type: ignore[attr-defined]
        self.dbapi_connection = pool.check_out(self, pool)
        pool._used = [*(one for one in pool._used if one.in_use), self]
        pool._most = max(pool._most, len(pool._used))

    @memoized_property
    def info(self) -> dict[Any, Any]:
        """The values that "connect" listeners and the test have stored for this connection."""
        return getattr(self.dbapi_connection, "entry_info", {})


def connect_listeners(pools: Iterable[Pool]) -> list[Listener]:
    """Return the application's listeners for new connections of *pools*, each listener once.

    SQLAlchemy's own listeners, which prepare an engine's dialect, are left out.
    """
    found = dict.fromkeys(f for p in pools for event in CONNECT for f in getattr(p.dispatch, event))
    return [one for one in found if not _prepares_dialect(one)]


def keep_listeners(pool: Pool, other: Pool) -> None:
    """Add to *pool* the listeners that *other* got meanwhile.

    Without ``_update``, listeners that a test registers on a redirected engine are lost after the
    test.
    """
    pool.dispatch._update(other.dispatch, only_propagate=False)


def entry_of(connection: PoolProxiedConnection) -> Any:
    """Return the pool's entry of a connection, as "connect" listeners get it."""
    return connection._connection_record


def _prepares_dialect(listener: Any) -> bool:
    """Return whether ``create_engine`` has registered *listener*.

    Such a listener would prepare the dialect of an engine that is not used now, with answers of a
    server to which the engine does not lead.
    """
    if getattr(listener, "__qualname__", "") == "only_once.<locals>.go":  # once=True
        cells = dict(zip(listener.__code__.co_freevars, listener.__closure__, strict=True))
        listener = cells["fn"].cell_contents
    return str(getattr(listener, "__module__", "")).startswith("sqlalchemy.engine.")


def _dbms(dialect: str) -> str:
    return dialect.replace("mariadb", "mysql")
