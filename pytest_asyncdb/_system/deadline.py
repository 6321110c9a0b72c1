"""Calls a function if a piece of work takes long."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def alarm(seconds: float, function: Callable[..., object], *args: Any) -> Iterator[None]:
    """Call *function* in a thread if the block takes longer; it has returned at the end."""
    timer = threading.Timer(seconds, function, args)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
