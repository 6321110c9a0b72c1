from __future__ import annotations

from celery import Celery
from sqlalchemy import select

from app.db import SyncSession
from app.models import Letter

celery = Celery("app")


@celery.task
def send(letter: int) -> None:
    with SyncSession.begin() as session:
        session.get_one(Letter, letter).sent = True


def waiting() -> list[str]:
    """The addresses of letters that were not sent, for an admin page."""
    with SyncSession() as session:
        query = select(Letter.email).where(Letter.sent.is_(False)).order_by(Letter.id)
        return [*session.scalars(query)]
