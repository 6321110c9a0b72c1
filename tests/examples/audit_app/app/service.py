"""Accounts in the main database; what was attempted, in the audit database."""

from __future__ import annotations

from app.audit import Event
from app.db import AuditSession, BothSession, Session
from app.models import Account


async def register(email: str) -> None:
    """Add an account. The attempt is recorded before, so that it stays if this fails."""
    async with Session.begin() as session:
        async with AuditSession.begin() as audit:
            audit.add(Event(what=f"register {email}"))
        session.add(Account(email=email))


async def rename(old: str, new: str, account: int) -> None:
    """Change an account and record it, both or neither."""
    async with BothSession.begin() as session:
        found = await session.get_one(Account, account)
        found.email = new
        session.add(Event(what=f"rename {old} to {new}"))
