from __future__ import annotations

import uuid

import pytest
from app.models import Customer


async def add_customers(session):
    """Ids made by chance, which are nevertheless the same in every worker of pytest-xdist."""
    found = {code: Customer(id=uuid.uuid4(), country=code) for code in ("IS", "NO")}
    session.add_all(found.values())
    return found


@pytest.fixture(scope="session")
def asyncdb_seed(asyncdb_seed):
    """The files, and on top of them the customers."""
    return [asyncdb_seed, add_customers]
