"""What the code of a function names and imports, read from its code object."""

from __future__ import annotations

import dataclasses
import dis
import functools
import types
from collections.abc import Mapping
from typing import Any

_IMPORT = dis.opmap["IMPORT_NAME"]


@dataclasses.dataclass(frozen=True)
class Import:
    """An import inside of a function.

    Args:
        level: How many dots it has.
        name: The module, without the dots.
        parts: What it takes from there, which may be modules, too.
    """

    level: int
    name: str
    parts: tuple[str, ...]

    def absolute(self, scope: Mapping[str, Any]) -> str:
        """The module's full name, for an import in the module with these globals."""
        if not self.level:
            return self.name
        package = str(scope.get("__package__") or "").split(".")
        return ".".join(filter(None, [*package[: len(package) - self.level + 1], self.name]))


@dataclasses.dataclass(frozen=True)
class Reading:
    """The names in a function's code, attributes among them, and its imports."""

    names: frozenset[str]
    imports: tuple[Import, ...]


@functools.cache
def read(code: types.CodeType) -> Reading:
    """Read *code*, and the functions inside of it."""
    names = set(code.co_names)
    imports = list(_imports(code)) if _IMPORT in code.co_code[::2] else []
    for found in imports:
        names.update(found.name.split("."))
    for inner in code.co_consts:
        if type(inner) is types.CodeType:
            reading = read(inner)
            names |= reading.names
            imports += reading.imports
    return Reading(frozenset(names), tuple(imports))


def names_in(thing: Any) -> frozenset[str]:
    """The names in a function or method, and in the one that it is wrapped around."""
    names: frozenset[str] = frozenset()
    while thing is not None:
        thing = getattr(thing, "__func__", thing)
        if type(thing) is types.FunctionType:
            names |= read(thing.__code__).names
        thing = getattr(thing, "__dict__", {}).get("__wrapped__")
    return names


def _imports(code: types.CodeType) -> list[Import]:
    steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
    return [
        # The two constants before it are the level and what is taken.
        Import(steps[at - 2].argval, step.argval, steps[at - 1].argval or ())
        for at, step in enumerate(steps)
        if step.opcode == _IMPORT
    ]
