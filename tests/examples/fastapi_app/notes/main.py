from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from notes.db import Session, engine
from notes.models import Base, Note, User


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def session() -> AsyncIterator[AsyncSession]:
    async with Session() as session:
        yield session


Db = Annotated[AsyncSession, Depends(session)]


async def welcome(user_id: int) -> None:
    """Runs after the response, in a session of its own."""
    async with Session.begin() as session:
        session.add(Note(user_id=user_id, text="Welcome!"))


@app.post("/users", status_code=201)
async def sign_up(email: str, db: Db, tasks: BackgroundTasks) -> dict[str, object]:
    user = User(email=email)
    db.add(user)
    try:
        await db.commit()
    except IntegrityError:
        await db.rollback()
        raise HTTPException(409, f"{email} is taken") from None
    await db.refresh(user)  # expire_on_commit is on, as by default
    tasks.add_task(welcome, user.id)
    return {"id": user.id, "email": user.email}


@app.get("/users")
async def users(db: Db) -> list[str]:
    return list((await db.scalars(select(User.email).order_by(User.email))).all())


@app.post("/users/{user_id}/notes", status_code=201)
async def write(user_id: int, text: str, db: Db) -> None:
    if await db.get(User, user_id) is None:
        raise HTTPException(404)
    db.add(Note(user_id=user_id, text=text))
    await db.commit()


@app.get("/numbers")
async def numbers() -> dict[str, int]:
    """Two queries at once, each on a connection of its own."""

    async def count(model: type[Base]) -> int:
        async with Session() as session:
            return await session.scalar(select(func.count()).select_from(model)) or 0

    users, notes = await asyncio.gather(count(User), count(Note))
    return {"users": users, "notes": notes}
