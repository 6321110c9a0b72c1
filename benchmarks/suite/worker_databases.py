"""A database for each worker of pytest-xdist, by hand: copies of the first one, the template."""

import os

from filelock import FileLock
from shop.models import Base
from sqlalchemy import inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool


async def create_tables(url):
    def missing(connection):
        return not inspect(connection).has_table("customer")

    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.begin() as connection:
        if await connection.run_sync(missing):
            await connection.run_sync(Base.metadata.create_all)


async def statement(url, sql):
    engine = create_async_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(sql))


async def worker_database(url, folder):
    """Yield the URL of this process's database, which has the tables.

    Args:
        url: Of an empty database: the template of the workers', or that of the only process.
        folder: Of files that the workers share.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    with FileLock(folder / "template.lock"):
        await create_tables(url)
        if worker:
            template = make_url(url)
            name, server = f"{template.database}_{worker}", template.set(database="postgres")
            await statement(server, f'CREATE DATABASE "{name}" TEMPLATE "{template.database}"')
    if not worker:
        yield url
        return
    yield template.set(database=name)
    await statement(server, f'DROP DATABASE "{name}"')
