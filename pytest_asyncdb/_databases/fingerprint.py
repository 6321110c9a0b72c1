"""The fingerprint of a plan. It is equal in every process that would build the same template.

Two xdist workers hold the same metadata and functions at different addresses. So the fingerprint
hashes what these are made of: the DDL, and the code of functions with the values that the code
encloses or finds in its module. If a template stays for later runs, contents of files are hashed as
well: the modules of these functions, the folder of the migrations, and the files of
``asyncdb_inputs``. What a function imports or reads beyond that is not part of the fingerprint.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import hashlib
import importlib.metadata
import os
import re
import sys
import types
import uuid
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_asyncdb import errors
from pytest_asyncdb._engines.sqlalchemy_internals import mapped_state, mapped_values

if TYPE_CHECKING:
    from sqlalchemy import MetaData
    from sqlalchemy.engine import Dialect
    from sqlalchemy.schema import ExecutableDDLElement

    from pytest_asyncdb._databases.plan import SchemaPlan

#: Marks the description of a value that may be another one in the next run.
_UNKNOWN = "unknown object "
#: What ``repr`` writes for an object without a better description.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
#: Types whose ``repr`` describes the whole value.
_PLAIN = (
    *(bool, int, float, complex, str, bytes, type(None), type(...), os.PathLike, enum.Enum),
    *(datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID),
)
#: By the id of a function's code: the code, and the descriptions of what its names stood for before
#: a seed changed it. The key is not the code, because code of two modules may be equal.
_GLOBALS: dict[int, tuple[types.CodeType, list[str]]] = {}
#: By the state of a mapped object: the description of its values before a seed stored it.
_MAPPED: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


class Fingerprint:
    """Describes what a plan builds, in words that are equal in every process that would build the
    same.

    A value that cannot be described counts as different from every other one.

    Args:
        dialect: The dialect with which the schema is built.
        options: The engine options.
        hook: The backend's ``after_create``.
    """

    def __init__(
        self, plan: SchemaPlan, dialect: Dialect, options: Mapping[str, Any], hook: Any = None
    ) -> None:
        description = Description()
        describe = description.describe
        parts = [dialect.name, repr(plan.empty), repr(plan.extensions), describe(dict(options))]
        parts += [describe(function) for function in (hook, plan.migrate, *plan.seeds)]
        for metadata in plan.metadata if plan.migrate is None else ():
            parts += _ddl(metadata, dialect)
            parts += [describe(listener) for listener in _listeners(metadata)]
        self._plan = plan
        self._words = "\0".join(parts)
        self._files = description.files

    def of_run(self) -> str:
        """Return a hash that is equal in every process of a run."""
        return _hash(self._words)

    def lasting(self) -> str | None:
        """Return a hash that is also equal in later runs.

        None: a part of the plan cannot be described, so the template must not stay.
        """
        if _UNKNOWN in self._words:
            return None
        migrate = self._plan.migrate
        files = {*self._files, *map(str, self._plan.inputs)}
        if migrate is not None and hasattr(migrate, "input_files"):
            files.update(map(str, migrate.input_files()))
        contents = [f"{path} {_content(path)}" for path in sorted(files)]
        versions = map(importlib.metadata.version, ("sqlalchemy", "pytest-asyncdb"))
        return _hash("\0".join([self._words, *versions, *contents]))


def files_in(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the given files, and for a folder all files below it, except those in
    ``__pycache__``."""
    for path in paths:
        if path.is_dir():
            files = (one for one in path.rglob("*") if one.is_file())
            yield from (one for one in files if "__pycache__" not in one.parts)
        else:
            yield path


def _hash(words: str) -> str:
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def _content(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        return type(error).__name__


def _ddl(metadata: MetaData, dialect: Dialect) -> Iterator[str]:
    """Describe what *metadata* creates, in the dialect's words and in SQLAlchemy's own."""
    from sqlalchemy.exc import NoReferencedTableError
    from sqlalchemy.schema import CreateIndex, CreateTable

    try:
        tables = metadata.sorted_tables
    except NoReferencedTableError as error:
        raise errors.MetadataError(
            f"the table {error.table_name!r} is not in asyncdb_metadata",
            [str(error)],
            [
                "import the modules of all models in the one that asyncdb_metadata names, or name "
                "several: app.users:Base, app.orders:Base"
            ],
        ) from None
    for table in tables:
        # repr() holds the values of an enum, the DDL holds the constraints. The foreign keys of a
        # column and the indexes are sets, and the order of a set differs between processes.
        yield " ".join(sorted(re.split(r"[\s,]+", _ADDRESS.sub("", repr(table)))))
        yield _compiled(CreateTable(table), dialect)
        yield from sorted(_compiled(CreateIndex(index), dialect) for index in table.indexes)


def _listeners(metadata: MetaData) -> Iterator[Any]:
    for target in (metadata, *metadata.sorted_tables):
        for event in ("before_create", "after_create"):
            listeners = getattr(target.dispatch, event, ())
            # Types such as Enum listen as well. The repr() of their tables holds what they create.
            yield from (one for one in listeners if not _belongs_to_type(one))


def _belongs_to_type(listener: Any) -> bool:
    from sqlalchemy.types import SchemaType

    inner = getattr(listener, "func", listener)
    owner = getattr(inner, "__self__", None) or getattr(inner, "target", None)
    return isinstance(owner, SchemaType)


def _compiled(construct: ExecutableDDLElement, dialect: Dialect) -> str:
    from sqlalchemy.exc import CompileError

    try:
        return str(construct.compile(dialect=dialect))
    except CompileError as error:  # create_all reports it
        return str(error)


class Description:
    """Describes values in words that are equal in every process that has the same values.

    Attributes:
        files: The files of the modules of the functions and classes that were described.
    """

    def __init__(self) -> None:
        self.files: set[str] = set()
        #: The values that are being described, from the outermost to the innermost.
        self._around: list[int] = []

    def describe(self, value: Any) -> str:
        """Return words for *value*.

        A function is described by its code and by the values that the code encloses. An object of
        which nothing is known is described by its address, which no other process shares.
        """
        if isinstance(value, _PLAIN):
            return repr(value)
        if id(value) in self._around:  # a function that calls itself, a list that holds itself
            return f"the same as {self._around.index(id(value))}"
        self._around.append(id(value))
        try:
            return self._describe(value)
        finally:
            self._around.pop()

    def _describe(self, value: Any) -> str:
        if isinstance(value, (list, tuple, set, frozenset)):
            words = [self.describe(one) for one in value]
            ordered = words if isinstance(value, (list, tuple)) else sorted(words)
            return f"{type(value).__name__}({', '.join(ordered)})"
        if isinstance(value, Mapping):
            return self.describe([(str(key), one) for key, one in value.items()])
        if isinstance(value, types.MethodType):
            return f"{self.describe(value.__func__)} of {self.describe(value.__self__)}"
        if isinstance(value, types.FunctionType):
            self._note_module(value.__module__)
            return f"{value.__module__}.{value.__qualname__} {self._function(value)}"
        if isinstance(value, types.CodeType):
            # Not by repr(), because the order of a set differs between processes.
            parts = (value.co_filename, value.co_firstlineno, value.co_code, value.co_names)
            return _hash(self.describe((*parts, value.co_consts)))
        if isinstance(value, (type, types.ModuleType, types.BuiltinFunctionType)):
            return f"{getattr(value, '__module__', '')}.{value.__name__}"
        if isinstance(value, functools.partial):
            return self.describe([value.func, value.args, value.keywords])
        if (state := mapped_state(value)) is not None:
            if state not in _MAPPED:
                _MAPPED[state] = self.describe(mapped_values(value))
            return f"{self._class(value)} {_MAPPED[state]}"
        is_ddl = isinstance(getattr(value, "statement", None), str)  # SQLAlchemy's DDL
        if is_ddl or dataclasses.is_dataclass(value):
            return f"{self._class(value)} {self.describe(vars(value))}"
        return f"{_UNKNOWN}{self._class(value)} {id(value)}"

    def _function(self, function: types.FunctionType) -> str:
        enclosed = []
        for cell in function.__closure__ or ():
            try:
                enclosed.append(self.describe(cell.cell_contents))
            except ValueError:  # the name is bound later, to a value that is not known yet
                enclosed.append(f"{_UNKNOWN}unbound")
        defaults = (function.__defaults__, function.__kwdefaults__)
        code = function.__code__
        if id(code) not in _GLOBALS:
            files = {*self.files}
            used = [self.describe(one) for one in _globals(function, code)]
            self.files = files  # without the files of values that are described once only
            _GLOBALS[id(code)] = code, [words for words in used if _UNKNOWN not in words]
        enclosed += _GLOBALS[id(code)][1]
        return f"{self.describe(code)} {self.describe(defaults)} {enclosed}"

    def _class(self, value: Any) -> str:
        self._note_module(type(value).__module__)
        return f"{type(value).__module__}.{type(value).__qualname__}"

    def _note_module(self, name: str) -> None:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None:
            self.files.add(file)


def _globals(function: types.FunctionType, code: types.CodeType) -> Iterator[Any]:
    """Yield the values for which the names in *code* stand in the function's module.

    Classes, modules, built-in functions, and functions of other modules are left out.
    """
    for name in code.co_names:
        value = function.__globals__.get(name)
        if not isinstance(value, (type, types.ModuleType, types.BuiltinFunctionType)) and (
            getattr(value, "__module__", None) == function.__module__
            or not isinstance(value, types.FunctionType)
        ):
            yield value
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _globals(function, inner)
