"""Putting a database back: how the strategies use a backend's restorer."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_asyncdb.isolation._link import PATIENCE

if TYPE_CHECKING:
    from pytest_asyncdb._loops import HostLoop
    from pytest_asyncdb._types import Copied
    from pytest_asyncdb.abc import Database, Restorer


class Restoration:
    """A database that can be put back to its template, which it equals now. Blocks.

    Args:
        copied: A database of its own; None: the kept one.
    """

    def __init__(self, database: Database, host: HostLoop, copied: Copied | None = None) -> None:
        self._host = host
        self._stack = contextlib.ExitStack()
        self._restorer: Restorer = self._stack.enter_context(database.restorer(copied))

    def changed(self) -> Sequence[str]:
        """What differs from the template, in words."""
        return self._host.run(self._restorer.changed(), PATIENCE)

    def put_back(self) -> tuple[Sequence[str], bool]:
        """What had changed, and whether it could be put back."""
        return self._host.run(_put_back(self._restorer), PATIENCE)

    def restart_ids(self) -> None:
        """Let ids begin anew."""
        self._host.run(self._restorer.restart_ids(), PATIENCE)

    def close(self) -> None:
        """May be called twice."""
        self._stack.close()


async def _put_back(restorer: Restorer) -> tuple[Sequence[str], bool]:
    changed = await restorer.changed()
    return changed, not changed or await restorer.restore(changed)
