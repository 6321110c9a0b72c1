from __future__ import annotations

import asyncio

import pytest
from jobs.budget import spend
from jobs.models import Budget

pytestmark = pytest.mark.asyncdb


@pytest.mark.asyncdb(exclude="sqlite", reason="writers take turns from the begin on")
@pytest.mark.parametrize("number", [1, 2])
async def test_who_loses_against_another_one_tries_again(asyncdb_session, number):
    both_have_looked = asyncio.Barrier(2)

    async def spender():
        async def meet():
            if both_have_looked.broken or len(met) == 2:
                return
            met.append(1)
            await both_have_looked.wait()

        return await spend("travel", 30, meet)

    met = []
    async with asyncio.timeout(20):
        attempts = await asyncio.gather(spender(), spender())
    assert sorted(attempts) == [1, 2]
    assert (await asyncdb_session.get_one(Budget, "travel")).left == 40


async def test_the_seed_is_there_again(asyncdb, asyncdb_session):
    assert (await asyncdb_session.get_one(Budget, "travel")).left == 100
    assert await asyncdb.changes() == {}
