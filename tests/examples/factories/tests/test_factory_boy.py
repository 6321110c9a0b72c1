"""factory_boy, which writes with the sync session of the test."""

from __future__ import annotations

import factory
import pytest
from factory.alchemy import SQLAlchemyModelFactory
from shop import Customer, Order, turnover
from sqlalchemy import func, select


class BaseFactory(SQLAlchemyModelFactory):
    class Meta:
        abstract = True
        sqlalchemy_session_persistence = "commit"


class CustomerFactory(BaseFactory):
    class Meta:
        model = Customer
        sqlalchemy_get_or_create = ("email",)

    email = factory.Sequence(lambda n: f"customer{n}@example.org")


class OrderFactory(BaseFactory):
    class Meta:
        model = Order

    customer = factory.SubFactory(CustomerFactory)
    cents = factory.Faker("random_int", min=1, max=999)


@pytest.fixture(autouse=True)
def session_of_factories(asyncdb_sync_session):
    for one in (CustomerFactory, OrderFactory):
        one._meta.sqlalchemy_session = asyncdb_sync_session


@pytest.mark.parametrize("number", [1, 2])
async def test_turnover(asyncdb_session, number):
    OrderFactory.create_batch(3, customer__email="ada@example.org", cents=100)
    order = OrderFactory()
    assert await turnover(asyncdb_session) == {
        "ada@example.org": 300,
        order.customer.email: order.cents,
    }


def test_in_a_sync_test(asyncdb_sync_session):
    CustomerFactory.create_batch(5)
    assert asyncdb_sync_session.scalar(select(func.count(Customer.id))) == 5
