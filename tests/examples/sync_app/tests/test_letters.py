from __future__ import annotations

import factory
import pytest
from app.models import Letter
from app.tasks import celery, waiting
from app.web import waiting_page, write
from factory.alchemy import SQLAlchemyModelFactory
from sqlalchemy import select


class LetterFactory(SQLAlchemyModelFactory):
    class Meta:
        model = Letter
        sqlalchemy_session_persistence = "commit"

    email = factory.Sequence(lambda n: f"reader{n}@example.org")


@pytest.fixture(autouse=True)
def run_tasks_at_once():
    celery.conf.update(task_always_eager=True, task_eager_propagates=True)


@pytest.fixture
def letters(asyncdb_sync_session):
    LetterFactory._meta.sqlalchemy_session = asyncdb_sync_session
    LetterFactory.reset_sequence()
    return LetterFactory.create_batch(2)


async def test_a_task_sees_what_the_request_has_committed(asyncdb_session):
    await write("ada@example.org")
    assert await asyncdb_session.scalar(select(Letter.sent)) is True


async def test_a_thread_reads_what_a_sync_fixture_has_written(letters):
    assert await waiting_page() == ["reader0@example.org", "reader1@example.org"]


def test_a_sync_test(letters):
    assert len(waiting()) == 2


async def test_a_sync_service_called_from_a_coroutine(letters, asyncdb_session):
    letter = await asyncdb_session.get_one(Letter, letters[0].id)
    letter.sent = True
    await asyncdb_session.commit()
    assert waiting() == ["reader1@example.org"]
