"""Documents and their nearest neighbours, with pgvector."""

import os

from pgvector.psycopg import register_vector_async
from sqlalchemy import event, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from app.models import Document

URL = os.environ.get("APP_URL", "postgresql+psycopg://app:secret@db.app.invalid/app")
engine = create_async_engine(URL)
Session = async_sessionmaker(engine, expire_on_commit=False)


@event.listens_for(engine.sync_engine, "connect")
def register_vector(connection, record):
    # asyncpg gets and gives vectors as text: pgvector's type for SQLAlchemy cannot do with its codec.
    if type(connection.driver_connection).__module__.startswith("psycopg"):
        connection.run_async(register_vector_async)


async def store(**embeddings):
    async with Session.begin() as session:
        for title, embedding in embeddings.items():
            session.add(Document(title=title, embedding=embedding))


async def nearest(embedding, limit=1):
    async with Session() as session:
        query = select(Document).order_by(Document.embedding.l2_distance(embedding)).limit(limit)
        return [one.title for one in await session.scalars(query)]
