"""polyfactory, which writes with the async session of the test."""

from __future__ import annotations

import pytest
from polyfactory import Ignore, Use
from polyfactory.factories.sqlalchemy_factory import SQLAlchemyFactory
from shop import Customer, Order, turnover
from sqlalchemy import func, select


class BaseFactory(SQLAlchemyFactory):
    __is_base_factory__ = True


class CustomerFactory(BaseFactory):
    __model__ = Customer
    __set_relationships__ = False
    id = Ignore()


class OrderFactory(BaseFactory):
    __model__ = Order
    __set_foreign_keys__ = False
    id = Ignore()
    cents = Use(BaseFactory.__random__.randint, 1, 999)
    customer = CustomerFactory


@pytest.fixture(autouse=True)
def session_of_factories(asyncdb_session, monkeypatch):
    monkeypatch.setattr(BaseFactory, "__async_session__", asyncdb_session)


@pytest.mark.parametrize("number", [1, 2])
async def test_turnover(asyncdb_session, number):
    customer = await CustomerFactory.create_async(email="ada@example.org")
    await OrderFactory.create_batch_async(3, customer=customer, cents=100)
    await OrderFactory.create_async(customer=CustomerFactory.build(email="bob@example.org"))
    sums = await turnover(asyncdb_session)
    assert sums.pop("ada@example.org") == 300
    assert 1 <= sums.pop("bob@example.org") <= 999
    assert sums == {}


async def test_they_are_stored(asyncdb_sessionmaker):
    await CustomerFactory.create_batch_async(5)
    async with asyncdb_sessionmaker() as session:
        assert await session.scalar(select(func.count(Customer.id))) == 5
