"""The plain Docker client, to look at containers from outside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def docker() -> Iterator[Any]:
    """The plain Docker client."""
    import docker as package

    client = package.from_env()
    try:
        yield client
    finally:
        client.close()


def containers(client: Any, **filters: str) -> list[Any]:
    """Every container, whether it runs or not; others may vanish meanwhile."""
    found: list[Any] = client.containers.list(all=True, ignore_removed=True, filters=filters)
    return found
