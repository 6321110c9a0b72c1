from __future__ import annotations

import pytest
from shop.models import Product
from shop.repository import ProductRepository
from shop.services import export_products, import_products, restock
from sqlalchemy import func, insert, select


async def count(connection):
    return await connection.scalar(select(func.count()).select_from(Product))


@pytest.fixture
async def products(asyncdb_session):
    assert await count(asyncdb_session) == 0
    repository = ProductRepository(asyncdb_session)
    await repository.add("pen", "1.20", tags=["paper", "small"])
    await repository.add("ink", "7.05", tags=["small"])
    await asyncdb_session.commit()
    return repository


async def test_tags(products):
    assert [product.sku for product in await products.tagged("small")] == ["ink", "pen"]
    assert [product.sku for product in await products.tagged("paper")] == ["pen"]


async def test_relationships_load_when_awaited(products):
    (pen,) = await products.tagged("paper")
    assert sorted(tag.word for tag in await pen.awaitable_attrs.tags) == ["paper", "small"]


async def test_import_skips_what_is_known(products, asyncdb_session):
    rows = [("cup", "3.00"), ("pen", "9.99"), ("map", "4.50"), ("cup", "3.00")]
    assert await import_products(asyncdb_session, rows) == (2, ["pen", "cup"])
    assert await count(asyncdb_session) == 4


async def test_nested_rollback_keeps_the_outer_work(asyncdb_session):
    assert await count(asyncdb_session) == 0
    repository = ProductRepository(asyncdb_session)
    await repository.add("pen", "1.20")
    savepoint = await asyncdb_session.begin_nested()
    await repository.add("ink", "7.05")
    await savepoint.rollback()
    await asyncdb_session.commit()
    assert (await asyncdb_session.scalars(select(Product.sku))).all() == ["pen"]


async def test_export_streams(products, asyncdb_sessionmaker):
    lines = [line async for line in export_products(asyncdb_sessionmaker)]
    assert lines == ["ink;7.05", "pen;1.20"]


async def test_an_export_that_is_left_early(products, asyncdb_sessionmaker, asyncdb_session):
    export = export_products(asyncdb_sessionmaker)
    async for line in export:
        assert line == "ink;7.05"
        break
    await export.aclose()
    assert await count(asyncdb_session) == 2


async def test_restock_gathers_sessions(products, asyncdb_sessionmaker, asyncdb_session):
    await restock(asyncdb_sessionmaker, {"pen": 5, "ink": 1})
    query = select(Product.stock).order_by(Product.sku)
    asyncdb_session.expire_all()
    assert (await asyncdb_session.scalars(query)).all() == [11, 15]


async def test_a_connection_commits(asyncdb_connection, asyncdb_sessionmaker):
    assert await count(asyncdb_connection) == 0
    row = {"sku": "pen", "title": "Pen", "price": "1.20", "stock": 1}
    await asyncdb_connection.execute(insert(Product), [row, {**row, "sku": "ink"}])
    await asyncdb_connection.commit()
    async with asyncdb_sessionmaker() as session:
        assert await count(session) == 2
