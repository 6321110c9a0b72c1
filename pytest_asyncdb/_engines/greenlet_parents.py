"""Parents of SQLAlchemy's greenlets: they decide where an adapter awaits.

SQLAlchemy's adapters await by calling the ``switch`` of their greenlet's parent
(``sqlalchemy.util.await_only``). During a call of the plugin's loop the parent is a
:class:`Place`, whose ``switch`` awaits in place: no greenlet is switched unless the call waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import greenlet
from sqlalchemy.exc import MissingGreenlet

from pytest_asyncdb._engines.sqlalchemy_internals import GREENLET_MARK


class Place(greenlet.greenlet):
    """Never runs; stands between a greenlet of SQLAlchemy and its parent."""

    #: Awaits something in place, and returns its result or raises its error.
    await_here: Callable[[Place, Any], Any]

    def switch(self, awaitable: Any) -> Any:
        return self.await_here(self, awaitable)

    def __bool__(self) -> bool:
        return True  # SQLAlchemy asserts it; it is false of a greenlet that does not run

    def wait(self, awaitable: Any) -> Any:
        """Await something on the caller's loop.

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
    """A greenlet of the plugin in which SQLAlchemy may await, for a caller that has none."""


setattr(Carrier, GREENLET_MARK, True)
