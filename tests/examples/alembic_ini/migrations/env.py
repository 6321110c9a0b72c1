"""Migrates with an async engine that the configuration describes."""

import asyncio

from alembic import context
from blog import Base
from sqlalchemy import pool
from sqlalchemy.ext.asyncio import async_engine_from_config


def migrate(connection):
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()


async def main():
    section = context.config.get_section(context.config.config_ini_section, {})
    engine = async_engine_from_config(section, "sqlalchemy.", poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


asyncio.run(main())
