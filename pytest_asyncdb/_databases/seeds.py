"""The seeds of a template: SQL files, objects for several databases, and values that seeds return.

The values are pickled in the process that builds the template. So every worker, and a later run
that uses the template again, gets the values that belong to its rows.
"""

from __future__ import annotations

import dataclasses
import pickle
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, make_transient

from pytest_asyncdb import errors
from pytest_asyncdb._databases import messages
from pytest_asyncdb._engines.sqlalchemy_internals import (
    mapped_state,
    mapped_values,
    replace_values,
    without_events,
)
from pytest_asyncdb._record.text import error_text

#: By the state of a mapped object: its attributes before a seed stored it for the first time.
_BEFORE: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True)
class SeedFiles:
    """A seed that runs SQL files, of one or many statements each, in one transaction.

    Args:
        paths: The files, in the order in which they run.
    """

    paths: tuple[Path, ...]

    async def __call__(self, session: AsyncSession) -> None:
        connection = await session.connection()
        for path in self.paths:
            # As a text of several statements it reaches the server unchanged (build.take_scripts).
            script = f"SELECT 1;\n{path.read_text(encoding='utf-8')}"
            if connection.dialect.paramstyle in ("format", "pyformat"):
                script = script.replace("%", "%%")
            try:
                await connection.exec_driver_sql(script)
            except Exception as error:
                remedies = [
                    "correct its SQL",
                    "if it is for one backend only: override the fixture asyncdb_seed, "
                    "which may request asyncdb_backend",
                ]
                text = f"the seed {path} failed (asyncdb_seed)"
                raise errors.SchemaError(text, [error_text(error)], remedies) from error


def take_again(session: Session, backend: str) -> None:
    """Let *session* insert objects that a seed has already stored in another database.

    Otherwise SQLAlchemy would insert nothing, because it takes them for stored.
    """

    def remember(session: Session, instance: Any) -> None:
        before = {k: without_events(value) for k, value in mapped_values(instance).items()}
        _BEFORE.setdefault(mapped_state(instance), before)

    def insert(session: Session, instance: Any) -> None:
        if mapped_state(instance) not in _BEFORE:  # a session of other code has stored it
            raise messages.seed_reuses_object(backend, type(instance).__name__)
        _make_new(session, instance)
        session.add(instance)

    event.listen(session, "transient_to_pending", remember)
    event.listen(session, "detached_to_persistent", insert)


def _make_new(session: Session, first: Any) -> None:
    """Give an object, and those related to it, the state that they had before a seed stored them.

    Then they have no id that the other database has given.
    """
    found = [first]
    for one in found:  # the list grows
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
    """Return the relationships that had a value."""
    state = mapped_state(instance)
    names = state.mapper.relationships.keys()
    return {name: value for name, value in _BEFORE[state].items() if name in names}


async def pickled(session: AsyncSession, value: Any) -> bytes:
    """Return the pickled value of a seed, with the columns that the database has filled in.

    If the value cannot be copied, return the pickled error for the test that asks for it.

    Args:
        session: The seed's session, after its commit.
    """
    for one in mapped_objects(value):
        state = mapped_state(one)
        left = state.expired_attributes.intersection(state.mapper.column_attrs.keys())
        if left and one in session:
            await session.refresh(one, left)
    try:
        return pickle.dumps(value)
    except Exception as error:
        return pickle.dumps(messages.not_copied(error))


def unpickled(returned: Sequence[bytes]) -> Any:
    """Return a new copy of what the seeds have returned.

    None is left out. One value is returned as it is, several mappings as one dict, other values as
    a list.

    Raises:
        SchemaError: A value cannot be copied.
    """
    try:
        values = [pickle.loads(one) for one in returned]  # noqa: S301
    except Exception as error:
        raise messages.not_copied(error) from error
    for value in values:
        if isinstance(value, errors.SchemaError):
            raise value
    found = [value for value in values if value is not None]
    if len(found) > 1 and all(isinstance(value, Mapping) for value in found):
        return {key: one for value in found for key, one in value.items()}
    return found if len(found) > 1 else next(iter(found), None)


def mapped_objects(value: Any) -> Iterator[Any]:
    """Yield the mapped objects in *value*: a container, or a mapped object itself."""
    if mapped_state(value) is not None:
        yield value
    elif isinstance(value, Mapping):
        yield from mapped_objects(list(value.values()))
    elif isinstance(value, (list, tuple, set, frozenset)):
        for one in value:
            yield from mapped_objects(one)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from mapped_objects(list(vars(value).values()))
