"""Without any of the plugins."""

import os

import pytest_asyncio
from by_hand import connection, served, session, web  # noqa: F401
from worker_databases import worker_database

URL = os.environ["SUITE_URL"]


@pytest_asyncio.fixture(scope="session")
async def database_url(tmp_path_factory):
    if URL.startswith("sqlite"):
        yield URL
        return
    async for url in worker_database(URL, tmp_path_factory.getbasetemp().parent):
        yield url
