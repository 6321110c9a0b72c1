"""Checks of a test before its database is opened and after it is closed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pytest_asyncdb import errors
from pytest_asyncdb._run import messages


def checked_options(value: Any, fixture: str, *refused: str) -> Mapping[str, Any]:
    """Check the value of a fixture for options, and return it."""
    if not isinstance(value, Mapping):
        raise errors.ConfigError(
            f"{fixture} is not a mapping but {type(value).__name__} (the fixture {fixture})",
            remedies=["return a dict of arguments; an empty one if there are none"],
        )
    for name in refused:
        if name in value:
            raise errors.ConfigError(
                f"{name!r} is not an option of a test's database (the fixture {fixture})",
                ["The plugin sets it: engines and sessions belong to the database of the test."],
                [f"leave out {name!r}; for the application's engines there is asyncdb_app_engines"],
            )
    return value


def refuse_trio(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("trio") is not None:
        raise messages.on_trio(request.node.nodeid, "@pytest.mark.trio", "mark it asyncio or anyio")
    if "anyio_backend" not in request.fixturenames:
        return
    value = request.getfixturevalue("anyio_backend")
    if (value if isinstance(value, str) else value[0]) == "trio":
        remedy = "override anyio_backend to return 'asyncio'"
        raise messages.on_trio(request.node.nodeid, "anyio_backend", remedy)


def refuse_word(backend: Any) -> None:
    if isinstance(backend, str):
        raise errors.ConfigError(
            f"asyncdb_backend is {backend!r}, which is only a word (the fixture asyncdb_backend)",
            remedies=[
                f'name the backend by the marker: @pytest.mark.asyncdb("{backend}")',
                'with parametrize("asyncdb_backend", …) write indirect=True',
            ],
        )


def is_known(breach: BaseException, error: BaseException | None) -> bool:
    """Return whether the test failed with this breach, or with an error that reports it."""
    if error is None:
        return False
    said = error is breach or str(breach) in getattr(error, "__notes__", ())
    others = (error.__cause__ or error.__context__, *getattr(error, "exceptions", ()))
    return said or any(is_known(breach, one) for one in others)
