from __future__ import annotations

import pytest
from asgi_lifespan import LifespanManager
from counter import app, hits
from httpx import ASGITransport, AsyncClient
from sqlalchemy import select
from starlette.testclient import TestClient


@pytest.fixture
async def client():
    async with (
        LifespanManager(app),
        AsyncClient(transport=ASGITransport(app), base_url="http://test") as client,
    ):
        yield client


@pytest.mark.parametrize("number", [1, 2])
async def test_hits(client, asyncdb_connection, number):
    assert (await client.get("/home")).json() == 1
    assert (await client.get("/home")).json() == 2
    assert (await client.get("/about")).json() == 1
    pages = await asyncdb_connection.scalars(select(hits.c.page).order_by(hits.c.page))
    assert pages.all() == ["about", "home", "home"]


@pytest.mark.parametrize("number", [1, 2])
def test_in_a_thread(number):
    with TestClient(app) as client:
        assert client.get("/home").json() == 1
