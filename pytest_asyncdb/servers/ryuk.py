"""Ryuk, testcontainers' helper: a container that removes the others of a process that is gone.

There is one per process. It ends by itself ten seconds after that, or after a minute if the process
was killed before it had connected. One that was made and not yet started never ends; so it bears
our label, too.
"""

from __future__ import annotations

import atexit
import threading
from typing import Any

from pytest_asyncdb._system.process_identity import Owner
from pytest_asyncdb.servers.docker_api import LABEL, RYUK, remove_container

#: testcontainers does not guard the making.
_lock = threading.Lock()
_known = False
#: Containers of this process that have not been removed, by ``id()``.
MADE: set[int] = set()


def ensure_ryuk(run: str) -> None:
    """Let Ryuk run, unless the user does without; blocks.

    Raises:
        Exception: Docker's and testcontainers' own.
    """
    from testcontainers.core import container
    from testcontainers.core.config import testcontainers_config

    global _known
    with _lock:
        if testcontainers_config.ryuk_disabled or container.Reaper._instance is not None:
            return
        if not _known:
            atexit.register(_end)
            _known = True
        made = container.DockerContainer
        container.DockerContainer = _labelled(made, run)  # type: ignore[misc]
        try:
            container.Reaper.get_instance()
        finally:
            container.DockerContainer = made  # type: ignore[misc]
        # At a normal exit testcontainers ends it, whatever is left to do.
        atexit.unregister(container.Reaper.delete_instance)


def _labelled(made: type[Any], run: str) -> type[Any]:
    """testcontainers' class for containers; what its reaper makes of it bears our label."""
    labels = {LABEL: Owner.current(run, "testcontainers' Ryuk").to_json()}

    class Labelled(made):  # type: ignore[misc]
        def with_kwargs(self, **kwargs: Any) -> Any:
            return super().with_kwargs(labels=labels, **kwargs)

    return Labelled


def _end() -> None:
    """End Ryuk at our exit, unless it has something to remove, as after two Ctrl-C."""
    from testcontainers.core.container import Reaper
    from testcontainers.core.labels import SESSION_ID

    if not MADE:
        Reaper.delete_instance()
        # Another thread may still have been busy with it.
        remove_container(f"{RYUK}{SESSION_ID}")
