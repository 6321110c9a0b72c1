from __future__ import annotations

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine("postgresql+asyncpg://jobs:secret@db.jobs.invalid/jobs")
Session = async_sessionmaker(engine, expire_on_commit=False)
