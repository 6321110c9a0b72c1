"""What all contenders share. They bring the fixtures ``session``, an ``AsyncSession`` on a clean
database to which the application's ``Session`` leads, too, and ``web``, Starlette's test client.
"""

import os

import pytest
import pytest_asyncio
from factories import Factory
from httpx import ASGITransport, AsyncClient
from shop.api import api


def pytest_collection_modifyitems(items):
    items[:] = items[:: int(os.environ.get("SUITE_EACH", "1"))]


@pytest.fixture
def make(session):
    return Factory(session)


@pytest_asyncio.fixture
async def client(session):
    async with AsyncClient(transport=ASGITransport(api), base_url="http://shop") as client:
        yield client
