"""Which tests are database tests: by their fixtures, by the marker, by what they reach."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_asyncdb._run.redirect import AppEngine

#: The fixture that makes a test a database test: every other one depends on it.
BACKEND = "asyncdb_backend"

#: The fixture that opens the test's database and redirects the application's engines.
VIEW = "_asyncdb_view"

#: What pytest and unittest call by its name.
_SETUPS = (
    *("setup_class", "setup_method", "teardown_method", "teardown_class"),
    *("setUpClass", "setUp", "asyncSetUp", "asyncTearDown", "tearDown", "tearDownClass"),
)


def wants_view(marks: Iterable[Any]) -> bool:
    """Is our marker among *marks*, and has it had no effect yet?"""
    marks = [mark for mark in marks if hasattr(mark, "name")]
    names = {mark.name for mark in marks}
    return "asyncdb" in names and not any(
        mark.name == "usefixtures" and VIEW in mark.args for mark in marks
    )


def with_view_first(item: pytest.Function, names: list[str]) -> list[str]:
    """*names* with our view before the first that has the scope of a function.

    pytest has sorted them by scope.
    """
    definitions = item._fixtureinfo.name2fixturedefs
    wider = (n for n in names if n in definitions and definitions[n][-1].scope != "function")
    at = sum(1 for _ in wider)
    return [*names[:at], VIEW, *names[at:]]


class Reaching:
    """Hooks of a run that names the application's engines.

    A test from which one can be reached is treated as if it bore the marker. Where the
    fixture ``asyncdb_app_engines`` is overridden, the engines are not known before tests
    run, and nothing is guessed.
    """

    def __init__(self, entries: Sequence[AppEngine]) -> None:
        from pytest_asyncdb._run.reach import Reach

        self._reach = Reach(entries)

    @pytest.hookimpl(tryfirst=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Give the test our view, before anybody looks at its fixtures."""
        definition = metafunc.definition
        if not self._reaches(definition, metafunc.function, metafunc.cls):
            return
        definition.add_marker(pytest.mark.usefixtures(VIEW))
        manager = definition.session._fixturemanager
        info = definition._fixtureinfo
        anew = manager.getfixtureinfo(definition, definition.obj, metafunc.cls)
        # The test's items will have this very object.
        info.names_closure[:] = anew.names_closure
        info.name2fixturedefs.update(anew.name2fixturedefs)
        object.__setattr__(info, "initialnames", anew.initialnames)

    @pytest.hookimpl(tryfirst=True)
    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """The same for a test of a unittest class, for which the other hook is not called."""
        from _pytest.unittest import TestCaseFunction

        if isinstance(item, TestCaseFunction) and item.cls is not None:
            function = getattr(item.cls, item.originalname)
            if self._reaches(item, function, item.cls):
                item.fixturenames = [*item.fixturenames, VIEW]

    def pytest_collection_finish(self) -> None:
        self._reach.forget()

    def _reaches(self, node: pytest.Function, function: Any, cls: type | None) -> bool:
        if BACKEND in node.fixturenames:
            return False
        manager = node.session._fixturemanager
        engines = manager.getfixturedefs("asyncdb_app_engines", node) or ()
        if len(engines) > 1:
            return False
        return self._reach.starts_at(_code_of(node, function, cls), cls)


def _code_of(node: pytest.Function, function: Any, cls: type | None) -> Iterator[Any]:
    """What runs in a test: fixtures, setups, the function, and what it is parametrised with."""
    for name, definitions in node._fixtureinfo.name2fixturedefs.items():
        for definition in reversed(definitions):
            yield getattr(definition.func, "__func__", definition.func)
            yield definition.params
            if name not in definition.argnames:
                break  # what it overrides does not run
    for name in _SETUPS:
        setup = getattr(cls, name, None)
        yield getattr(setup, "__func__", setup)
    for mark in node.iter_markers("parametrize"):
        yield mark.args
    yield getattr(function, "__func__", function)
