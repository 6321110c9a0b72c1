"""A small FastAPI application with SQLModel's models and sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

engine = create_async_engine("postgresql+asyncpg://heroes:secret@db.heroes.invalid/heroes")


class HeroCreate(SQLModel):
    name: str = Field(max_length=100, unique=True)
    age: int | None = None


class Hero(HeroCreate, table=True):
    id: int | None = Field(default=None, primary_key=True)


async def session() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine) as session:
        yield session


Db = Annotated[AsyncSession, Depends(session)]
app = FastAPI()


@app.post("/heroes", status_code=201)
async def create(hero: HeroCreate, db: Db) -> Hero:
    stored = Hero.model_validate(hero)
    db.add(stored)
    await db.commit()
    await db.refresh(stored)
    return stored


@app.get("/heroes")
async def heroes(db: Db, older_than: int = 0) -> list[Hero]:
    query = select(Hero).where(col(Hero.age) > older_than).order_by(Hero.name)
    return list((await db.exec(query)).all())


@app.get("/heroes/{hero_id}")
async def hero(hero_id: int, db: Db) -> Hero:
    if (found := await db.get(Hero, hero_id)) is None:
        raise HTTPException(404)
    return found
