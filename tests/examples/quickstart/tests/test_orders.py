from __future__ import annotations

from decimal import Decimal

import pytest
from shop.models import Base, Customer, Order, OrderLine, Product
from shop.repository import CustomerRepository, ProductRepository
from shop.services import StockError, place_order, turnover
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker


@pytest.fixture
async def stocked(asyncdb_sessionmaker):
    """Sessions of a shop with one customer and two products."""
    async with asyncdb_sessionmaker() as session, session.begin():
        for table in Base.metadata.sorted_tables:
            assert await session.scalar(select(func.count()).select_from(table)) == 0
        await CustomerRepository(session).add("ada@example.org", "Ada", balance=Decimal(50))
        await ProductRepository(session).add("pen", "1.20", stock=3)
        await ProductRepository(session).add("ink", "7.05", stock=1)
    return asyncdb_sessionmaker


async def test_an_order_takes_stock_and_money(stocked, asyncdb_session):
    number = await place_order(stocked, "ada@example.org", {"pen": 2, "ink": 1})
    ada = await CustomerRepository(asyncdb_session).with_orders("ada@example.org")
    assert ada.balance == Decimal("40.55")
    (order,) = ada.orders
    assert (order.id, order.status) == (number, "open")
    assert [(line.product.sku, line.quantity) for line in order.lines] == [("pen", 2), ("ink", 1)]


async def test_an_order_without_stock_changes_nothing(stocked, asyncdb_session):
    with pytest.raises(StockError, match="1 of ink left"):
        await place_order(stocked, "ada@example.org", {"pen": 2, "ink": 2})
    assert await asyncdb_session.scalar(select(func.count()).select_from(Order)) == 0
    query = select(Product.stock).where(Product.sku == "pen")
    assert await asyncdb_session.scalar(query) == 3


async def test_turnover_on_the_engine(stocked, asyncdb_engine):
    assert await turnover(asyncdb_engine) == 0
    await place_order(stocked, "ada@example.org", {"pen": 1})
    await place_order(stocked, "ada@example.org", {"pen": 2, "ink": 1})
    assert await turnover(asyncdb_engine) == Decimal("10.65")


async def test_deleting_a_customer_deletes_the_orders(stocked, asyncdb_session):
    await place_order(stocked, "ada@example.org", {"pen": 1, "ink": 1})
    ada = await CustomerRepository(asyncdb_session).with_orders("ada@example.org")
    await asyncdb_session.delete(ada)
    await asyncdb_session.commit()
    for model in (Customer, Order, OrderLine):
        assert await asyncdb_session.scalar(select(func.count()).select_from(model)) == 0


async def test_a_sessionmaker_of_the_application(asyncdb_engine):
    sessions = async_sessionmaker(asyncdb_engine, class_=AsyncSession, expire_on_commit=False)
    async with sessions() as session:
        pen = await ProductRepository(session).add("pen", "1.20")
        await session.commit()
        assert pen.price == Decimal("1.20")
    async with asyncdb_engine.begin() as connection:
        assert (await connection.scalars(select(Product.sku))).all() == ["pen"]
