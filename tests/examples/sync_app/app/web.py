from __future__ import annotations

import asyncio

from app.db import Session
from app.models import Letter
from app.tasks import send, waiting


async def write(email: str) -> None:
    """Store a letter, and let a worker send it."""
    async with Session.begin() as session:
        letter = Letter(email=email)
        session.add(letter)
        await session.flush()
        number = letter.id
    send.delay(number)


async def waiting_page() -> list[str]:
    return await asyncio.to_thread(waiting)
