from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from jobs.models import Job
from jobs.queue import enqueue, take, work
from sqlalchemy import func, select

pytestmark = pytest.mark.asyncdb(exclude="sqlite", reason="row locks")


async def nothing(job):
    await asyncio.sleep(0)


async def test_four_workers_do_each_job_once(asyncdb_session):
    await enqueue(*(f"job {number}" for number in range(40)))
    everybody_has_one = asyncio.Barrier(4)
    first = set()
    done = []

    async def do(job):
        worker = asyncio.current_task().get_name()
        if worker not in first:
            first.add(worker)
            async with asyncio.timeout(10):
                await everybody_has_one.wait()  # four transactions are open, four rows locked
        done.append(job.name)

    async def worker(name):
        asyncio.current_task().set_name(name)
        return await work(name, do)

    assert sum(await asyncio.gather(*map(worker, "abcd"))) == 40
    assert Counter(done).most_common(1)[0][1] == 1
    query = select(Job.done_by, func.count()).group_by(Job.done_by)
    assert {row.done_by for row in await asyncdb_session.execute(query)} == set("abcd")


async def test_a_job_that_fails_is_there_for_the_next_worker(asyncdb_session):
    await enqueue("breaks")

    async def fail(job):
        raise RuntimeError(job.name)

    with pytest.raises(RuntimeError):
        await work("a", fail)
    assert await work("b", nothing) == 1
    assert await asyncdb_session.scalar(select(Job.done_by)) == "b"


async def test_a_job_that_is_in_hand_is_skipped(asyncdb_sessionmaker):
    await enqueue("first", "second")
    async with asyncdb_sessionmaker() as one, asyncdb_sessionmaker() as other:
        assert (await take(one)).name == "first"
        assert (await take(other)).name == "second"
        await one.rollback()
        await other.rollback()
        assert (await take(other)).name == "first"


async def test_a_worker_that_waits_for_a_row_gives_up(asyncdb):
    (job,) = await enqueue("held")
    held = select(Job).where(Job.id == job).with_for_update()
    async with asyncdb.connections(2, lock_timeout=1) as (one, other):
        await one.execute(held)
        with pytest.raises(Exception, match=r"(?i)lock.*time"):
            await other.execute(held)


@pytest.mark.parametrize("number", [1, 2])
async def test_ids_begin_anew(number):
    assert await enqueue("first", "second") == [1, 2]
