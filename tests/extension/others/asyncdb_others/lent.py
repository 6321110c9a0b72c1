"""A server provider: a PostgreSQL server that another program lends, by a variable."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator

from sqlalchemy.engine import make_url

from pytest_asyncdb.abc import (
    Backend,
    BackendSpec,
    Candidate,
    Driver,
    Server,
    ServerProvider,
    Sourced,
)
from pytest_asyncdb.errors import ProviderUnavailable, ServerStartError

VARIABLE = "OTHERS_LENT_SERVER"


class LentProvider(ServerProvider):
    name = "lent"

    def find(self, spec: BackendSpec, backend: Backend, url: Sourced[str] | None) -> Candidate:
        if VARIABLE not in os.environ:
            raise ProviderUnavailable(f"{VARIABLE} is not set")
        return Candidate(self.name, VARIABLE, None, detail=os.environ[VARIABLE])

    @contextlib.contextmanager
    def obtain(
        self,
        found: Candidate,
        spec: BackendSpec,
        backend: Backend,
        driver: Driver,
        progress: Callable[[str], None],
    ) -> Iterator[Server]:
        url = make_url(found.detail)
        try:
            version = asyncio.run(_version(found.detail))
        except OSError as error:
            what = f"the server of {VARIABLE} does not answer"
            raise ServerStartError(what, [str(error)], ["borrow another one"]) from error
        yield Server(
            backend=backend.name,
            version=version,
            provider=self.name,
            reason=found.reason,
            managed=False,
            host=url.host,
            port=url.port,
            user=url.username,
            password=url.password,
            maintenance=url.database,
        )


async def _version(url: str) -> str:
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        return str(await connection.fetchval("SHOW server_version")).partition(" ")[0]
    finally:
        await connection.close()
