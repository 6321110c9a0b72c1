"""The containers that carry the plugin's label: whose they are, and which ones are left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from pytest_asyncdb._system.process_identity import Owner
from pytest_asyncdb.servers import docker_api
from pytest_asyncdb.servers.docker_api import LABEL, RECORD
from pytest_asyncdb.servers.reusable import may_be_kept


def labelled() -> Iterator[tuple[Any, Owner, bool]]:
    """Every labelled container, running or not, also of other machines.

    Yields:
        A container of the package ``docker``; the process that started it; is it in use, because
        that process runs or because later runs can find it?

    Raises:
        docker.errors.DockerException: The engine cannot be asked.
    """
    try:
        with docker_api.connected() as client:
            found = client.containers
            for one in found.list(all=True, filters={"label": LABEL}, ignore_removed=True):
                with contextlib.suppress(ValueError):  # the label is not the plugin's
                    owner = Owner.from_json(one.labels[LABEL])
                    yield one, owner, owner.alive() or may_be_kept(one.name, one.labels.get(RECORD))
    except ImportError:  # without the package, there are no containers
        return


def remove_dead() -> None:
    """Remove the containers that killed runs have left; the next run tries again what fails."""
    with contextlib.suppress(Exception):
        for container, _, in_use in labelled():
            if not in_use:
                docker_api.remove(container)
