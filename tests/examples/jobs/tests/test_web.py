from __future__ import annotations

import pytest
from jobs.models import Job
from jobs.web import app
from sqlalchemy import select
from starlette.testclient import TestClient


@pytest.mark.asyncdb
@pytest.mark.parametrize("number", [1, 2])
def test_a_job_by_http(number):
    with TestClient(app) as client:
        assert client.post("/jobs/ship").json() == [1]
        assert client.post("/jobs/bill").json() == [2]


@pytest.mark.asyncdb(isolation="rollback", reason="nothing of it is concurrent")
async def test_in_one_transaction(asyncdb):
    with TestClient(app) as client:
        client.post("/jobs/ship")
        client.post("/jobs/bill")
    changes = await asyncdb.changes()
    assert [row["name"] for row in changes["jobs"].inserted] == ["ship", "bill"]


async def test_the_test_sees_it(asyncdb_session):
    with TestClient(app) as client:
        client.post("/jobs/ship")
    assert await asyncdb_session.scalar(select(Job.name)) == "ship"
