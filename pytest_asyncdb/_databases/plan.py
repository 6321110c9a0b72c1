"""The plan of a database: metadata or a migration, and seeds.

A plan holds the user's objects as they are. ``fingerprint.py`` describes what they are made of, and
``build.py`` builds the database from them.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import MetaData

from pytest_asyncdb import errors
from pytest_asyncdb._system.import_string import Naming, split_name
from pytest_asyncdb.values import Sourced

METADATA = Naming(
    "asyncdb_metadata", "app.models:Base", "a MetaData or a declarative base", errors.MetadataError
)


#: The name of a test's only database, and of the first one if it has no other name.
MAIN = "main"


@dataclasses.dataclass(frozen=True)
class SchemaPlan:
    """What a database is built from. Equal plans share a database.

    Args:
        metadata: What ``create_all`` builds.
        migrate: Builds the schema instead, if given.
        seeds: Fill the tables, one after the other. Each is a layer on top of those before it.
        empty: True if nothing is built at all (``schema=False``).
        extensions: Extensions of the database, also of an empty one.
        database: The name of the database among the test's. Two databases are separate even if the
            rest of their plans is equal.
        inputs: Files that decide what *migrate* and *seeds* do (``asyncdb_inputs``).
        session_options: Arguments for the sessions of the seeds. They do not count when plans are
            compared.
    """

    metadata: tuple[MetaData, ...] = ()
    migrate: Callable[..., Any] | None = None
    seeds: tuple[Callable[..., Any], ...] = ()
    empty: bool = False
    database: str = MAIN
    inputs: tuple[Path, ...] = ()
    extensions: tuple[str, ...] = ()
    session_options: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def base(self) -> SchemaPlan | None:
        """The plan without the last layer of seeds; None if there are fewer than two layers."""
        return dataclasses.replace(self, seeds=self.seeds[:-1]) if len(self.seeds) > 1 else None


def by_database(value: Any, names: Collection[str], fixture: str) -> dict[str, Any]:
    """Return a fixture's value for each database.

    It is a mapping from names of databases, in which None stands for the first one, or the value of
    the first database.

    Args:
        names: The names of the databases.

    Raises:
        ConfigError: The mapping has a name that is not among *names*.
    """
    if not isinstance(value, Mapping) or not value:
        return {next(iter(names)): value}
    for name in value:
        if name is not None and name not in names:
            raise unknown_database(str(name), names, f"the fixture {fixture}")
    return {next(iter(names)) if name is None else name: one for name, one in value.items()}


def unknown_database(name: str, names: Collection[str], source: str) -> errors.ConfigError:
    return errors.ConfigError(
        f"there is no database {name!r} ({source})",
        [f"asyncdb_metadata names: {', '.join(names)}."],
        [f"name it there: asyncdb_metadata = {next(iter(names))}=app.models:Base, {name}=…"],
    )


def mapped(schema: str | None, options: Mapping[str, Any]) -> str | None:
    """Return the schema to which ``schema_translate_map`` in execution options leads a table's
    schema."""
    return (options.get("schema_translate_map") or {}).get(schema, schema)


def refuse_equal_tables(metadata: Iterable[MetaData]) -> None:
    """Refuse two tables of one name, because only the first would be created.

    Raises:
        MetadataError: There are two such tables.
    """
    seen: dict[str, MetaData] = {}
    for one in metadata:
        for name in one.tables:
            if seen.setdefault(name, one) is not one:
                raise errors.MetadataError(
                    f"asyncdb_metadata has two tables {name!r}, in two declarative bases",
                    ["One database cannot have both; create_all would leave out the second."],
                    [
                        "give each base a database of its own: "
                        "asyncdb_metadata = main=app.models:Base, other=app.other:Base",
                        "rename one of them",
                    ],
                )


def as_seeds(value: Any) -> tuple[Callable[..., Any], ...]:
    """Return the value of the fixture ``asyncdb_seed`` as a sequence: one function, or several
    layers.

    Raises:
        ConfigError: It is neither a function nor a list of functions.
    """
    if value is None:
        return ()
    if callable(value):
        refuse_generator(value, "asyncdb_seed")
        return (value,)
    if isinstance(value, Collection) and not isinstance(value, (str, bytes, Mapping)):
        return tuple(seed for one in value for seed in as_seeds(one))
    raise errors.ConfigError(
        f"asyncdb_seed is not a function but {type(value).__name__} (the fixture asyncdb_seed)",
        remedies=["return an async function that takes a session, or a list of these"],
    )


def refuse_generator(function: Callable[..., Any] | None, fixture: str) -> None:
    """Refuse a function with ``yield``, because a call of it would run nothing.

    Raises:
        ConfigError: It has a ``yield``.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise errors.ConfigError(
            f"{fixture} is a function with yield (the fixture {fixture})",
            ["A call of it runs nothing."],
            ["write the function without yield; only a fixture may have one"],
        )


def load_metadata(written: Sourced[str]) -> dict[str, tuple[MetaData, ...]]:
    """Import the metadata that the ini file names: ``module:attribute``, comma-separated.

    Returns:
        The metadata of each database. A word without a name belongs to the first database.

    Raises:
        MetadataError: It cannot be imported, or has no tables.
    """
    words = [split_name(word) for word in written.value.replace(",", " ").split()]
    first = next((name for name, _ in words if name is not None), MAIN)
    found: dict[str, tuple[MetaData, ...]] = {first: ()}
    for name, word in words:
        value = METADATA.load(word, written.source)
        if value is None:
            raise errors.MetadataError(
                f"asyncdb_metadata={word!r} is None ({written.source})",
                ["Tables are read before the first test, when no application has started."],
                ["name a MetaData or a declarative base that is there after the import"],
            )
        loaded = as_metadata(value, written.source, f"asyncdb_metadata={word!r}")
        if not any(metadata.tables for metadata in loaded):
            raise errors.MetadataError(
                f"asyncdb_metadata={word!r} has no tables ({written.source})",
                [
                    f"{word.partition(':')[0]} was imported, "
                    "and no model of it is defined in what it imports."
                ],
                [
                    "name a module that imports all models, or several: "
                    "app.users:Base, app.orders:Base"
                ],
            )
        found[name or first] = (*found.get(name or first, ()), *loaded)
    return found


def as_metadata(value: Any, source: str, what: str = "asyncdb_metadata") -> tuple[MetaData, ...]:
    """Return the value of the fixture ``asyncdb_metadata`` as MetaData objects.

    Args:
        value: A ``MetaData``, something with a ``.metadata``, ``module:attribute``, a list of
            these, or None for no tables.
        what: The setting, for errors.

    Raises:
        MetadataError: It is none of these.
    """
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(m for one in load_metadata(Sourced(value, source)).values() for m in one)
    metadata = getattr(value, "metadata", value)
    if isinstance(metadata, MetaData):
        return (metadata,)
    if isinstance(value, Collection) and not isinstance(value, Mapping):
        return tuple(m for one in value for m in as_metadata(one, source, what))
    raise errors.MetadataError(
        f"{what} is not a MetaData but {type(value).__name__} ({source})",
        remedies=["give a MetaData, a declarative base, or a list of these"],
    )
