"""Loads the object that a setting names as ``module:attribute``.

What kind of object it has to be is checked by the caller.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from pytest_asyncdb import errors
from pytest_asyncdb._system import messages


class Naming(NamedTuple):
    """A setting that names objects.

    Args:
        setting: Its name, for errors.
        example: An example of its value.
        wanted: What kind of object it names, for the remedy.
        error: The class of the errors.
    """

    setting: str
    example: str
    wanted: str
    error: type[errors.AsyncdbError]

    def load(self, word: str, source: str) -> Any:
        """The object that *word* names; imports its module.

        Raises:
            AsyncdbError: Of the class ``error``, if there is no such object or the import fails.
        """
        module_name, colon, attribute = word.partition(":")
        if not colon or not attribute:
            remedy = f"write module:attribute, such as {self.example}"
            raise self.error(f"{self.setting}={word!r} has no attribute ({source})", [], [remedy])
        value = self._import(module_name, word, source)
        for part in attribute.split("."):
            if not hasattr(value, part):
                place = getattr(value, "__name__", value)
                near = messages.near_miss(part, [n for n in dir(value) if not n.startswith("_")])
                text = f"{self.setting}={word!r}: there is no {part!r} in {place}{near} ({source})"
                raise self.error(text, [], [f"name {self.wanted} of that module"])
            value = getattr(value, part)
        return value

    def _import(self, module_name: str, word: str, source: str) -> Any:
        try:
            return importlib.import_module(module_name)
        except Exception as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name
            if missing and (module_name + ".").startswith(f"{missing}."):
                text = f"{self.setting}={word!r}: there is no module {missing!r} ({source})"
                path = "add its folder to the path: pythonpath = . in the ini file"
                project = "install the project: pip install -e ."
                raise self.error(text, [], [path, project]) from None
            raise messages.import_failed(self.error, self.setting, word, source, error) from error
