"""Which tests are database tests, and on which backends each runs.

A database test uses a fixture of the plugin, also through a fixture of its own or through
pytest's ``usefixtures``, or carries the marker ``asyncdb``. Nothing else decides it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pytest

from pytest_asyncdb import errors
from pytest_asyncdb._run.pytest_internals import has_function_scope
from pytest_asyncdb._run.stash import RUN

if TYPE_CHECKING:
    from pytest_asyncdb._config.markers import MarkerOptions
    from pytest_asyncdb.abc import BackendSpec

#: The fixture that makes a test a database test: every other one depends on it.
BACKEND = "asyncdb_backend"

#: The fixture that opens the test's database and redirects the application's engines.
VIEW = "_asyncdb_view"


def apply_marker(collector: pytest.Module | pytest.Class, name: str, obj: object) -> None:
    """Let a marked function, class or module use the view.

    Before pytest creates the item and reads its fixtures; anyio's plugin does the same.
    """
    for node in collector.listchain():
        if _needs_view(node.own_markers):
            node.add_marker(pytest.mark.usefixtures(VIEW))
    function = getattr(obj, "__func__", obj)
    if collector.istestfunction(obj, name) and _needs_view(getattr(function, "pytestmark", ())):
        pytest.mark.usefixtures(VIEW)(function)


def _needs_view(marks: Iterable[pytest.Mark]) -> bool:
    """Is the marker among *marks*, and not applied yet?"""
    names = {mark.name for mark in marks}
    return "asyncdb" in names and not any(
        mark.name == "usefixtures" and VIEW in mark.args for mark in marks
    )


def open_view_first(item: pytest.Item) -> None:
    """Set up the view before all other fixtures with the scope of a function.

    An application that a fixture starts then finds its engines redirected. pytest calls
    :func:`apply_marker` for no method of a unittest class; such a method gets the view here.
    """
    if not isinstance(item, pytest.Function):
        return
    names = [name for name in item.fixturenames if name != VIEW]  # pytest has sorted them by scope
    if (
        VIEW in item.fixturenames
        or (BACKEND in names and item.config.stash[RUN].named_engines)
        or (spec_of(item) is None and item.get_closest_marker("asyncdb") is not None)
    ):
        wider = [name for name in names if not has_function_scope(item, name)]
        item.fixturenames = [*wider, VIEW, *(name for name in names if name not in wider)]


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Run a database test once for each backend that its markers allow."""
    if BACKEND not in metafunc.fixturenames:
        return
    for mark in metafunc.definition.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs["argnames"]
        if BACKEND in (names.split(",") if isinstance(names, str) else names):
            return  # the user chooses the backend
    run = metafunc.config.stash[RUN]
    marker = marker_options(metafunc.definition)
    specs: list[Any] = [spec for spec in run.settings.specs if marker.allows(spec, run.registry)]
    ids = [spec.id for spec in specs]
    if not specs:
        skip = pytest.mark.skip(reason=marker.why_not(run.settings.specs))
        specs, ids = [pytest.param(None, marks=skip)], ["no-backend"]
    metafunc.parametrize(BACKEND, specs, ids=ids, indirect=True, scope="session")


def is_allowed(item: pytest.Item) -> bool:
    """Does the marker of a parameter, which comes after :func:`parametrize`, allow the backend?"""
    callspec = getattr(item, "callspec", None)
    if callspec is None or not any(mark.name == "asyncdb" for mark in callspec.marks):
        return True
    spec = callspec.params.get(BACKEND)
    run = item.config.stash[RUN]
    return spec is None or isinstance(spec, str) or marker_options(item).allows(spec, run.registry)


def spec_of(item: pytest.Item | None) -> BackendSpec | None:
    """The backend with which pytest has parametrised *item*."""
    spec: BackendSpec | None = getattr(getattr(item, "callspec", None), "params", {}).get(BACKEND)
    return spec


def marker_options(item: pytest.Item) -> MarkerOptions:
    """The merged markers of a test that is being collected."""
    from pytest_asyncdb._config.markers import read_markers

    try:
        return read_markers(item, item.config.stash[RUN].registry)
    except errors.AsyncdbError as error:
        raise pytest.Collector.CollectError(str(error)) from None
