"""With Starlette's TestClient: the application runs in another thread, on another loop."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from notes.main import app
from notes.models import User
from sqlalchemy import select


@pytest.fixture
def client(asyncdb_engine):
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("number", [1, 2])
def test_sign_up(client, number):
    assert client.post("/users", params={"email": "ada@example.org"}).status_code == 201
    assert client.post("/users", params={"email": "ada@example.org"}).status_code == 409
    assert client.get("/numbers").json() == {"users": 1, "notes": 1}


@pytest.mark.asyncio
async def test_from_an_async_test(client, asyncdb_session):
    asyncdb_session.add(User(email="ada@example.org"))
    await asyncdb_session.commit()
    assert client.get("/users").json() == ["ada@example.org"]
    assert client.post("/users", params={"email": "grace@example.org"}).status_code == 201
    emails = await asyncdb_session.scalars(select(User.email).order_by(User.email))
    assert emails.all() == ["ada@example.org", "grace@example.org"]
