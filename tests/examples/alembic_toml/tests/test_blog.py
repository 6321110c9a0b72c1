from __future__ import annotations

import pytest
from blog import Author, Post
from sqlalchemy import select, text


@pytest.mark.parametrize("number", [1, 2])
async def test_a_default_of_the_migrations(asyncdb_session, number):
    asyncdb_session.add(Author(name="ada", posts=[Post(body="a note")]))
    await asyncdb_session.commit()
    assert (await asyncdb_session.scalars(select(Post.title))).all() == ["untitled"]


async def test_the_newest_revision(asyncdb_connection):
    query = text("SELECT version_num FROM alembic_version")
    assert (await asyncdb_connection.scalars(query)).all() == ["0002"]


async def test_models_and_migrations_agree(asyncdb):
    assert await asyncdb.schema_differences() == []
