"""What shapes a database, and the fingerprint by which processes agree on it.

A plan holds objects of the user: metadata, functions. Two xdist workers have the same ones
under other addresses, so what they are made of is hashed. Nothing is built here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import os
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pytest_asyncdb import errors
from pytest_asyncdb._system.import_string import Naming
from pytest_asyncdb.abc import Sourced

if TYPE_CHECKING:
    from sqlalchemy import MetaData
    from sqlalchemy.engine import Dialect
    from sqlalchemy.schema import ExecutableDDLElement

METADATA = Naming(
    "asyncdb_metadata",
    "app.models:Base",
    "a MetaData or a declarative base",
    errors.MetadataError,
)

#: How the words for an object begin that no other process can know.
_UNKNOWN = "unknown object "
#: What Python writes for an object that has no better words.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@dataclasses.dataclass(frozen=True)
class SchemaPlan:
    """What shapes a database; equal plans share one.

    Args:
        metadata: What ``create_all`` builds.
        migrate: Builds the schema instead, if given.
        seeds: Fill the tables, one after the other; each is a layer on those before it.
        empty: Nothing is built at all (``schema=False``).
    """

    metadata: tuple[MetaData, ...] = ()
    migrate: Callable[..., Any] | None = None
    seeds: tuple[Callable[..., Any], ...] = ()
    empty: bool = False

    @property
    def base(self) -> SchemaPlan | None:
        """The plan without the last layer of seeds; None: there are no layers."""
        return dataclasses.replace(self, seeds=self.seeds[:-1]) if len(self.seeds) > 1 else None

    def fingerprint(self, dialect: Dialect, options: Mapping[str, Any]) -> str:
        """A hash that is equal in every process that would build the same.

        Where something cannot be told to be the same it counts as different.

        Args:
            dialect: The dialect that the schema is built with.
            options: The engine options.
        """
        return _hash(self._words(dialect, options))

    def lasting_fingerprint(self, dialect: Dialect, options: Mapping[str, Any]) -> str | None:
        """A hash that is equal also in processes of other runs that would build the same, as
        long as none of the :func:`~pytest_asyncdb._databases.sources.sources` has changed.

        None: that cannot be told.
        """
        words = self._words(dialect, options)
        if _UNKNOWN in words:
            return None
        versions = [importlib.metadata.version(name) for name in ("sqlalchemy", "pytest-asyncdb")]
        return _hash("\0".join([words, *versions]))

    def functions(self) -> list[Any]:
        """The user's functions and listeners that have a part in the building."""
        found = [*self.seeds, *([] if self.migrate is None else [self.migrate])]
        for metadata in self.metadata if self.migrate is None else ():
            found += _listeners(metadata)
        return found

    def _words(self, dialect: Dialect, options: Mapping[str, Any]) -> str:
        parts = [dialect.name, repr(self.empty), describe(dict(options))]
        parts += [] if self.migrate is None else [describe(self.migrate)]
        parts += [describe(seed) for seed in self.seeds]
        if self.migrate is None:
            parts += [part for one in self.metadata for part in _ddl(one, dialect)]
        return "\0".join(parts)


def _hash(words: str) -> str:
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def _ddl(metadata: MetaData, dialect: Dialect) -> Iterator[str]:
    """What *metadata* makes, in the dialect's words and in SQLAlchemy's own."""
    from sqlalchemy.schema import CreateIndex, CreateTable

    for table in metadata.sorted_tables:
        # Only these words hold the values of an enum, only the others the constraints. Foreign
        # keys of a column and indexes are sets, whose order is another in each process.
        yield " ".join(sorted(re.split(r"[\s,]+", _ADDRESS.sub("", repr(table)))))
        yield _compiled(CreateTable(table), dialect)
        yield from sorted(_compiled(CreateIndex(index), dialect) for index in table.indexes)
    yield from (describe(one) for one in _listeners(metadata))


def _listeners(metadata: MetaData) -> Iterator[Any]:
    for target in (metadata, *metadata.sorted_tables):
        for event in ("before_create", "after_create"):
            listeners = getattr(target.dispatch, event, ())
            # Types such as Enum listen, too; the words of their tables hold what they make.
            yield from (one for one in listeners if not _is_a_types(one))


def _is_a_types(listener: Any) -> bool:
    from sqlalchemy.types import SchemaType

    inner = getattr(listener, "func", listener)
    owner = getattr(inner, "__self__", None) or getattr(inner, "target", None)
    return isinstance(owner, SchemaType)


def _compiled(construct: ExecutableDDLElement, dialect: Dialect) -> str:
    from sqlalchemy.exc import CompileError

    try:
        return str(construct.compile(dialect=dialect))
    except CompileError as error:  # which building it will say better
        return str(error)


def describe(value: Any) -> str:
    """*value* in words that are equal in every process where it is the same.

    Functions are told by their code and what they enclose; an object of which nothing is
    known, by its address, which no other process has.
    """
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, type(...))):
        return repr(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        words = [describe(one) for one in value]
        ordered = words if isinstance(value, (list, tuple)) else sorted(words)
        return f"{type(value).__name__}({', '.join(ordered)})"
    if isinstance(value, Mapping):
        return describe([(str(key), one) for key, one in value.items()])
    if isinstance(value, types.MethodType):
        return f"{describe(value.__func__)} of {describe(value.__self__)}"
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return (
            f"{value.__module__}.{value.__qualname__} {_code(value.__code__)} "
            f"{describe([value.__defaults__, value.__kwdefaults__, cells])}"
        )
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    if isinstance(value, (type, types.ModuleType, types.BuiltinFunctionType)):
        return f"{getattr(value, '__module__', '')}.{value.__name__}"
    reduced = getattr(value, "func", None)
    if reduced is not None and hasattr(value, "keywords"):  # functools.partial
        return describe([reduced, value.args, value.keywords])
    if dataclasses.is_dataclass(value):
        fields = [getattr(value, field.name) for field in dataclasses.fields(value)]
        return f"{type(value).__module__}.{type(value).__qualname__} {describe(fields)}"
    text = getattr(value, "statement", None)
    if isinstance(text, str):  # SQLAlchemy's DDL
        condition = getattr(value, "_ddl_if", None)
        return text if condition is None else f"{text} {describe(tuple(condition))}"
    return f"{_UNKNOWN}{type(value).__module__}.{type(value).__qualname__} {id(value)}"


def _code(code: types.CodeType) -> str:
    # Not by repr(): the order of a set is another one in each process.
    constants = [_code(c) if isinstance(c, types.CodeType) else describe(c) for c in code.co_consts]
    parts = (code.co_filename, code.co_firstlineno, code.co_code.hex(), code.co_names, constants)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def as_seeds(value: Any) -> tuple[Callable[..., Any], ...]:
    """What a user's ``asyncdb_seed`` fixture returned: one function, or layers of them.

    Raises:
        ConfigError: It is none of these.
    """
    if value is None:
        return ()
    if callable(value):
        return (value,)
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return tuple(seed for one in value for seed in as_seeds(one))
    raise errors.ConfigError(
        f"asyncdb_seed is not a function but {type(value).__name__} (the fixture asyncdb_seed)",
        [],
        ["return an async function that takes a session, or a list of these"],
    )


def load_metadata(written: Sourced[str]) -> tuple[MetaData, ...]:
    """Import the metadata that the ini file names: ``module:attribute``, comma-separated.

    Raises:
        MetadataError: It cannot be imported, or has no tables.
    """
    words = [word for word in written.value.replace(",", " ").split() if word]
    return tuple(_load_one(word, written.source) for word in words)


def as_metadata(value: Any, source: str) -> tuple[MetaData, ...]:
    """What a user's ``asyncdb_metadata`` fixture returned, as MetaData objects.

    Args:
        value: A ``MetaData``, something with a ``.metadata``, ``module:attribute``, a list
            of these, or None for no tables.

    Raises:
        MetadataError: It is none of these.
    """
    from sqlalchemy import MetaData

    if value is None:
        return ()
    if isinstance(value, str):
        return load_metadata(Sourced(value, source))
    if isinstance(value, MetaData):
        return (value,)
    if isinstance(getattr(value, "metadata", None), MetaData):
        return (value.metadata,)
    if isinstance(value, Iterable):
        return tuple(m for one in value for m in as_metadata(one, source))
    raise errors.MetadataError(
        f"asyncdb_metadata is not a MetaData but {type(value).__name__} ({source})",
        [],
        ["give a MetaData, a declarative base, or a list of these"],
    )


def _load_one(word: str, source: str) -> MetaData:
    from sqlalchemy import MetaData

    value = METADATA.load(word, source)
    metadata = value if isinstance(value, MetaData) else getattr(value, "metadata", None)
    if not isinstance(metadata, MetaData):
        raise errors.MetadataError(
            f"asyncdb_metadata={word!r} is not a MetaData but {type(value).__name__} ({source})",
            [],
            ["name a MetaData or a declarative base"],
        )
    if not metadata.tables:
        raise errors.MetadataError(
            f"asyncdb_metadata={word!r} has no tables ({source})",
            [
                f"{word.partition(':')[0]} was imported, "
                "and no model of it is defined in what it imports."
            ],
            ["name a module that imports all models, or several: app.users:Base, app.orders:Base"],
        )
    return metadata
