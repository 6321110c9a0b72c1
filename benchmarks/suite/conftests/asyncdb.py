"""With pytest-asyncdb."""

import pytest
from shop.api import api
from shop.database import Session
from shop.models import Base
from starlette.testclient import TestClient


@pytest.fixture(scope="session")
def asyncdb_metadata():
    return Base


@pytest.fixture(scope="session")
def asyncdb_app_engines():
    return Session


@pytest.fixture
def session(asyncdb_session):
    return asyncdb_session


@pytest.fixture
def web(asyncdb_engine):
    with TestClient(api) as client:
        yield client
