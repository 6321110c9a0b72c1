"""A FastAPI application whose accounts are those of FastAPI-Users."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin, schemas
from fastapi_users.authentication import AuthenticationBackend, BearerTransport, JWTStrategy
from fastapi_users.db import SQLAlchemyBaseUserTableUUID, SQLAlchemyUserDatabase
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

SECRET = "a secret of at least thirty-two bytes"


class Base(DeclarativeBase):
    pass


class User(SQLAlchemyBaseUserTableUUID, Base):
    pass


engine = create_async_engine("postgresql+asyncpg://accounts:secret@db.accounts.invalid/accounts")
Session = async_sessionmaker(engine, expire_on_commit=False)


class UserManager(UUIDIDMixin, BaseUserManager[User, uuid.UUID]):
    reset_password_token_secret = SECRET
    verification_token_secret = SECRET


async def session() -> AsyncIterator[AsyncSession]:
    async with Session() as session:
        yield session


async def user_db(session: Annotated[AsyncSession, Depends(session)]) -> SQLAlchemyUserDatabase:
    return SQLAlchemyUserDatabase(session, User)


async def user_manager(
    user_db: Annotated[SQLAlchemyUserDatabase, Depends(user_db)],
) -> UserManager:
    return UserManager(user_db)


def jwt_strategy() -> JWTStrategy:
    return JWTStrategy(secret=SECRET, lifetime_seconds=3600)


backend = AuthenticationBackend("jwt", BearerTransport("auth/login"), jwt_strategy)
users = FastAPIUsers[User, uuid.UUID](user_manager, [backend])
UserRead, UserCreate = schemas.BaseUser[uuid.UUID], schemas.BaseUserCreate

app = FastAPI()
app.include_router(users.get_auth_router(backend), prefix="/auth")
app.include_router(users.get_register_router(UserRead, UserCreate), prefix="/auth")


@app.get("/me")
async def me(user: Annotated[User, Depends(users.current_user(active=True))]) -> str:
    return user.email
