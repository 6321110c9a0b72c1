"""Loads the object that a setting names as ``module:attribute``.

If the object is inside of others, more attributes and calls follow: ``app.db:get_db().engine``. The
caller checks what kind of object it is.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import traceback
from typing import Any, NamedTuple

from pytest_asyncdb import errors
from pytest_asyncdb._system.messages import near_miss


def split_name(word: str) -> tuple[str | None, str]:
    """Split a word of an option, as in ``audit=app.audit:Base``, into a database's name and the
    rest."""
    found = re.match(r"([A-Za-z_]\w*)=", word)
    return (found[1], word[found.end() :]) if found else (None, word)


class Naming(NamedTuple):
    """A setting that names objects.

    Args:
        setting: The name of the setting, for errors.
        example: An example of its value.
        wanted: What kind of object it names, for the remedy.
        error: The class of the errors.
    """

    setting: str
    example: str
    wanted: str
    error: type[errors.AsyncdbError]

    def load(self, word: str, source: str) -> Any:
        """The object that *word* names, or None if something on the way is None, or is an object
        like Starlette's ``State``, whose attributes come later; imports its module, and calls what
        has ``()`` behind its name.

        Raises:
            AsyncdbError: Of the class ``error``, if there is no such object or the import fails.
        """
        module_name, colon, attribute = word.partition(":")
        if not colon or not attribute:
            remedy = f"write module:attribute, such as {self.example}"
            raise self.error(f"{self.setting}={word!r} names no attribute ({source})", [], [remedy])
        value = self._import(module_name, word, source)
        for step in attribute.split("."):
            part = step.removesuffix("()")
            if not hasattr(value, part):
                if value is None or hasattr(type(value), "__getattr__"):
                    return None
                raise self._missing(part, value, word, source)
            value = getattr(value, part)
            if part != step:
                value = self.call(value, word, source)
        return value

    def _missing(self, part: str, owner: Any, word: str, source: str) -> errors.AsyncdbError:
        place = getattr(owner, "__name__", type(owner).__name__)
        near = near_miss(part, [n for n in dir(owner) if not n.startswith("_")])
        text = f"{self.setting}={word!r}: there is no {part!r} in {place}{near} ({source})"
        remedy = f"name {self.wanted} of that module"
        if inspect.isroutine(owner):
            remedy = f"if it belongs to what the function returns, call that: {place}().{part}"
        return self.error(text, [], [remedy])

    def call(self, function: Any, word: str, source: str) -> Any:
        """Call a function of the user. A note on its error says for which setting it was called."""
        try:
            return function()
        except Exception as error:
            error.add_note(f"called for {self.setting}={word!r} ({source})")
            raise

    def _import(self, module_name: str, word: str, source: str) -> Any:
        try:
            return importlib.import_module(module_name)
        except Exception as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name
            if missing and (module_name + ".").startswith(f"{missing}."):
                import pkgutil

                parent = missing.rpartition(".")[0]
                path = getattr(sys.modules.get(parent), "__path__", ())
                there = [f"{parent}.{module.name}" for module in pkgutil.iter_modules(path)]
                near = near_miss(missing, there)
                text = f"{self.setting}={word!r}: there is no module {missing!r}{near} ({source})"
                remedies = [f"name a module of {parent}"]
                if not path:
                    remedies = ["add its folder to the path: pythonpath = . in the ini file"]
                    remedies += ["install the project: pip install -e ."]
                raise self.error(text, [], remedies) from None
            places = [frame[:2] for frame in traceback.extract_tb(error.__traceback__)]
            places = [place for place in places if "importlib" not in place[0]]
            own = [place for place in places if "site-packages" not in place[0]] or places
            place = "{}:{}".format(*own[-1]) if own else "unknown"
            raise self.error(
                f"{self.setting}={word!r}: importing it failed ({source})",
                [f"{type(error).__name__}: {error}", f"at {place}"],
                [f"make it importable: python -c 'import {module_name}'"],
            ) from error
