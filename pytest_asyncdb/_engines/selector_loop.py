"""Event loops for the plugin's work outside of tests, such as creating and dropping databases.

Always a selector loop. The default loop of Windows cannot watch sockets, so psycopg refuses it; and
the loop policy is the application's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def runner() -> asyncio.Runner:
    """``asyncio.Runner()`` with a selector loop."""
    return asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)


def run(work: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run()`` with a selector loop."""
    with runner() as one:
        return one.run(work)
