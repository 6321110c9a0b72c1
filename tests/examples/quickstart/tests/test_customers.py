from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import pytest
from shop.models import Customer, Order
from shop.repository import CustomerRepository
from shop.services import EmailTakenError, PaymentError, sign_up, transfer
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError


@pytest.fixture
async def customers(asyncdb_session):
    repository = CustomerRepository(asyncdb_session)
    assert await repository.count() == 0
    return repository


@pytest.fixture
async def ada_and_bob(customers, asyncdb_session):
    await customers.add("ada@example.org", "Ada", balance=Decimal("100.00"))
    await customers.add("bob@example.org", "Bob")
    await asyncdb_session.commit()


async def test_sign_up_commits(customers, asyncdb_session):
    customer = await sign_up(asyncdb_session, "ada@example.org", "Ada")
    await asyncdb_session.refresh(customer)
    assert (customer.active, customer.balance) == (True, Decimal("0.00"))
    assert customer.joined == datetime(2026, 5, 4, 12, 30)


async def test_the_same_address_again(customers, asyncdb_session):
    await sign_up(asyncdb_session, "ada@example.org", "Ada")
    with pytest.raises(EmailTakenError):
        await sign_up(asyncdb_session, "ada@example.org", "Another Ada")
    await sign_up(asyncdb_session, "bob@example.org", "Bob")
    assert await customers.count() == 2


async def test_the_first_address_of_every_test_is_free(customers, asyncdb_session):
    await sign_up(asyncdb_session, "ada@example.org", "Ada")
    assert await customers.count() == 1


async def test_rollback_forgets(customers, asyncdb_session):
    await customers.add("ada@example.org", "Ada")
    await asyncdb_session.rollback()
    assert await customers.by_email("ada@example.org") is None


async def test_transfer(ada_and_bob, asyncdb_session, customers):
    await transfer(asyncdb_session, "ada@example.org", "bob@example.org", Decimal("30.50"))
    asyncdb_session.expire_all()
    assert (await customers.by_email("ada@example.org")).balance == Decimal("69.50")
    assert (await customers.by_email("bob@example.org")).balance == Decimal("30.50")


async def test_a_transfer_that_fails_half_way(ada_and_bob, asyncdb_session, asyncdb_sessionmaker):
    with pytest.raises(PaymentError, match="nobody is called eve@example.org"):
        await transfer(asyncdb_session, "ada@example.org", "eve@example.org", Decimal("30.50"))
    async with asyncdb_sessionmaker() as other:
        ada = await CustomerRepository(other).by_email("ada@example.org")
        assert ada.balance == Decimal("100.00")


async def test_preferences_are_json(customers, asyncdb_session):
    customer = await customers.add("ada@example.org", "Ada", preferences={"mails": [1, None, "ü"]})
    await asyncdb_session.commit()
    await asyncdb_session.refresh(customer)
    assert customer.preferences == {"mails": [1, None, "ü"]}


async def test_an_order_needs_its_customer(customers, asyncdb_session):
    asyncdb_session.add(Order(customer_id=4711, placed=datetime(2026, 6, 1)))
    with pytest.raises(IntegrityError):
        await asyncdb_session.commit()
    await asyncdb_session.rollback()
    assert (await asyncdb_session.scalars(select(Order))).all() == []


async def test_bulk_update_and_delete(ada_and_bob, asyncdb_session, customers):
    assert await customers.deactivate_poorer_than(Decimal("1.00")) == 1
    assert await customers.remove_inactive() == 1
    await asyncdb_session.commit()
    assert (await asyncdb_session.scalars(select(Customer.name))).all() == ["Ada"]
