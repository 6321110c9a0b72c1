"""The ids of test runs, and the names of their databases.

Other versions of the plugin rely on these rules, so they must not change:

- the name of a run's database is ``asyncdb_``, the run's id of eight hexadecimal digits, ``_``, …;
- while a run is alive, it holds a lock on each server that it did not start; the name of the lock
  follows from the id (``Backend.hold_lock``).
"""

from __future__ import annotations

import re
import uuid

#: The key in ``workerinput`` of xdist's workers: a channel of execnet, and the run's id.
CHANNEL = "asyncdb"


def new_id() -> str:
    """Return the id of a new run."""
    return uuid.uuid4().hex[:8]


def prefix_of(run: str) -> str:
    """Return the prefix of the names of all databases of a run."""
    return f"asyncdb_{run}_"


def is_of_a_run(database: str | None) -> bool:
    """Return whether the plugin has made a database for a run, or kept it.

    The name of a SQLite file may have folders.
    """
    return re.match(r"(.*[/\\])?asyncdb_(kept|template|[0-9a-f]{8})_", database or "") is not None


def run_of(database: str) -> str | None:
    """Return the id of the run that made a database; None: no run of the plugin made it."""
    found = re.match(r"asyncdb_([0-9a-f]{8})_", database)
    return found and found.group(1)
