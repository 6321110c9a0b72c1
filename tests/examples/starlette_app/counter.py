"""A small Starlette application whose lifespan makes the engine and disposes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import Column, Integer, MetaData, String, Table, func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

metadata = MetaData()
hits = Table(
    "hits",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("page", String(100), nullable=False),
)

engine: AsyncEngine | None = None


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    global engine
    engine = create_async_engine("postgresql+asyncpg://counter:secret@db.counter.invalid/counter")
    yield
    await engine.dispose()
    engine = None


async def hit(request: Request) -> JSONResponse:
    page = request.path_params["page"]
    async with engine.begin() as connection:
        await connection.execute(insert(hits).values(page=page))
        query = select(func.count()).select_from(hits).where(hits.c.page == page)
        return JSONResponse(await connection.scalar(query))


app = Starlette(routes=[Route("/{page}", hit)], lifespan=lifespan)
