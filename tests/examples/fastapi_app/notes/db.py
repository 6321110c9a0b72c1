from __future__ import annotations

import os

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

URL = os.environ.get("NOTES_URL", "postgresql+asyncpg://notes:secret@db.notes.invalid/notes")

engine = create_async_engine(URL, pool_size=10)
Session = async_sessionmaker(engine)
