"""A small Litestar application with an engine of its own, which knows nothing of tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar, get, post
from litestar.exceptions import ClientException
from litestar.params import FromPath
from sqlalchemy import String, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_async_engine("mysql+asyncmy://todo:secret@db.todo.invalid/todo")
Session = async_sessionmaker(engine)


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(100), unique=True)


@get("/items")
async def items() -> list[str]:
    async with Session() as session:
        return list((await session.scalars(select(Item.title).order_by(Item.title))).all())


@post("/items/{title:str}")
async def add(title: FromPath[str]) -> None:
    try:
        async with Session.begin() as session:
            session.add(Item(title=title))
    except IntegrityError:
        raise ClientException(f"{title} is there already", status_code=409) from None


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    yield
    await engine.dispose()


app = Litestar([items, add], lifespan=[lifespan])
