"""With pytest-sqla.

Its workers would share one database, in which they wait for each other's unique values, so each
gets one by hand. It refuses Starlette's test client, whose loop is in another thread, so that has
the fixtures by hand, too.
"""

import os

import pytest
import pytest_asyncio
from by_hand import lead_application_to, served, web  # noqa: F401
from shop.models import Base
from worker_databases import worker_database

URL = os.environ["SUITE_URL"]
SQLITE = URL.startswith("sqlite")


@pytest_asyncio.fixture(scope="session")
async def database_url(tmp_path_factory):
    if SQLITE:
        yield URL
        return
    async for url in worker_database(URL, tmp_path_factory.getbasetemp().parent):
        yield url


@pytest.fixture(scope="session")
def sqla_async_url(database_url):
    return database_url


@pytest.fixture(scope="session")
def sqla_metadata():
    return Base.metadata


if not SQLITE:

    @pytest.fixture(scope="session")
    def sqla_schema(database_url):
        """The database has its tables."""


@pytest.fixture(scope="session")
def sqla_session_options():
    return {"expire_on_commit": False}


@pytest.fixture
def session(sqla_async_session, sqla_async_connection):
    lead_application_to(sqla_async_connection)
    return sqla_async_session
