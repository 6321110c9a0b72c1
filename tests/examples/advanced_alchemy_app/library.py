"""A small Litestar application: Advanced Alchemy's plugin owns the engine and the sessions."""

from __future__ import annotations

from uuid import UUID

from advanced_alchemy.extensions.litestar import (
    AsyncSessionConfig,
    SQLAlchemyAsyncConfig,
    SQLAlchemyPlugin,
    base,
    providers,
    repository,
    service,
)
from litestar import Controller, Litestar, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column


class Author(base.UUIDAuditBase):
    __tablename__ = "author"
    name: Mapped[str] = mapped_column(String(100), unique=True)


class AuthorService(service.SQLAlchemyAsyncRepositoryService[Author]):
    class Repo(repository.SQLAlchemyAsyncRepository[Author]):
        model_type = Author

    repository_type = Repo


class AuthorController(Controller):
    path = "/authors"
    dependencies = providers.create_service_dependencies(AuthorService, "authors")

    @get()
    async def names(self, authors: NamedDependency[AuthorService]) -> list[str]:
        return [author.name for author in await authors.get_many(order_by=[("name", False)])]

    @post("/{name:str}")
    async def add(self, authors: NamedDependency[AuthorService], name: FromPath[str]) -> UUID:
        return (await authors.create({"name": name})).id

    @delete("/{author_id:uuid}")
    async def remove(
        self, authors: NamedDependency[AuthorService], author_id: FromPath[UUID]
    ) -> None:
        await authors.delete(author_id)


config = SQLAlchemyAsyncConfig(
    connection_string="postgresql+asyncpg://library:secret@db.library.invalid/library",
    session_config=AsyncSessionConfig(expire_on_commit=False),
    before_send_handler="autocommit",
    create_all=True,
)
app = Litestar([AuthorController], plugins=[SQLAlchemyPlugin(config)])
