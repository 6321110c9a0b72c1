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
            raise self.error(
                f"{self.setting}={word!r} has no attribute ({source})",
                [],
                [f"write module:attribute, such as {self.example}"],
            )
        value = self._import(module_name, word, source)
        for part in attribute.split("."):
            if not hasattr(value, part):
                names = [n for n in dir(value) if not n.startswith("_")]
                raise self.error(
                    f"{self.setting}={word!r}: there is no {part!r} in "
                    f"{getattr(value, '__name__', value)}{messages.near_miss(part, names)} "
                    f"({source})",
                    [],
                    [f"name {self.wanted} of that module"],
                )
            value = getattr(value, part)
        return value

    def _import(self, module_name: str, word: str, source: str) -> Any:
        try:
            return importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and (module_name + ".").startswith(error.name + "."):
                raise self.error(
                    f"{self.setting}={word!r}: there is no module {error.name!r} ({source})",
                    [],
                    [
                        "add its folder to the path: pythonpath = . in the ini file",
                        "install the project: pip install -e .",
                    ],
                ) from None
            raise messages.import_failed(self.error, self.setting, word, source, error) from error
        except Exception as error:
            raise messages.import_failed(self.error, self.setting, word, source, error) from error
