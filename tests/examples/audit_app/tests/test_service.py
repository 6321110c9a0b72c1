from __future__ import annotations

import pytest
from app.audit import Event
from app.models import Account
from app.service import register, rename
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError


@pytest.fixture
async def events(asyncdb):
    """A function that reads the events."""

    async def read():
        async with asyncdb.database("audit").sessionmaker() as session:
            return [*await session.scalars(select(Event.what).order_by(Event.id))]

    return read


async def emails(session):
    return [*await session.scalars(select(Account.email).order_by(Account.id))]


async def test_register(asyncdb_session, events):
    await register("ada@example.org")
    assert await emails(asyncdb_session) == ["ada@example.org"]
    assert await events() == ["installed", "register ada@example.org"]


async def test_the_record_of_a_failed_attempt_stays(asyncdb_session, events):
    await register("ada@example.org")
    with pytest.raises(IntegrityError):
        await register("ada@example.org")
    assert await emails(asyncdb_session) == ["ada@example.org"]
    assert await events() == ["installed", *["register ada@example.org"] * 2]


async def test_rename_changes_both_databases(asyncdb_session, events):
    await register("ada@example.org")
    account = await asyncdb_session.scalar(select(Account.id))
    await asyncdb_session.commit()
    await rename("ada@example.org", "countess@example.org", account)
    assert await emails(asyncdb_session) == ["countess@example.org"]
    assert (await events())[2:] == ["rename ada@example.org to countess@example.org"]


async def test_rename_changes_neither_if_it_fails(asyncdb_session, events):
    for email in ("ada@example.org", "bob@example.org"):
        await register(email)
    account = await asyncdb_session.scalar(
        select(Account.id).where(Account.email == "bob@example.org")
    )
    await asyncdb_session.commit()
    with pytest.raises(IntegrityError):
        await rename("bob@example.org", "ada@example.org", account)
    assert await emails(asyncdb_session) == ["ada@example.org", "bob@example.org"]
    assert len(await events()) == 3


async def test_statements_are_counted_in_each_database(asyncdb):
    with asyncdb.count() as main, asyncdb.database("audit").count() as audit:
        await register("ada@example.org")
    assert (len(main), len(audit)) == (1, 1)
