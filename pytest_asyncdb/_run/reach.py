"""Can the application's engine be reached from a test's code? Found without running it.

The walk goes from a function to what the names in its code stand for, not to all that is in
its module, and from an object to what it holds: from an application to its routes, from a
route to its function. The code of other people's packages is not read, only what their
objects hold. Model classes lead no further, so that a test that makes a ``User`` stays as
it is. Nothing is imported and nothing is called. No pytest here.
"""

from __future__ import annotations

import gc
import inspect
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pytest_asyncdb import errors
from pytest_asyncdb._run.code import Import, names_in, read
from pytest_asyncdb._run.redirect import AppEngine

#: A test that leads to more objects than this without an engine counts as reaching none.
LIMIT = 50_000

#: They hold nothing, or everything.
_LEAVES = frozenset(
    (
        *(type(None), bool, int, float, complex, str, bytes, types.ModuleType, types.CodeType),
        *(types.FrameType, types.TracebackType),
        *(types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType),
    )
)
#: Packages whose objects hold everything, or nothing that matters.
_CLOSED = frozenset(
    (
        *("_pytest", "pytest", "pytest_asyncio", "pytest_asyncdb", "sqlalchemy", "logging"),
        *("asyncio", "threading", "weakref", "importlib", "_frozen_importlib"),
        *("_frozen_importlib_external", "pydantic", "pydantic_core"),
    )
)
_STANDARD = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
_PACKAGES = ("/site-packages/", "/dist-packages/")
#: Stands for an engine that is named, also where it is not made yet.
_TARGET = object()


class Reach:
    """What leads to the engines that the ini file names.

    Args:
        entries: The engines, each given as ``module:attribute``.
    """

    def __init__(self, entries: Sequence[AppEngine]) -> None:
        words = [entry.given.partition(":") for entry in entries if not entry.foreign]
        self._words = [(module, attribute.split(".")) for module, _, attribute in words]
        self._packages = {module.partition(".")[0] for module, _ in self._words}
        self._is_own: dict[str, bool] = {}
        self._modules = self._loaded = -1
        self.forget()

    def forget(self) -> None:
        """Keep no object any longer."""
        self._known: dict[int, tuple[Any, bool]] = {id(_TARGET): (_TARGET, True)}
        self._names: set[tuple[int, str]] = set()
        self._engines: set[Any] = set()
        self._kinds: tuple[type, ...] = ()

    def starts_at(self, functions: Iterable[Any], cls: type | None = None) -> bool:
        """Does one of *functions* lead to an engine?

        Args:
            cls: The class of the test; those of its attributes count that are named.
        """
        self._refresh()
        starts = list(functions)
        todo, taken = list(starts), set[str]()
        while cls is not None and todo:
            for name in names_in(todo.pop()) - taken:
                taken.add(name)
                value = _static(cls, name)
                starts.append(value)
                todo.append(value)
        return self._walk(starts)

    def _walk(self, starts: Iterable[Any]) -> bool:
        """Depth first, functions before other objects; what comes out is remembered."""
        came: dict[int, tuple[Any, Any]] = {}
        functions: list[Any] = []
        objects: list[Any] = []
        parent: Any = None
        children: Iterable[Any] = starts
        while True:
            for child in children:
                key = id(child)
                known = self._known.get(key, (None, None))[1]
                if known or (known is None and self._is_target(child)):
                    self._known[key] = (child, True)
                    while parent is not None:
                        self._known[id(parent)] = (parent, True)
                        parent = came[id(parent)][1]
                    return True
                if known is None and key not in came and not _is_leaf(child):
                    came[key] = (child, parent)
                    (functions if type(child) is types.FunctionType else objects).append(child)
            waiting = functions or objects
            if not waiting or len(came) > LIMIT:
                self._known.update({key: (one, False) for key, (one, _) in came.items()})
                return False
            parent = waiting.pop()
            children = self._led_to(parent)

    def _led_to(self, thing: Any) -> Iterable[Any]:
        """What is one step further than *thing*."""
        kind = type(thing)
        if kind is types.FunctionType:
            return self._of_function(thing)
        if issubclass(kind, type):
            return self._of_class(thing)
        if kind.__module__.partition(".")[0] in _CLOSED:
            return ()
        return gc.get_referents(thing)

    def _of_class(self, cls: type) -> Iterator[Any]:
        module = sys.modules.get(cls.__module__)
        if module is not None and self._owns(vars(module)) and not _is_model(cls):
            # What pydantic keeps in a class is large and leads nowhere.
            yield from (v for k, v in vars(cls).items() if not k.startswith("__pydantic_"))
            yield from cls.__bases__

    def _of_function(self, function: types.FunctionType) -> Iterator[Any]:
        """What it was given and, where it is the user's, what the names in it stand for."""
        for cell in function.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:
                continue  # not filled yet
        yield from function.__defaults__ or ()
        yield from (function.__kwdefaults__ or {}).values()
        yield from vars(function).values()
        if self._owns(function.__globals__):
            reading = read(function.__code__)
            yield from self._named(function.__globals__, reading.names, set())
            for found in reading.imports:
                yield from self._imported(function.__globals__, found, reading.names)

    def _named(
        self, scope: Mapping[str, Any], names: Iterable[str], seen: set[int]
    ) -> Iterator[Any]:
        """What *names* stand for in a module, and in modules that it names."""
        seen.add(id(scope))
        for name in names:
            if (id(scope), name) in self._names:
                yield _TARGET
            value: Any = scope.get(name)
            if issubclass(type(value), types.ModuleType):
                if id(vars(value)) not in seen and self._owns(vars(value)):
                    yield from self._named(vars(value), names, seen)
            elif issubclass(type(value), type) and _is_model(value):
                yield from (_static(value, attribute) for attribute in names)
            else:
                yield value

    def _imported(
        self, scope: Mapping[str, Any], found: Import, names: Iterable[str]
    ) -> Iterator[Any]:
        """What comes with an import; what the application has not loaded yet may be anything."""
        name = found.absolute(scope)
        module = sys.modules.get(name)
        inner = {} if module is None else vars(module)
        is_loaded = module is not None and all(p == "*" or p in inner for p in found.parts)
        if not is_loaded and name.partition(".")[0] in self._packages:
            yield _TARGET
        if self._owns(inner):
            yield from self._named(inner, names, set())

    def _owns(self, scope: Mapping[str, Any]) -> bool:
        """Is the module with these globals the user's, rather than of somebody's package?"""
        name = str(scope.get("__name__"))
        if name not in self._is_own:
            package = name.partition(".")[0]
            file = str(scope.get("__file__") or "").replace("\\", "/")
            foreign = not file or file.startswith(_STANDARD) or any(p in file for p in _PACKAGES)
            self._is_own[name] = package in self._packages or not (foreign or package in _CLOSED)
        return self._is_own[name]

    def _is_target(self, thing: Any) -> bool:
        return issubclass(type(thing), self._kinds) and any(
            engine in self._engines for engine in _engines_of(thing)
        )

    def _refresh(self) -> None:
        """Begin anew where more of the application has been imported since."""
        if self._modules == len(sys.modules):
            return
        self._modules = len(sys.modules)
        loaded = sum(1 for name in list(sys.modules) if name.partition(".")[0] in self._packages)
        if loaded == self._loaded:
            return
        self._loaded = loaded
        self.forget()
        if "sqlalchemy.ext.asyncio" in sys.modules:
            from sqlalchemy.engine import Engine
            from sqlalchemy.ext.asyncio import AsyncEngine, async_scoped_session, async_sessionmaker

            self._kinds = (Engine, AsyncEngine, async_sessionmaker, async_scoped_session)
        for module, parts in self._words:
            if module in sys.modules:
                self._aim(vars(sys.modules[module]), parts)

    def _aim(self, scope: Mapping[str, Any], parts: Sequence[str]) -> None:
        """Make what is named a target, and the engines behind it."""
        self._names.add((id(scope), parts[0]))
        value = scope.get(parts[0])
        for part in parts[1:]:
            value = inspect.getattr_static(value, part, None)
        found = [value]
        function = inspect.getattr_static(value, "__wrapped__", value)
        if type(function) is types.FunctionType:
            # It is not called; the engine that it returns is mostly one that it names.
            found = [*self._of_function(function)]
        for one in found:
            if issubclass(type(one), self._kinds):
                self._engines.update(_engines_of(one))
        if callable(value) or issubclass(type(value), self._kinds):
            self._known[id(value)] = (value, True)


def _engines_of(thing: Any) -> Sequence[Any]:
    """The sync engines behind an engine or a sessionmaker, none of them derived."""
    from sqlalchemy.engine import Engine

    if issubclass(type(thing), Engine):
        while (parent := getattr(thing, "_proxied", None)) is not None:
            thing = parent
        return [thing]
    try:
        return AppEngine(thing, "").engines()
    except errors.ConfigError:
        return []


def _is_leaf(thing: Any) -> bool:
    kind = type(thing)
    if kind is dict:
        return not thing or "__builtins__" in thing  # the globals of a module
    if kind is list or kind is set:
        return not thing
    return kind in _LEAVES or issubclass(kind, types.ModuleType)


def _static(cls: type, name: str) -> Any:
    """An attribute of a class, as it is written there."""
    return next((vars(one)[name] for one in cls.__mro__ if name in vars(one)), None)


def _is_model(cls: type) -> bool:
    """Is it mapped by SQLAlchemy, or the base of such classes?"""
    if any("__mapper__" in vars(one) for one in cls.__mro__):
        return True
    return type(_static(cls, "metadata")).__module__.startswith("sqlalchemy.")
