from __future__ import annotations

import pytest
from heroes import Hero, app
from httpx import ASGITransport, AsyncClient
from sqlalchemy.exc import IntegrityError
from sqlmodel import select


@pytest.fixture
async def client(asyncdb_engine):
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        yield client


async def test_create(client, asyncdb_session):
    created = await client.post("/heroes", json={"name": "Deadpond", "age": 30})
    assert created.status_code == 201
    hero = (await asyncdb_session.exec(select(Hero))).one()
    assert (hero.id, hero.name, hero.age) == (created.json()["id"], "Deadpond", 30)


async def test_read(client, asyncdb_session):
    asyncdb_session.add_all([Hero(name="Rusty-Man", age=48), Hero(name="Spider-Boy", age=16)])
    await asyncdb_session.commit()
    (older,) = (await client.get("/heroes", params={"older_than": 18})).json()
    assert older["name"] == "Rusty-Man"
    assert (await client.get(f"/heroes/{older['id']}")).json() == older
    assert (await client.get("/heroes/4711")).status_code == 404


async def test_a_name_is_unique(asyncdb_sessionmaker):
    async with asyncdb_sessionmaker() as session:
        session.add_all([Hero(name="Deadpond"), Hero(name="Deadpond")])
        with pytest.raises(IntegrityError):
            await session.commit()
    async with asyncdb_sessionmaker() as session:
        assert (await session.exec(select(Hero))).all() == []


def test_in_sync_code(asyncdb_sync_session):
    asyncdb_sync_session.add(Hero(name="Deadpond"))
    asyncdb_sync_session.commit()
    assert asyncdb_sync_session.exec(select(Hero.name)).one() == "Deadpond"
