"""The tests that pytest-alembic brings, each on an empty database."""

from __future__ import annotations

import pytest
from pytest_alembic.tests import (  # noqa: F401
    test_model_definitions_match_ddl,
    test_single_head_revision,
    test_up_down_consistency,
    test_upgrade,
)
from sqlalchemy import text

pytestmark = pytest.mark.asyncdb(schema=False, isolation="copy")


@pytest.fixture
def alembic_engine(asyncdb_sync_engine):
    return asyncdb_sync_engine


def test_posts_get_a_title(alembic_runner, alembic_engine):
    alembic_runner.migrate_up_before("0002")
    alembic_runner.insert_into("authors", {"id": 1, "name": "ada"})
    alembic_runner.insert_into("posts", {"id": 1, "author_id": 1, "body": "a note"})
    alembic_runner.migrate_up_one()
    with alembic_engine.connect() as connection:
        assert connection.scalar(text("SELECT title FROM posts")) == "untitled"
