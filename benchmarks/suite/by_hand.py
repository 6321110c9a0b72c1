"""The fixtures that an expert writes by hand, as fast as they can be.

One event loop and one connection for the whole run; each test is a transaction of that connection,
which is rolled back. Sessions join it with savepoints. Starlette's test client has a loop in
another thread, so it has a connection there. Needs the fixture ``database_url``.
"""

import contextlib

import pytest
import pytest_asyncio
from shop.api import api
from shop.database import Session
from shop.models import Base
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.testclient import TestClient


@contextlib.asynccontextmanager
async def connected(url):
    """A connection; SQLite's database in memory is new, and gets its tables here."""
    engine = create_async_engine(url)
    sqlite = engine.dialect.name == "sqlite"
    if sqlite:

        @event.listens_for(engine.sync_engine, "connect")
        def connect(connection, record):
            connection.isolation_level = None
            connection.execute("PRAGMA foreign_keys = ON").close()

        @event.listens_for(engine.sync_engine, "begin")
        def begin(connection):
            connection.exec_driver_sql("BEGIN")

    async with engine.connect() as connection:
        if sqlite:
            await connection.run_sync(Base.metadata.create_all)
            await connection.commit()
        yield connection
    await engine.dispose()


def lead_application_to(connection):
    Session.configure(bind=connection, join_transaction_mode="create_savepoint")


@pytest_asyncio.fixture(scope="session")
async def connection(database_url):
    async with connected(database_url) as connection:
        yield connection


@pytest_asyncio.fixture
async def session(connection):
    transaction = await connection.begin()
    lead_application_to(connection)
    async with Session() as session:
        yield session
    await transaction.rollback()


@pytest.fixture(scope="session")
def served(database_url):
    with (
        TestClient(api) as client,
        client.portal.wrap_async_context_manager(connected(database_url)) as connection,
    ):
        yield client, connection


@pytest.fixture
def web(served):
    client, connection = served
    call = client.portal.call
    transaction = connection.begin()
    call(transaction.start)
    lead_application_to(connection)
    yield client
    call(transaction.rollback)
