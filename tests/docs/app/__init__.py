"""The application of the documentation: users who sign up, and what they write."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from app.models import User


async def signup(session: AsyncSession, email: str) -> User:
    user = User(email=email)
    session.add(user)
    await session.commit()
    return user
