"""Parents of SQLAlchemy's greenlets. They decide where an adapter awaits.

SQLAlchemy's adapters await by calling the ``switch`` of their greenlet's parent
(``sqlalchemy.util.await_only``). During a call of the plugin's loop the parent is a :class:`Place`.
Its ``switch`` awaits in place, and switches no greenlet unless the call has to wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import greenlet
from sqlalchemy.exc import MissingGreenlet

from pytest_asyncdb._engines.sqlalchemy_internals import GREENLET_MARK


class Place(greenlet.greenlet):
    """Stands between a greenlet of SQLAlchemy and its parent. It never runs."""

    #: Awaits an awaitable in place, and returns its result or raises its error.
    await_here: Callable[[Place, Any], Any]

    def switch(self, awaitable: Any) -> Any:
        return self.await_here(self, awaitable)

    def __bool__(self) -> bool:
        return True  # SQLAlchemy asserts this; a greenlet that does not run is false

    def wait(self, awaitable: Any) -> Any:
        """Await *awaitable* on the caller's loop.

        Raises:
            sqlalchemy.exc.MissingGreenlet: The caller cannot await.
        """
        parent = self.parent
        while isinstance(parent, Place):
            parent = parent.parent
        assert parent is not None
        if isinstance(greenlet.getcurrent(), Carrier):
            awaitable.close()
            raise MissingGreenlet("the call would have to wait, and its caller cannot")
        return parent.switch(awaitable)


class Carrier(greenlet.greenlet):
    """A greenlet of the plugin in which SQLAlchemy may await, for callers outside of SQLAlchemy's
    greenlets."""


setattr(Carrier, GREENLET_MARK, True)
