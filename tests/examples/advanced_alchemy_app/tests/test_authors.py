from __future__ import annotations

import uuid

import pytest
from advanced_alchemy.exceptions import IntegrityError
from library import Author, AuthorService, app
from litestar.testing import AsyncTestClient
from sqlalchemy import select


@pytest.fixture
async def client(asyncdb_engine):
    async with AsyncTestClient(app) as client:
        yield client


@pytest.mark.parametrize("number", [1, 2])
async def test_add_and_remove(client, number):
    added = await client.post("/authors/ada")
    assert added.status_code == 201
    assert (await client.get("/authors")).json() == ["ada"]
    assert (await client.delete(f"/authors/{added.json()}")).status_code == 204
    assert (await client.get("/authors")).json() == []


async def test_what_fails_is_rolled_back(client, asyncdb_session):
    assert (await client.post("/authors/ada")).status_code == 201
    assert (await client.post("/authors/ada")).status_code == 409
    assert (await client.delete(f"/authors/{uuid.uuid4()}")).status_code == 404
    assert (await asyncdb_session.scalars(select(Author.name))).all() == ["ada"]


async def test_a_service_on_a_session_of_the_test(asyncdb_session):
    authors = AuthorService(asyncdb_session)
    await authors.create_many([{"name": "ada"}, {"name": "bob"}], auto_commit=True)
    assert await authors.count() == 2
    with pytest.raises(IntegrityError):
        await authors.create({"name": "ada"}, auto_commit=True)
    await asyncdb_session.rollback()
    author = await authors.upsert({"name": "eve"}, auto_commit=True)
    assert author.updated_at.tzinfo is not None
