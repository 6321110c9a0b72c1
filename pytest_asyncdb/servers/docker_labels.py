"""Which containers are ours: those that bear our label."""

from __future__ import annotations

import dataclasses
import http.client
import json
from typing import Any
from urllib.parse import quote

from pytest_asyncdb._system.process_identity import Owner
from pytest_asyncdb.servers.docker_api import LABEL, RECORD, RYUK, call


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A container that bears our label.

    Args:
        id: Its id.
        name: Its name.
        image: What it was made from.
        owner: None where the label cannot be read.
        ends_by_itself: It is Ryuk at its work.
        record: The folder of the record by which later runs find it, if it may be kept.
    """

    id: str
    name: str
    image: str
    owner: Owner | None
    ends_by_itself: bool
    record: str | None


def our_containers() -> list[Labelled]:
    """Every container of ours that the engine knows, running or not; of other machines, too.

    Empty where no engine answers, or where it wants more than a plain connection.
    """
    filters = quote(json.dumps({"label": [LABEL]}))
    try:
        status, body = call("GET", f"/containers/json?all=1&filters={filters}")
        listed = json.loads(body) if status == 200 else []
        return [_labelled(entry) for entry in listed]
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return []


def _labelled(entry: dict[str, Any]) -> Labelled:
    name = (entry["Names"] or [entry["Id"][:12]])[0].lstrip("/")
    at_work = name.startswith(RYUK) and entry["State"] == "running"
    labels = entry["Labels"]
    owner = _owner_of(labels[LABEL])
    return Labelled(entry["Id"], name, entry["Image"], owner, at_work, labels.get(RECORD))


def _owner_of(label: str) -> Owner | None:
    try:
        return Owner.from_json(label)
    except ValueError:
        return None
