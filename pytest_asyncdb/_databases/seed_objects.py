"""Objects that the seeds of several databases add, such as those that a module makes at import."""

from __future__ import annotations

import weakref
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session, make_transient

from pytest_asyncdb._databases import messages
from pytest_asyncdb._databases.seed_values import mapped_objects
from pytest_asyncdb._engines.sqlalchemy_internals import (
    mapped_state,
    mapped_values,
    replace_values,
    without_events,
)

#: By the state of a mapped object: its attributes before a seed stored it for the first time.
_BEFORE: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()


def take_again(session: Session, backend: str) -> None:
    """Let *session* insert objects that a seed has stored in another database before.

    SQLAlchemy takes them for stored already, so it would insert nothing.
    """

    def remember(session: Session, instance: Any) -> None:
        before = {name: without_events(value) for name, value in mapped_values(instance).items()}
        _BEFORE.setdefault(mapped_state(instance), before)

    def insert(session: Session, instance: Any) -> None:
        if mapped_state(instance) not in _BEFORE:  # a session that is not the seed's has stored it
            raise messages.seed_reuses_object(backend, type(instance).__name__)
        _make_new(session, instance)
        session.add(instance)

    event.listen(session, "transient_to_pending", remember)
    event.listen(session, "detached_to_persistent", insert)


def _make_new(session: Session, first: Any) -> None:
    """Let an object, and those that are related to it, be as before a seed stored them: without an
    id that the other database has given."""
    found = [first]
    for one in found:  # grows
        found += [
            other
            for other in mapped_objects(_relationships(one))
            if mapped_state(other).key is not None and mapped_state(other) in _BEFORE
            if all(other is not known for known in found)
        ]
    for one in found:
        if one in session:
            session.expunge(one)
        make_transient(one)
        related = _relationships(one)
        before = _BEFORE[mapped_state(one)].items()
        replace_values(one, {name: value for name, value in before if name not in related})
    for one in found:
        for name, value in _relationships(one).items():
            if vars(one).get(name) is not value:  # the other end may have set it
                setattr(one, name, value)


def _relationships(instance: Any) -> dict[str, Any]:
    """Those that had a value."""
    state = mapped_state(instance)
    names = state.mapper.relationships.keys()
    return {name: value for name, value in _BEFORE[state].items() if name in names}
