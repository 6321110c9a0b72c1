"""The number of connections that a server has left for the run, and that a worker may keep open.

This is checked once per worker, before its first database is created. Nothing is counted
afterwards: a test that opens more connections than the server allows gets the server's own error.
"""

from __future__ import annotations

from pytest_asyncdb import errors
from pytest_asyncdb.abc import Backend, Server, Sql

#: The smallest number of connections for a worker: one for the test, one that creates databases,
#: and one that restores a database or makes copies in advance.
MINIMUM = 3
#: The largest number of idle connections that a strategy keeps, however large the server is.
MOST_IDLE = 5
#: Number of strategies of one worker that may keep idle connections at the same time.
_STRATEGIES = 3


async def free_connections(sql: Sql, backend: Backend) -> int | None:
    """Return how many more connections the account may open; None: the server does not say."""
    if backend.free_connections_query is None:
        return None
    ((number,),) = await sql.fetch(backend.free_connections_query)
    return None if number is None else int(number)


def idle_limit(server: Server, label: str, workers: int) -> int:
    """How many connections a strategy may keep open between tests.

    Args:
        label: The backend's name in sentences.
        workers: The number of processes that share the server.

    Raises:
        ServerUnavailable: The server has too few connections for the workers.
    """
    limit = server.connection_limit
    if limit is None:
        return MOST_IDLE
    share = limit // workers
    if share < MINIMUM:
        most = limit // MINIMUM
        fewer = f"run fewer workers: -n {most}" if most > 1 else "run without xdist's workers"
        raise errors.ServerUnavailable(
            f"{label} has room for {limit} connections, {workers} workers need "
            f"{workers * MINIMUM} ({server.reason})",
            [
                f"Each worker needs {MINIMUM}. Counted when the run began, without what others "
                "use and what is kept for administrators."
            ],
            [
                *([fewer] if workers > 1 else []),
                "raise max_connections of the server, or the limit of the account",
            ],
        )
    return min(MOST_IDLE, (share - MINIMUM) // _STRATEGIES)
