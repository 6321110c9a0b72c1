"""With pytest-databases, which starts a container; the rest is by hand."""

import os

import pytest_asyncio
from by_hand import connection, served, session, web  # noqa: F401
from sqlalchemy.engine import URL, make_url
from worker_databases import create_tables

pytest_plugins = ["pytest_databases.docker.postgres"]
DRIVER = make_url(os.environ["SUITE_URL"]).drivername


@pytest_asyncio.fixture(scope="session")
async def database_url(postgres_17_service):
    it = postgres_17_service
    url = URL.create(DRIVER, it.user, it.password, it.host, it.port, it.database)
    await create_tables(url)
    return url
