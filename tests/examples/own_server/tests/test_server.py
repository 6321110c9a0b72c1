from __future__ import annotations

import pytest
from models import Reader
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError


async def test_an_address_is_unique_whatever_its_case(asyncdb_session):
    asyncdb_session.add(Reader(email="ada@example.org"))
    await asyncdb_session.commit()
    asyncdb_session.add(Reader(email="ADA@example.org"))
    with pytest.raises(IntegrityError):
        await asyncdb_session.commit()


@pytest.mark.asyncdb("postgres")
async def test_the_time_zone(asyncdb_session):
    assert await asyncdb_session.scalar(text("SHOW timezone")) == "Asia/Tokyo"


@pytest.mark.asyncdb("postgres", schema=False)
async def test_the_extension_is_in_a_database_without_tables(asyncdb_session):
    assert await asyncdb_session.scalar(text("SELECT 'a'::citext = 'A'")) is True


@pytest.mark.asyncdb("mysql", "mariadb")
async def test_names_in_double_quotes(asyncdb_session):
    await asyncdb_session.execute(text('SELECT "id" FROM "readers"'))
