"""Decides which tests are database tests, and on which backends each of them runs.

A database test uses a fixture of the plugin or carries the marker ``asyncdb``. It may use the
fixture through another fixture or through pytest's ``usefixtures``. Nothing else makes a test a
database test.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_asyncdb import errors
from pytest_asyncdb._run.pytest_internals import has_function_scope, scopes_of
from pytest_asyncdb._run.stash import RUN
from pytest_asyncdb.values import BackendSpec

if TYPE_CHECKING:
    from pytest_asyncdb._config.markers import MarkerOptions
    from pytest_asyncdb._run.run import Run

#: The fixture that makes a test a database test. All other fixtures of the plugin depend on it.
BACKEND = "asyncdb_backend"

#: The fixture that opens the test's database and redirects the application's engines.
VIEW = "_asyncdb_view"


def apply_marker(collector: pytest.Module | pytest.Class, name: str, obj: object) -> None:
    """Make a marked function, class or module use the view.

    This happens before pytest creates the item and reads its fixtures; anyio's plugin does the
    same.
    """
    for node in collector.listchain():
        if _needs_view(node.own_markers):
            node.add_marker(pytest.mark.usefixtures(VIEW))
    function = getattr(obj, "__func__", obj)
    if collector.istestfunction(obj, name) and _needs_view(getattr(function, "pytestmark", ())):
        pytest.mark.usefixtures(VIEW)(function)


def _needs_view(marks: Iterable[pytest.Mark]) -> bool:
    """Return whether the marker is among *marks* and was not applied yet."""
    return _is_marked(marks) and not any(
        mark.name == "usefixtures" and VIEW in mark.args for mark in marks
    )


def _is_marked(marks: Iterable[pytest.Mark]) -> bool:
    return any(mark.name == "asyncdb" for mark in marks)


def open_view_first(item: pytest.Item) -> None:
    """Set up the view before all other fixtures of function scope.

    An application that a fixture starts then finds its engines redirected. pytest does not call
    :func:`apply_marker` for a method of a unittest class; such a method gets the view here.
    """
    if not isinstance(item, pytest.Function):
        return
    names = item.fixturenames  # pytest has sorted them by scope
    place = names.index(VIEW) if VIEW in names else len(names)
    if (
        VIEW in names
        or (BACKEND in names and item.config.stash[RUN].named_engines)
        or (spec_of(item) is None and item.get_closest_marker("asyncdb") is not None)
    ):
        while place and has_function_scope(item, names[place - 1]):
            place -= 1
        item.fixturenames = [*names[:place], VIEW, *(n for n in names[place:] if n != VIEW)]


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Run a database test once for each backend that its markers allow."""
    if BACKEND not in metafunc.fixturenames:
        return
    for mark in metafunc.definition.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs["argnames"]
        if BACKEND in (names.replace(" ", "").split(",") if isinstance(names, str) else names):
            return  # the user chooses the backend
    run = metafunc.config.stash[RUN]
    marker = marker_options(metafunc.definition)
    every = run.settings.specs
    specs = [pytest.param(spec, id=spec.id) for spec in every if marker.allows(spec, run.registry)]
    if len(specs) < len(every) and _has_marked_parameter(metafunc.definition):
        # The marker of a parameter takes precedence over the function's, so left_out() decides.
        specs = [pytest.param(spec, id=spec.id, marks=pytest.mark.asyncdb) for spec in every]
    if not specs:
        skip = pytest.mark.skip(reason=marker.why_not(every))
        specs = [pytest.param(None, id="no-backend", marks=skip)]
    metafunc.parametrize(BACKEND, specs, indirect=True, scope="session")


def _has_marked_parameter(definition: pytest.Item) -> bool:
    """Return whether a value of ``@pytest.mark.parametrize`` has the marker."""
    marks = definition.iter_markers("parametrize")
    given = (m.args[1] if m.args[1:] else m.kwargs.get("argvalues") for m in marks)
    values = (value for one in given if isinstance(one, (list, tuple)) for value in one)
    return any(_is_marked(getattr(value, "marks", ())) for value in values)


def left_out(items: Iterable[pytest.Item]) -> Iterator[pytest.Item]:
    """Yield the items with a backend that the marker of a parameter does not allow.

    If that marker allows no backend of the run, the first item stays, and is skipped with the
    reason.

    Raises:
        UsageError: There is a mistake in the marker.
    """
    tests: dict[Any, list[Any]] = {}
    item: Any
    for item in items:
        if isinstance(spec := spec_of(item), BackendSpec) and _is_marked(item.callspec.marks):
            others = f"-{item.callspec.id}-".replace(f"-{spec.id}-", "-", 1)
            tests.setdefault((item.parent, item.originalname, others), []).append(item)
    for test in tests.values():
        try:
            options = marker_options(test[0])
        except pytest.Collector.CollectError as error:
            raise pytest.UsageError(str(error)) from None
        run = test[0].config.stash[RUN]
        allowed = [
            item for item in test if options.allows(item.callspec.params[BACKEND], run.registry)
        ]
        if not allowed:
            test[0].add_marker(pytest.mark.skip(reason=options.why_not(run.settings.specs)))
        yield from (item for item in test if item not in (allowed or test[:1]))


@contextlib.contextmanager
def ungrouped(items: Iterable[pytest.Item], run: Run) -> Iterator[None]:
    """Let pytest not group *items* by backend if the run has one."""
    one = len(run.settings.specs) == 1
    ours = [scopes_of(it) for it in items if one and isinstance(spec_of(it), BackendSpec)]
    kept = [(scopes, scopes[BACKEND]) for scopes in ours]
    for scopes in ours:
        scopes[BACKEND] = None
    yield
    for scopes, scope in kept:
        scopes[BACKEND] = scope


def spec_of(item: pytest.Item | None) -> BackendSpec | None:
    """Return the backend with which pytest has parametrised *item*, or None."""
    spec: BackendSpec | None = getattr(getattr(item, "callspec", None), "params", {}).get(BACKEND)
    return spec


def marker_options(item: pytest.Item) -> MarkerOptions:
    """Return the merged markers of a test that is being collected."""
    from pytest_asyncdb._config.markers import read_markers

    try:
        return read_markers(item, item.config.stash[RUN].registry)
    except errors.AsyncdbError as error:
        raise pytest.Collector.CollectError(str(error)) from None
