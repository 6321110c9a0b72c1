"""With pytest-postgresql: each test has a database, a copy of its template."""

import os

import pytest
import pytest_asyncio
from pytest_postgresql import factories
from shop.api import api
from shop.database import Session
from shop.models import Base
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from starlette.testclient import TestClient

URL = make_url(os.environ["SUITE_URL"])


def load(dbname, **options):
    # Called while a loop runs, so it is sync.
    url = URL.set(drivername="postgresql+psycopg", database=dbname)
    engine = create_engine(url, poolclass=NullPool)
    Base.metadata.create_all(engine)


server = factories.postgresql_noproc(
    URL.host, URL.port, URL.username, URL.password, f"{URL.database}_test", load=[load]
)
postgresql = factories.postgresql("server")
postgresql_async = factories.postgresql_async("server")


@pytest_asyncio.fixture
async def session(postgresql_async):
    engine = create_async_engine(URL.set(database=postgresql_async.info.dbname))
    Session.configure(bind=engine)
    async with Session() as session:
        yield session
    await engine.dispose()


@pytest.fixture(scope="session")
def served():
    with TestClient(api) as client:
        yield client


@pytest.fixture
def web(served, postgresql):
    engine = create_async_engine(URL.set(database=postgresql.info.dbname))
    Session.configure(bind=engine)
    yield served
    served.portal.call(engine.dispose)
