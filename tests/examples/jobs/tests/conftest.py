from __future__ import annotations

import pytest
from jobs.models import Budget


@pytest.fixture(scope="session")
def asyncdb_seed():
    async def seed(session):
        session.add(Budget(name="travel", left=100))

    return seed
