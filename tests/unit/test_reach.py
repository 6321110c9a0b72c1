"""What leads to an engine, without pytest: bounds, memory, imports, other people's code."""

from __future__ import annotations

import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_asyncdb._run import reach as reach_module
from pytest_asyncdb._run.reach import Reach
from pytest_asyncdb._run.redirect import app_engines

DB = """
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine("sqlite+aiosqlite://")
"""

Make = Callable[..., types.ModuleType]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes modules out of text, as if they had been imported from *folder*."""
    made = []

    def make(name: str, text: str = "", folder: str = "/project") -> types.ModuleType:
        module = types.ModuleType(name)
        module.__file__ = f"{folder}/{name.replace('.', '/')}.py"
        module.__package__ = name.rpartition(".")[0]
        sys.modules[name] = module
        made.append(name)
        exec(textwrap.dedent(text), vars(module))
        parent, _, last = name.rpartition(".")
        if parent in sys.modules:
            setattr(sys.modules[parent], last, module)
        return module

    yield make
    for name in made:
        del sys.modules[name]


@pytest.fixture
def reach(make: Make) -> Reach:
    make("shop")
    make("shop.db", DB)
    return Reach(app_engines("shop.db:engine, -shop.other:engine", "a test"))


def test_names_are_resolved_not_modules(make: Make, reach: Reach) -> None:
    module = make(
        "mine",
        """
        from shop.db import engine

        def uses():
            return engine

        def does_not():
            return number

        def calls():
            return does_not() or uses()

        number = 7
        """,
    )
    assert reach.starts_at([module.uses])
    assert reach.starts_at([module.calls])
    assert not reach.starts_at([module.does_not])
    assert not reach.starts_at([module])


@pytest.mark.parametrize("folder", ["/project", "/venv/lib/python3.12/site-packages"])
def test_the_code_of_others_is_not_read_but_what_their_objects_hold(
    make: Make, reach: Reach, folder: str
) -> None:
    module = make(
        "theirs",
        """
        from shop import db

        def function():
            return db.engine

        class Kind:
            def method(self):
                return db.engine

        class Holder:
            def __init__(self, held):
                self.held = held

        def outer(held):
            def inner():
                return held
            return inner
        """,
        folder,
    )
    own = folder == "/project"
    assert reach.starts_at([module.function]) is own
    assert reach.starts_at([module.Kind()]) is own
    assert reach.starts_at([module.Holder(sys.modules["shop.db"].engine)])
    assert reach.starts_at([module.outer(sys.modules["shop.db"].engine)])
    assert not reach.starts_at([module.Holder(7)])


def test_the_applications_own_package_is_read_wherever_it_is_installed(
    make: Make, reach: Reach
) -> None:
    text = "from shop.db import engine\ndef uses():\n    return engine"
    module = make("shop.service", text, "/venv/lib/python3.12/site-packages")
    assert reach.starts_at([module.uses])


IMPORTS = """
def absolute():
    import shop.web

def a_part():
    from shop import web

def relative():
    from .web import app

def everything():
    from . import web

def other():
    from elsewhere import something

def nothing():
    import shop.models
"""


def test_an_import_of_what_is_not_loaded_counts(make: Make, reach: Reach) -> None:
    """It may be anything; once it is loaded it is looked at."""
    make("shop.models")
    module = make("shop.service", IMPORTS)
    names = ["absolute", "a_part", "relative", "everything"]
    assert [name for name in names if not reach.starts_at([vars(module)[name]])] == []
    assert not reach.starts_at([module.other])
    assert not reach.starts_at([module.nothing])
    make("shop.web", "app = 7")
    assert [name for name in names if reach.starts_at([vars(module)[name]])] == []


def test_what_is_imported_later_is_found(make: Make, reach: Reach) -> None:
    """What was found out before is not kept then."""
    routes: list[Any] = [7]
    assert not reach.starts_at([routes])
    routes.append(make("shop.late", "from shop import db\ndef f(): db.engine").f)
    assert reach.starts_at([routes])


def test_the_walk_is_bounded(reach: Reach, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach_module, "LIMIT", 10)
    engine = sys.modules["shop.db"].engine
    assert reach.starts_at([[[n] for n in range(8)] + [engine]])
    assert not reach.starts_at([[[engine], *([n] for n in range(30))]])


def test_an_object_is_looked_at_once(reach: Reach, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thousand tests that share their fixtures cost little."""
    looked: list[int] = []
    led_to = reach._led_to
    monkeypatch.setattr(reach, "_led_to", lambda thing: looked.append(id(thing)) or led_to(thing))
    inner = [[n] for n in range(100)]
    for number in range(5):
        assert not reach.starts_at([(number, inner)])
    assert len(looked) == len(set(looked))
    assert len(looked) == 101 + 5


def test_it_keeps_nothing_afterwards(reach: Reach) -> None:
    import gc
    import weakref

    class Thing:
        pass

    thing = Thing()
    seen = weakref.ref(thing)
    assert not reach.starts_at([thing])
    del thing
    gc.collect()
    assert seen() is not None
    reach.forget()
    gc.collect()
    assert seen() is None


def test_nothing_is_called_or_asked(make: Make) -> None:
    """Properties, lazy proxies and functions that make an engine stay as they are."""
    make("shop")
    module = make(
        "shop.db",
        """
        class Lazy:
            def __getattribute__(self, name):
                raise AssertionError(name)

            __call__ = __bool__ = __eq__ = __hash__ = __getattribute__

        class Database:
            @property
            def engine(self):
                raise AssertionError

        db = Database()
        lazy = Lazy()

        def get():
            raise AssertionError

        def uses():
            return db

        def calls():
            return get()

        def asks():
            return lazy.engine
        """,
    )
    reach = Reach(app_engines("shop.db:db.engine, shop.db:get", "a test"))
    assert reach.starts_at([module.uses])
    assert reach.starts_at([module.calls])
    assert not reach.starts_at([module.asks])
