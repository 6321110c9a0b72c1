"""The pool of a test's engine, and the private names of SQLAlchemy's pools, all of them.

tests/unit/test_pool_internals.py fails if a name is gone. Imports SQLAlchemy.
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
    """A pool whose checkouts are no new connections: real ones stand behind them.

    So a checkout is no event "connect". Whoever opens the real connection calls the listeners
    (:func:`connect_listeners`). All other events of a pool happen.

    Args:
        check_out: Makes the DBAPI connection of a checkout, given the pool's entry and the pool.
        family: The pools of one test; this one is added.
    """

    def __init__(
        self, check_out: Callable[..., Any], family: list[CheckoutPool], **options: Any
    ) -> None:
        super().__init__(check_out, **options)
        self.check_out = check_out
        self._family = family
        family.append(self)
        #: The entries of its checkouts, also some that have ended.
        self._used: list[ConnectionPoolEntry] = []
        #: Real connections that checkouts have given back; each has a method ``discard``.
        self.idle: list[Any] = []
        #: The ``info`` of checkouts that have ended, where one connection stands for all.
        self.infos: list[dict[Any, Any]] = []

    #: What an application shows of its pool.
    status = QueuePool.status
    _size = 5
    #: The most checkouts at once, which an application's pool would have connected.
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
        """A pool with the same listeners, for ``Engine.dispose()``."""
        return self._relative(self.dispatch, self)

    def beside(self, engine: Engine) -> CheckoutPool:
        """A pool for a redirected engine, with that engine's listeners.

        Those of an engine for another DBMS are left out: they would not work here.
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
        """SQLAlchemy's name: without it a checkout is an event "connect"."""
        return _Entry(self)


class _Entry(_ConnectionRecord):
    """The pool's entry of a checkout."""

    def _ConnectionRecord__connect(self) -> None:  # noqa: N802
        """SQLAlchemy's name; see ``CheckoutPool._create_connection``."""
        pool: CheckoutPool = self._ConnectionRecord__pool  # type: ignore[attr-defined]
        self.dbapi_connection = pool.check_out(self, pool)
        pool._used = [*(one for one in pool._used if one.in_use), self]
        pool._most = max(pool._most, len(pool._used))

    @memoized_property
    def info(self) -> dict[Any, Any]:
        """What listeners of "connect" and the test have put there for this connection."""
        return getattr(self.dbapi_connection, "entry_info", {})


def connect_listeners(pools: Iterable[Pool]) -> list[Listener]:
    """What the application does with each new connection of *pools*, each listener once.

    SQLAlchemy's own listeners, which prepare an engine's dialect, are left out.
    """
    found: dict[Listener, None] = {}
    for pool in pools:
        for event in CONNECT:
            found.update(dict.fromkeys(getattr(pool.dispatch, event)))
    return [one for one in found if not _prepares_dialect(one)]


def keep_listeners(pool: Pool, other: Pool) -> None:
    """Add to *pool* the listeners that *other* got meanwhile.

    Without ``_update``, what a test's code registers on a redirected engine is lost after the test.
    """
    pool.dispatch._update(other.dispatch, only_propagate=False)


def entry_of(connection: PoolProxiedConnection) -> Any:
    """The pool's entry of a connection, which listeners of "connect" get."""
    return connection._connection_record


def _prepares_dialect(listener: Any) -> bool:
    """Is it one of ``create_engine``? It would prepare the dialect of an engine that is not used
    now, from a server that it does not lead to."""
    if getattr(listener, "__qualname__", "") == "only_once.<locals>.go":  # once=True
        cells = dict(zip(listener.__code__.co_freevars, listener.__closure__, strict=True))
        listener = cells["fn"].cell_contents
    return str(getattr(listener, "__module__", "")).startswith("sqlalchemy.engine.")


def _dbms(dialect: str) -> str:
    return dialect.replace("mariadb", "mysql")
