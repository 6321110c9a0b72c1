from __future__ import annotations

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from app.audit import AuditBase
from app.models import Base

engine = create_async_engine("postgresql+asyncpg://app:secret@db.app.invalid/app")
audit_engine = create_async_engine("postgresql+asyncpg://app:secret@audit.app.invalid/audit")
Session = async_sessionmaker(engine)
AuditSession = async_sessionmaker(audit_engine)
#: For work on both databases, which it commits one after the other.
BothSession = async_sessionmaker(binds={Base: engine, AuditBase: audit_engine})
