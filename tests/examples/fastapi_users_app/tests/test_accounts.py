from __future__ import annotations

import pytest
from accounts import User, app
from httpx import ASGITransport, AsyncClient
from sqlalchemy import select

ADA = {"email": "ada@example.org", "password": "difference engine"}
LOGIN = {"username": ADA["email"], "password": ADA["password"]}


@pytest.fixture
async def client(asyncdb_engine):
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        yield client


@pytest.mark.parametrize("number", [1, 2])
async def test_register_and_log_in(client, number):
    assert (await client.post("/auth/register", json=ADA)).status_code == 201
    token = (await client.post("/auth/login", data=LOGIN)).json()["access_token"]
    me = await client.get("/me", headers={"Authorization": f"Bearer {token}"})
    assert me.json() == "ada@example.org"


async def test_register_twice(client, asyncdb_session):
    assert (await client.post("/auth/register", json=ADA)).status_code == 201
    again = await client.post("/auth/register", json={**ADA, "email": "Ada@example.org"})
    assert again.json()["detail"] == "REGISTER_USER_ALREADY_EXISTS"
    assert (await asyncdb_session.scalars(select(User.email))).all() == ["ada@example.org"]


async def test_an_account_that_is_not_active(client, asyncdb_session):
    await client.post("/auth/register", json=ADA)
    user = (await asyncdb_session.scalars(select(User))).one()
    user.is_active = False
    await asyncdb_session.commit()
    assert (await client.post("/auth/login", data=LOGIN)).status_code == 400
