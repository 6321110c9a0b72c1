"""The queue itself: jobs go in, and each is taken by exactly one worker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from jobs.db import Session
from jobs.models import Job


async def enqueue(*names: str) -> list[int]:
    async with Session.begin() as session:
        jobs = [Job(name=name) for name in names]
        session.add_all(jobs)
        await session.flush()
        return [job.id for job in jobs]


async def take(session: AsyncSession) -> Job | None:
    """The oldest job that nobody has done, nor has in hand; locked until the commit."""
    waiting = select(Job).where(Job.done_by.is_(None)).order_by(Job.id).limit(1)
    return await session.scalar(waiting.with_for_update(skip_locked=True))


async def work(worker: str, do: Callable[[Job], Awaitable[None]]) -> int:
    """Do jobs until there are none; a job whose work fails is there for the next worker.

    Returns:
        How many were done.
    """
    done = 0
    while True:
        async with Session.begin() as session:
            job = await take(session)
            if job is None:
                return done
            await do(job)
            job.done_by = worker
        done += 1
