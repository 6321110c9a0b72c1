"""What the seeds return, kept with the template and copied for each test.

The values are pickled in the process that builds the template, so that every worker, and a later
run that uses the template again, gets those of the rows that are there.
"""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_asyncdb import errors
from pytest_asyncdb._databases import messages
from pytest_asyncdb._engines.sqlalchemy_internals import mapped_state

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


async def pickled(session: AsyncSession, value: Any) -> bytes:
    """The value that a seed has returned, with the columns that the database has filled in; or the
    error for the test that asks for it, if it cannot be copied.

    Args:
        session: The seed's, after its commit.
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
    """A new copy of what the seeds have returned: of one its value, of several mappings one dict,
    else a list. None is left out.

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
    """The mapped objects in *value*, a container or one of them."""
    if mapped_state(value) is not None:
        yield value
    elif isinstance(value, Mapping):
        yield from mapped_objects(list(value.values()))
    elif isinstance(value, (list, tuple, set, frozenset)):
        for one in value:
            yield from mapped_objects(one)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from mapped_objects(list(vars(value).values()))
