"""With httpx, on the loop of the test."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio
from httpx import ASGITransport, AsyncClient
from notes.main import app
from notes.models import Note, User
from sqlalchemy import func, select

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def client(asyncdb_engine):
    transport = ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


async def test_sign_up(client):
    response = await client.post("/users", params={"email": "ada@example.org"})
    assert response.status_code == 201
    assert (await client.get("/users")).json() == ["ada@example.org"]


async def test_nothing_is_left_of_another_test(client):
    assert (await client.get("/users")).json() == []


async def test_taken(client):
    await client.post("/users", params={"email": "ada@example.org"})
    response = await client.post("/users", params={"email": "ada@example.org"})
    assert response.status_code == 409
    assert (await client.get("/users")).json() == ["ada@example.org"]


async def test_the_background_task_and_the_gather(client):
    await client.post("/users", params={"email": "ada@example.org"})
    assert (await client.get("/numbers")).json() == {"users": 1, "notes": 1}


async def test_many_at_once(client):
    names = [f"user{n:02}@example.org" for n in range(10)]
    await asyncio.gather(*(client.post("/users", params={"email": name}) for name in names))
    assert (await client.get("/users")).json() == names


async def test_with_a_session_of_the_test(client, asyncdb_session):
    asyncdb_session.add(User(email="ada@example.org"))
    await asyncdb_session.commit()
    ada = await asyncdb_session.scalar(select(User.id))
    await asyncdb_session.commit()
    assert (await client.post(f"/users/{ada}/notes", params={"text": "hi"})).status_code == 201
    assert await asyncdb_session.scalar(select(func.count(Note.id))) == 1
