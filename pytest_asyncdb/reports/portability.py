"""Which parts of the metadata a backend cannot store or treats differently. No server is asked.

Each table is compiled with the backend's dialect, which finds what SQLAlchemy itself refuses;
``portability_rules.py`` knows which columns the servers refuse or treat differently.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_asyncdb.reports.portability_rules import ALTERNATIVES, RULES

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table
    from sqlalchemy.engine import Dialect

    from pytest_asyncdb._run.run import Run

#: Number of places that are named.
_PLACES = 6


class Problem(NamedTuple):
    """Parts of the metadata that are not portable for one reason.

    Args:
        backends: The backends concerned.
        refused: They cannot store it; else they treat it differently.
        means: What happens.
        instead: The portable alternative.
        places: Columns such as ``users.tags``, or tables.
    """

    backends: tuple[str, ...]
    refused: bool
    means: str
    instead: str
    places: tuple[str, ...]


def problems(metadata: Iterable[MetaData], dialects: dict[str, str]) -> list[Problem]:
    """Everything that is not portable, refused parts first.

    Args:
        dialects: The name of SQLAlchemy's dialect by backend.
    """
    from sqlalchemy.engine import make_url

    tables = [table for one in metadata for table in one.tables.values()]
    found: defaultdict[tuple[Any, ...], list[str]] = defaultdict(list)
    for backend, name in dialects.items():
        dialect = make_url(f"{name}://").get_dialect()()
        places: defaultdict[tuple[bool, str, str], list[str]] = defaultdict(list)
        for table in tables:
            for refused, means, instead, place in _in_table(table, backend, dialect):
                places[refused, means, instead].append(place)
        for reason, several in places.items():
            found[*reason, tuple(several)].append(backend)
    result = [Problem(tuple(backends), *key) for key, backends in found.items()]
    return sorted(result, key=lambda problem: not problem.refused)


def of_run(run: Run) -> list[Problem]:
    """Problems of the metadata in the ini file on the run's backends; empty if it names none, or
    it cannot be imported, which others report."""
    from pytest_asyncdb._databases.plan import load_metadata

    if not run.settings.metadata.value:
        return []
    try:
        metadata = load_metadata(run.settings.metadata)
    except Exception:
        return []
    dialects = {spec.backend: run.backend(spec).dialect for spec in run.settings.specs}
    return problems(metadata, dialects)


def describe(problem: Problem) -> str:
    """The backends and the places."""
    differ = "treat differently" if len(problem.backends) > 1 else "treats differently"
    places = ", ".join(problem.places[:_PLACES])
    if len(problem.places) > _PLACES:
        places += f" and {len(problem.places) - _PLACES} more"
    return f"{', '.join(problem.backends)} {'cannot hold' if problem.refused else differ}: {places}"


def _in_table(table: Table, backend: str, dialect: Dialect) -> Iterator[tuple[bool, str, str, str]]:
    """Refused or not, meaning, alternative and place of each problem."""
    from sqlalchemy.exc import CompileError
    from sqlalchemy.schema import CreateIndex, CreateTable
    from sqlalchemy.types import TypeDecorator

    complete = True
    for column in table.columns:
        place = f"{table.name}.{column.name}"
        native: Any = column.type.dialect_impl(dialect)
        while isinstance(native, TypeDecorator):
            native = native.impl_instance
        try:
            column.type.compile(dialect)
        except (CompileError, NotImplementedError):
            complete = False
            yield True, *_missing_type(native), place
            continue
        for rule in RULES:
            if backend in rule.backends.split() and rule.fits(column, native):
                yield rule.refused, rule.means, rule.instead, place
    constructs: list[Any] = [CreateTable(table), *map(CreateIndex, table.indexes)]
    for construct in constructs if complete else []:
        try:
            str(construct.compile(dialect=dialect))
        except (CompileError, NotImplementedError) as error:
            reason = str(error).partition("\n")[0].strip()
            yield True, f"SQLAlchemy refuses it: {reason}", "leave it out there", table.name


def _missing_type(native: Any) -> tuple[str, str]:
    if getattr(native, "length", 0) is None:
        return "text without a length", "String(255), or Text"
    name = type(native).__name__.upper()
    instead = ALTERNATIVES.get(name, "a type of sqlalchemy itself, with this one by with_variant()")
    return f"the type {name} does not exist there", instead
