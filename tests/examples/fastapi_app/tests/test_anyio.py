"""The same under anyio's plugin."""

from __future__ import annotations

import pytest
from asgi_lifespan import LifespanManager
from httpx import ASGITransport, AsyncClient
from notes.main import app

pytestmark = [pytest.mark.anyio, pytest.mark.asyncdb]


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def client(anyio_backend):
    async with (
        LifespanManager(app),
        AsyncClient(transport=ASGITransport(app), base_url="http://test") as client,
    ):
        yield client


@pytest.mark.parametrize("number", [1, 2])
async def test_sign_up(client, number):
    response = await client.post("/users", params={"email": "ada@example.org"})
    assert response.status_code == 201
    response = await client.post("/users", params={"email": "ada@example.org"})
    assert response.status_code == 409
    assert (await client.get("/numbers")).json() == {"users": 1, "notes": 1}
