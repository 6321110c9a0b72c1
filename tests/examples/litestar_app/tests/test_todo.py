from __future__ import annotations

import pytest
from litestar.testing import AsyncTestClient, TestClient
from todo import Item, app


@pytest.fixture
async def client(asyncdb_engine):
    async with AsyncTestClient(app) as client:
        yield client


@pytest.mark.parametrize("number", [1, 2])
async def test_add(client, number):
    assert (await client.post("/items/milk")).status_code == 201
    assert (await client.post("/items/milk")).status_code == 409
    assert (await client.get("/items")).json() == ["milk"]


async def test_with_a_session_of_the_test(client, asyncdb_session):
    asyncdb_session.add(Item(title="bread"))
    await asyncdb_session.commit()
    assert (await client.get("/items")).json() == ["bread"]


@pytest.mark.asyncdb
def test_with_the_sync_client():
    with TestClient(app) as client:
        assert client.post("/items/milk").status_code == 201
        assert client.get("/items").json() == ["milk"]
