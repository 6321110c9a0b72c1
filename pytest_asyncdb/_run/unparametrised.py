"""The backend of a test that pytest has not parametrised: a unittest method, a doctest, or a test
that requests a fixture while it runs.

Each test gets the backend that its own markers allow. pytest caches ``asyncdb_backend`` and the
fixtures that depend on it for the run. So the plugin has them set up again when the next test has
another backend.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pytest_asyncdb import errors
from pytest_asyncdb._run.collection import BACKEND, VIEW, spec_of
from pytest_asyncdb._run.stash import ITEM, RUN, state_of

if TYPE_CHECKING:
    from pytest_asyncdb._config.markers import MarkerOptions
    from pytest_asyncdb.values import BackendSpec

#: The fixture ``asyncdb_backend`` that was set up without a parameter, its request, and the backend
#: of the test that requested it.
_HELD: pytest.StashKey[tuple[Any, Any, BackendSpec | None]] = pytest.StashKey()


def choose(item: pytest.Item) -> BackendSpec:
    """Return the backend of the running test.

    A unittest method or a doctest gets the first backend that its marker allows. Any other test
    must allow exactly one.

    Raises:
        pytest.skip.Exception: The marker allows no backend.
        pytest.fail.Exception: The marker allows several backends, or there is a mistake in it.
    """
    try:
        marking, allowed = _allowed(item)
    except errors.MarkerError as mistake:
        pytest.fail(str(mistake), pytrace=False)
    if not allowed:
        pytest.skip(marking.why_not(item.config.stash[RUN].settings.specs))
    if len(allowed) > 1:
        if _is_function(item):
            words = [str(spec) for spec in allowed]
            error = errors.ConfigError(
                "a database fixture was requested while the test ran, on several backends",
                [f"test: {item.nodeid}", f"The run's backends: {', '.join(words)}."],
                [
                    'name it before: @pytest.mark.usefixtures("asyncdb_backend") on the test',
                    f'or name one backend: @pytest.mark.asyncdb("{words[0]}")',
                ],
            )
            pytest.fail(str(error), pytrace=False)
        state_of(item).only = allowed[0]
    return allowed[0]


def backend_of(item: pytest.Item) -> BackendSpec | None:
    """Return the backend that *item* needs, if it is known before the test runs."""
    spec: BackendSpec | str | None = spec_of(item)
    if spec is None and not {BACKEND, VIEW}.isdisjoint(getattr(item, "fixturenames", ())):
        spec = _first(item)
    if spec is None or item.get_closest_marker("skip") is not None:
        return None
    if isinstance(spec, str):  # the user chooses the backend
        specs = item.config.stash[RUN].settings.specs
        return next((one for one in specs if one.written == spec), None)
    return spec


def hold(fixture: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
    """Remember ``asyncdb_backend`` when it is about to be set up without a parameter."""
    if fixture.argname == BACKEND and not hasattr(request, "param"):
        stash = request.config.stash
        stash[_HELD] = fixture, request, _first(stash[ITEM])


def renew(item: pytest.Item) -> None:
    """Before the set-up of *item*, forget ``asyncdb_backend`` if it is for another backend."""
    stash = item.config.stash
    fixture, request, spec = stash.get(_HELD, (None, None, None))
    parametrised = spec_of(item) is not None
    if fixture is None or (spec is not None and not parametrised and _first(item) == spec):
        return
    del stash[_HELD]
    if not parametrised:  # else pytest does it, because the parameter has changed
        fixture.finish(request)


def _first(item: pytest.Item) -> BackendSpec | None:
    """Return the backend that :func:`choose` would return; None: it would raise."""
    with contextlib.suppress(errors.MarkerError):
        _, allowed = _allowed(item)
        if len(allowed) == 1 or (allowed and not _is_function(item)):
            return allowed[0]
    return None


def _allowed(item: pytest.Item) -> tuple[MarkerOptions, list[BackendSpec]]:
    from pytest_asyncdb._config.markers import read_markers

    run = item.config.stash[RUN]
    marking = read_markers(item, run.registry)
    return marking, [spec for spec in run.settings.specs if marking.allows(spec, run.registry)]


def _is_function(item: pytest.Item) -> bool:
    """Return whether pytest can parametrise *item*."""
    case = getattr(sys.modules.get("unittest"), "TestCase", ())  # importing it takes time
    return isinstance(item, pytest.Function) and not issubclass(item.cls or object, case)
