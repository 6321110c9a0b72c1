import pytest
from app.db import Session, nearest, store
from app.models import Document
from sqlalchemy import func, select, text

pytestmark = [
    pytest.mark.parametrize("number", range(2)),
    pytest.mark.parametrize(
        "strategy",
        [
            pytest.param(one, marks=pytest.mark.asyncdb(isolation=one))
            for one in ("rollback", "reset", "copy")
        ],
    ),
]


async def test_nearest(strategy, number):
    await store(a=[1, 0, 0], b=[0, 1, 0], c=[0, 0, 1])
    assert await nearest([0.1, 0.9, 0]) == ["b"]
    assert await nearest([0.5, 0.4, 0], limit=2) == ["a", "b"]


async def test_a_vector_comes_back(strategy, number, asyncdb_session):
    await store(a=[1, 0.5, 0])
    embedding = await asyncdb_session.scalar(select(Document.embedding))
    assert [*embedding] == [1, 0.5, 0]


async def test_codec(strategy, number, asyncdb_backend):
    async with Session() as session:
        value = await session.scalar(text("SELECT '[1,2,3]'::vector"))
    assert isinstance(value, str) == (asyncdb_backend.driver == "asyncpg")


async def test_index(strategy, number, asyncdb_session):
    await store(**{f"d{n}": [n, 0, 0] for n in range(20)})
    await asyncdb_session.execute(
        text("CREATE INDEX ON documents USING hnsw (embedding vector_l2_ops)")
    )
    await asyncdb_session.commit()
    assert await nearest([7.2, 0, 0]) == ["d7"]
    assert await asyncdb_session.scalar(select(func.count(Document.id))) == 20
