from __future__ import annotations

import pytest
from app.models import Country, Customer
from sqlalchemy import delete, func, select


async def test_the_files_ran_in_their_order(asyncdb_session):
    names = await asyncdb_session.scalars(select(Country.name).order_by(Country.code))
    assert [*names] == ["Iceland", "Norway"]


@pytest.mark.parametrize("code", ["IS", "NO"])
async def test_a_seeded_object_is_in_the_database(asyncdb, asyncdb_session, code):
    customer = await asyncdb_session.get_one(Customer, asyncdb.seeded[code].id)
    assert customer.country == code


@pytest.mark.parametrize("number", [1, 2])
async def test_each_test_gets_all_rows(asyncdb, asyncdb_session, number):
    assert await asyncdb_session.scalar(select(func.count()).select_from(Customer)) == 2
    assert asyncdb.seeded.pop("IS")
    await asyncdb_session.execute(delete(Customer))
    await asyncdb_session.commit()
