"""The web part of the application is async, its workers and its admin pages are sync."""

from __future__ import annotations

from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

engine = create_async_engine("postgresql+psycopg://app:secret@db.app.invalid/app")
Session = async_sessionmaker(engine)
sync_engine = create_engine("postgresql+psycopg://app:secret@db.app.invalid/app")
SyncSession = sessionmaker(sync_engine)
